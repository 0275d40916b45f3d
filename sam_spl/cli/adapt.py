"""``sam-spl adapt``: weights for one's own camera, from frames without labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from omegaconf import MISSING

from sam_spl.cli.command import Command
from sam_spl.config import require, require_choice


@dataclass
class AdaptConfig:
    """Fine-tune weights on your camera's frames, with generated targets in them: no labels are needed."""

    frames: list[str] = MISSING  # images, folders with all below, patterns, videos, TIFF stacks
    weights: str = MISSING  # weights to start from: file, run folder, or a name that comes with the toolkit
    output: str = MISSING  # folder of the run
    epochs: int = 6
    images: int = 200  # frames with new targets in them, an epoch
    most_frames: int = 500  # that are used, evenly spread over what is given
    detections: str = "erase"  # what the weights find in the frames: erase | keep (as targets) | background
    scenes: float = 0.5  # share of generated scenes among the images
    areas: list[float] = field(default_factory=lambda: [5.0, 200.0])  # pixels of targets, from and to
    scr: list[float] = field(default_factory=lambda: [3.0, 30.0])  # signal-to-clutter ratio, from and to
    most_targets: int = 3  # implanted into a frame
    dark: float = 0.0  # share of targets darker than their surroundings
    batch_size: int = 4
    lr: float = 5e-4
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    precision: str = "auto"  # auto (bf16 where the hardware supports it) | fp32 | tf32 (CUDA) | bf16 | fp16
    overwrite: bool = False  # replace the run that output holds

    def __post_init__(self) -> None:
        for key in ("epochs", "images", "most_frames", "most_targets", "batch_size"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "give a whole number from 1")
        for key in ("areas", "scr"):
            require(len(getattr(self, key)) == 2, key, getattr(self, key), "give two numbers, as [3,30]")
        for key in ("dark", "scenes"):
            require(0 <= getattr(self, key) <= 1, key, getattr(self, key), "must be in [0, 1]")
        require_choice(self.detections, "detections", ("erase", "keep", "background"))
        require_choice(self.precision, "precision", ("auto", "fp32", "tf32", "bf16", "fp16"))
        require(0 < self.lr < math.inf, "lr", self.lr, "must be above 0")


def adapt(config: AdaptConfig) -> None:
    """Take frames, train, and compare."""
    from pathlib import Path

    from sam_spl.data.targets import Targets
    from sam_spl.engine import adaptation
    from sam_spl.weights.formats import find_weights

    folder = Path(config.output).expanduser()
    (smallest, largest), (weakest, strongest) = config.areas, config.scr
    targets = Targets((smallest, largest), (weakest, strongest), config.most_targets, dark=config.dark)
    done = adaptation.adapt(
        [str(Path(word).expanduser()) for word in config.frames],
        find_weights(config.weights),
        folder,
        adaptation.Adaptation(
            config.epochs,
            config.images,
            config.batch_size,
            config.lr,
            config.most_frames,
            targets,
            config.scenes,
            config.detections,
        ),
        device=config.device,
        precision=config.precision,
        seed=config.seed,
        overwrite=config.overwrite,
    )
    print(f"{done.frames} frames, {done.found} detections in them ({config.detections})")
    where = "the last fifth of the frames, which were not trained on" if done.frames > 1 else "that frame"
    print(f"targets implanted into {where}:")
    for name, result in (("before", done.before), ("after", done.after)):
        scores = result.scores
        print(
            f"  {name:<7} IoU {100 * scores['iou']:.2f} %  Pd {100 * scores['pd']:.2f} %  "
            f"Fa {1e6 * scores['fa']:.2f} 1e-6"
        )
    print(f"{done.weights}: use it with sam-spl predict --weights {folder}")


COMMAND = Command(
    name="adapt",
    config=AdaptConfig,
    run=adapt,
    positional=("frames",),
    aliases={
        "-o": "output",
        **{f"--{key.replace('_', '-')}": key for key in ("most_frames", "most_targets", "batch_size")},
    },
    examples=(
        "sam-spl adapt my_camera/ --weights datransnet-sirst --output checkpoints/my_camera",
        "sam-spl adapt night.mp4 --weights datransnet-sirst --output runs/night --scr '[2,10]' --epochs 5",
    ),
)
