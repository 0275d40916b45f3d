"""``sam-spl calibrate``: the threshold for a budget of false alarms, stored in the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import MISSING

from sam_spl.cli.command import Command
from sam_spl.config import require, require_choice

if TYPE_CHECKING:
    from sam_spl.data.held_out import HeldOut


@dataclass
class CalibrateConfig:
    """Choose the threshold of a detector on held-out images, and store it in its weights."""

    weights: str = MISSING  # weights file or run folder
    dataset: str = MISSING  # name of a data set, or a folder with images/ and masks/
    budget: float = MISSING  # share of frames that may have a false alarm, as 0.05
    split: str = "val"  # val | test | train | all; images that the weights were trained on are left out
    data_path: str = "./datasets"  # folder of the data set, or its parent folder
    lists: str | None = None  # folder of the split lists, where there are several
    output: str | None = None  # file to write; null: WEIGHTS-calibrated.safetensors beside the weights
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    precision: str = "auto"  # auto | fp32 | tf32 | bf16 | fp16, as predict will compute
    train_size: int | None = None  # of published DATransNet weights: 256, for IRSTD-1k 512
    model: str | None = None  # module:Class, where the weights' network is your own

    def __post_init__(self) -> None:
        require(0 < self.budget < 1, "budget", self.budget, "must be a share of frames between 0 and 1")
        require_choice(self.split, "split", ("val", "test", "train", "all"))
        require_choice(self.precision, "precision", ("auto", "fp32", "tf32", "bf16", "fp16"))


def calibrate(config: CalibrateConfig) -> None:
    """Count false alarms at every threshold, choose one, and write it."""
    from pathlib import Path

    from sam_spl.data.config import DatasetConfig
    from sam_spl.engine.calibration import calibrate_weights
    from sam_spl.engine.config import TestConfig
    from sam_spl.weights.formats import find_weights

    folder = Path(config.dataset).expanduser()
    if folder.is_dir():
        named = {"title": folder.resolve().name, "data_path": str(folder), "lists": config.lists}
        dataset = DatasetConfig.named("custom", **named)
    else:
        dataset = DatasetConfig.named(config.dataset, data_path=config.data_path, lists=config.lists)
    weights = find_weights(config.weights)
    target = Path(config.output).expanduser() if config.output else None
    # A network without weights has its name, of a file of configs/, in place of them.
    beside = Path("checkpoints") if weights.suffix == ".yaml" else weights.parent
    target = target or beside / f"{weights.stem}-calibrated.safetensors"
    test = TestConfig(
        weights=str(weights),
        dataset=dataset,
        split=config.split,
        device=config.device,
        precision=config.precision,
        train_size=config.train_size,
        model=config.model,
        report=0,
        overlays=0,
    )
    done = calibrate_weights(test, budget=config.budget, target=target)
    found = done.found
    print(
        f"threshold {found.threshold:.5f}: {found.alarmed} of {found.images} images have a false alarm, "
        f"{found.alarms_per_frame:.3f} false alarms a frame; {found.detected} of {found.targets} targets"
    )
    print(
        f"With 95 % confidence (one-sided) at most {found.bound:.1%} of frames like these have a false alarm "
        f"(budget {found.budget:.1%}), predicted in the same way."
    )
    print(
        "This holds for one choice: choosing again on the same images until a result pleases is not covered."
    )
    for note in _notes(done.images):
        print(f"note: {note}")
    print(f"{target} states it: give that file to predict, test and export")


def _notes(images: HeldOut) -> list[str]:
    """What a reader has to know of the images."""
    notes = []
    if images.trained:
        notes.append(f"{images.trained} of the images were left out: these weights were trained on them")
    if images.chose:
        notes.append(
            f"{images.chose} of the images chose these weights among those of several epochs: this is their "
            "second use, and the promise is optimistic. Images that are new to the weights give one that "
            "holds"
        )
    if not images.stated:
        notes.append(
            "these weights do not state what they were trained on: the promise holds if it was none of these "
            "images"
        )
    return notes


COMMAND = Command(
    name="calibrate",
    config=CalibrateConfig,
    run=calibrate,
    positional=("weights",),
    aliases={"-o": "output"},
    examples=(
        "sam-spl calibrate checkpoints/my_run --dataset sirst --lists idx_427 --split val --budget 0.2",
        "sam-spl calibrate checkpoints/my_run --dataset ./my_images --split all --budget 0.02",
    ),
)
