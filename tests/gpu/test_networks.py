"""Networks on a GPU: half precision, memory formats, and the same answers and counts as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sam_spl
from sam_spl.data.catalog import open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.data.dataset import EvaluationSet
from sam_spl.data.normalise import Normalise
from sam_spl.engine.evaluator import evaluate
from sam_spl.metrics import protocols_named, scores
from sam_spl.models.registry import build_model
from sam_spl.runtime import World, pick_device, pick_precision
from sam_spl.weights.formats import save_weights
from tests.conftest import NETWORKS, TINY, fill, test

CPU = World(0, 1, torch.device("cpu"))


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, **(TINY if name == "sam_spl_t" else {})).eval()


def _image(model: nn.Module, size: int = 64) -> Tensor:
    return torch.from_numpy(fill.image("gpu", (2, model.in_channels, size, size)))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("precision", "closest", "farthest"), [("bf16", 2e-3, 0.2), ("fp16", 2e-4, 0.03)])
def test_half_precision_agrees_with_float32(name, precision, closest, farthest, device):
    """Mean distance over the spread of the logits; at least ``closest``, or autocast would not be at work."""
    model = _network(name).to(device)
    image = _image(model).to(device)
    place = torch.device(device)
    with torch.no_grad():
        single = model(image)
        with World(0, 1, place, pick_precision(precision, place)).autocast():
            half = model(image)
    for a, b in zip(half, single, strict=True):
        distance = (a.float() - b).abs().mean() / b.std()
        assert closest < distance < farthest


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_last_gives_the_same_logits_and_gradients(name, device):
    model = _network(name).to(device)
    image = _image(model).to(device)

    def run(memory_format: torch.memory_format) -> tuple[list[Tensor], list[Tensor]]:
        model.to(memory_format=memory_format).zero_grad()
        logits = model(image.contiguous(memory_format=memory_format))
        sum(x.square().mean() for x in logits).backward()
        return logits, [p.grad.clone() for p in model.parameters()]

    (logits, gradients), (others, other_gradients) = run(torch.contiguous_format), run(torch.channels_last)
    for a, b in zip(others, logits, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * b.abs().max().item(), rtol=0)
    largest = max(g.abs().max().item() for g in gradients)
    for a, b in zip(other_gradients, gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3 * largest, rtol=0)


class Shifted(nn.Module):
    """Finds bright pixels, one column too far to the right. All are far from the threshold of 0.5."""

    in_channels = 1

    def forward(self, image: Tensor) -> list[Tensor]:
        return [(image.roll(1, dims=-1) - 0.5) * 20]


def test_counts_are_those_of_the_cpu(device, folder):
    data = open_dataset(DatasetConfig(data_path=str(folder)))
    images = EvaluationSet(data.part("test").open(), None, Normalise((0.0,), (1.0,)))
    protocols = protocols_named(["native", "sam_spl"])
    world = World(0, 1, torch.device(device))
    counts = [
        evaluate(Shifted().to(w.device), images, w, protocols=protocols, detailed=True) for w in (CPU, world)
    ]
    assert scores(counts[1]) == scores(counts[0])
    assert scores(counts[0]).iou == pytest.approx(1 / 2)  # 6 of 9 + 3 pixels, in both images


def test_predictions_and_the_result_file_are_those_of_the_cpu(device, folder, tmp_path):
    weights = tmp_path / "best.safetensors"
    model = _network("sam_spl_t")
    description = {**model.built_from, "mean": [0.4] * 3, "std": [0.2] * 3, "image_size": 64}
    save_weights(weights, model.state_dict(), description)
    for name in ("cpu", device):
        words = [f"weights={weights}", "dataset=custom", f"dataset.data_path={folder}", f"device={name}"]
        test([*words, "save_predictions=npy", "report=0", "overlays=0", f"output_dir={tmp_path / name}"])
    files = sorted((tmp_path / "cpu").rglob("*.npy"))
    assert len(files) == 2
    for file in files:
        expected = np.load(file)
        np.testing.assert_allclose(
            np.load(tmp_path / device / file.relative_to(tmp_path / "cpu")), expected, atol=2e-4, rtol=0
        )
        assert expected.std() > 0.01  # they say something
    image = folder / "images" / "im_4.png"
    one, other = (sam_spl.load(weights, name, "fp32")(image).prob for name in ("cpu", device))
    np.testing.assert_allclose(other, one, atol=2e-4, rtol=0)


@pytest.mark.gpu
def test_a_gpu_is_chosen_and_half_precision_where_it_is_fast():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device (torch.cuda.is_available() is false)")
    chosen = pick_device("auto")
    assert chosen == torch.device("cuda", 0)
    ampere = torch.cuda.get_device_capability(chosen) >= (8, 0)  # the first with bfloat16
    assert pick_precision("auto", chosen) is (torch.bfloat16 if ampere else None)
