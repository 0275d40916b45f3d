"""The valid files that cases change: a data set, its labels in every form, a run, its weights and results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.io import savemat

from sam_spl.cli.main import execute
from sam_spl.models.registry import build_model, built_from
from sam_spl.weights.formats import save_weights

#: A network that computes in milliseconds.
TINY = {
    "embed_dim": 16,
    "stages": [1, 2, 2],
    "window_spec": [4, 2, 3],
    "global_att_blocks": [4],
}
SIDE = 64
#: A training command on generated images, of a second.
TRAIN = [
    "train",
    "dataset=synthetic",
    "dataset.synthetic={train: 2, val: 0, test: 1}",
    f"dataset.image_size={SIDE}",
    "model=sam_spl_t",
    "model.trunk_weights=null",
    *(f"model.{key}={json.dumps(value).replace(' ', '')}" for key, value in TINY.items()),
    "recipe=scratch",
    "trainer.batch_size=2",
    "trainer.ema_decay=0.5",
    "device=cpu",
    "num_workers=0",
]
#: What testing writes of its own accord takes most of its time.
TEST = ["test", "dataset=custom", "device=cpu", "report=0", "overlays=0", "curves=false", "bootstrap=10"]

_CANARY = """from pathlib import Path
from torch import nn
(Path(__file__).parent / "CANARY").write_text("")
class Net(nn.Module):
    in_channels = 3
def sing(*arguments, **more):
    return None
"""


def write_valid(root: Path) -> None:
    """Write ``canary.py``, which tells when it is imported, and ``valid/`` with all valid files."""
    (root / "canary.py").write_text(_CANARY)
    folder = root / "valid"
    write_set(folder / "data")
    images = sorted((folder / "data" / "images").iterdir())
    _write_predictions(folder, images)
    _write_labels(folder, images)
    run = folder / "run"
    execute([*TRAIN, "trainer.epochs=1", f"save_dir={run}"])
    weights = ["--weights", str(run), "--data_path", str(folder / "data")]
    execute([*TEST, *weights, "--save_dir", str(folder / "results"), "report=2", "curves=true"])
    for path in (run / "train.log", run / "curves.png"):
        path.unlink(missing_ok=True)
    torch.manual_seed(0)
    network = build_model("sam_spl_t", **TINY)
    description = {**built_from(network), "mean": [0.5], "std": [0.25], "image_size": SIDE}
    for name in ("weights.safetensors", "weights.pt"):
        save_weights(folder / name, network.state_dict(), description)
    torch.save(network.state_dict(), folder / "plain.pth")


def write_set(root: Path, *, lists: bool = True) -> Path:
    """Four images of 48 x 40 with a target each, their masks and their lists."""
    rng = np.random.default_rng(7)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(4):
        image = rng.integers(20, 60, (40, 48), dtype=np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        top, left = rng.integers(4, 30, 2)
        mask[top : top + 3, left : left + 3] = 255
        image[mask > 0] = 220
        cv2.imwrite(str(root / "images" / f"im_{index}.png"), image)
        cv2.imwrite(str(root / "masks" / f"im_{index}.png"), mask)
    if lists:
        (root / "train.txt").write_text("im_0\nim_1\n")
        (root / "test.txt").write_text("im_2\nim_3\n")
    return root


def copy_set(valid: Path, folder: Path) -> Path:
    """A copy of the valid data set in ``folder/data``."""
    return Path(shutil.copytree(valid / "data", folder / "data"))


def _write_predictions(folder: Path, images: list[Path]) -> None:
    rng = np.random.default_rng(3)
    for form in ("npy", "mat", "png"):
        (folder / form).mkdir()
    for path in images:
        prob = rng.random((40, 48)).astype(np.float32)
        np.save(folder / "npy" / f"{path.stem}.npy", prob)
        savemat(folder / "mat" / f"{path.stem}.mat", {"prob": prob}, do_compression=True)
        cv2.imwrite(str(folder / "png" / f"{path.stem}.png"), np.round(255 * prob).astype(np.uint8))


def _write_labels(folder: Path, images: list[Path]) -> None:
    annotations = [
        {"image_id": 0, "bbox": [3, 4, 5, 6]},
        {"image_id": 1, "segmentation": [[3, 4, 9, 4, 9, 8, 3, 8]]},
        {"image_id": 2, "segmentation": {"size": [40, 48], "counts": [100, 5, 1815]}},
        {"image_id": 3, "segmentation": {"size": [40, 48], "counts": "T35gh1"}},
    ]
    listed = [{"id": k, "file_name": path.name, "width": 48, "height": 40} for k, path in enumerate(images)]
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "target"}]}
    (folder / "coco.json").write_text(json.dumps(content))
    shapes = [
        {"label": "target", "shape_type": "polygon", "points": [[3, 4], [9, 4], [9, 8]]},
        {"label": "target", "shape_type": "rectangle", "points": [[3, 4], [9, 8]]},
        {"label": "target", "shape_type": "circle", "points": [[20, 20], [22, 20]]},
        {"label": "target", "shape_type": "point", "points": [[30, 30]]},
    ]
    (folder / "labelme").mkdir()
    for path, shape in zip(images, shapes, strict=True):
        label = {"version": "5.0", "shapes": [shape], "imagePath": path.name, "imageHeight": 40}
        (folder / "labelme" / f"{path.stem}.json").write_text(json.dumps(label))
