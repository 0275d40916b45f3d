"""``sam-spl prepare``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from sam_spl.cli.command import Command
from sam_spl.config import require, require_choice
from sam_spl.errors import ConfigError


@dataclass
class PrepareConfig:
    """Make a data set from your own images and labels: copied images, masks as PNG, and split lists."""

    images: str = MISSING  # folder of images, nested or not
    output: str = MISSING  # new folder for the data set
    masks: str | None = None  # labels: folder of mask files
    coco: str | None = None  # labels: COCO file of boxes, polygons or run lengths
    labelme: str | None = None  # labels: folder of LabelMe files, one for each image
    unlabelled: str = "error"  # error | skip | empty: stop at images without label, skip them, or no target
    test: float = 0.2  # share of test images
    val: float = 0.0  # share of validation images
    by: str = "image"  # image | sequence: frames whose names differ in the last number only stay together
    seed: int = 0  # of the split
    link: bool = False  # hard links to the images instead of copies

    def __post_init__(self) -> None:
        require_choice(self.unlabelled, "unlabelled", ("error", "skip", "empty"))
        require_choice(self.by, "by", ("image", "sequence"))
        require(self.seed >= 0, "seed", self.seed, "must be 0 or more")
        if not (0 <= self.test < 1 and 0 <= self.val < 1 and 0 < self.test + self.val < 1):
            raise ConfigError(
                f"test, val: {self.test} and {self.val} are not valid, give shares whose sum is above 0 and "
                "below 1."
            )
        if sum(value is not None for value in (self.masks, self.coco, self.labelme)) != 1:
            raise ConfigError("masks, coco, labelme: give one of them, as --masks FOLDER or --coco FILE.")


def prepare(config: PrepareConfig) -> None:
    """Write the data set and print the next commands."""
    import shlex
    from pathlib import Path

    from sam_spl.data.prepare import image_files, read_labels, split_names, write_folder

    images = image_files(Path(config.images).expanduser())
    labels, without, unused = read_labels(
        images, masks=config.masks, coco=config.coco, labelme=config.labelme, unlabelled=config.unlabelled
    )
    shares = {"val": config.val, "test": config.test}
    split = split_names(labels, shares, by_sequence=config.by == "sequence", seed=config.seed)
    output = Path(config.output).expanduser()
    empty = write_folder(output, images, labels, split, link=config.link)
    counts = ", ".join(f"{len(names)} {role}" for role, names in split.items())
    skipped = f", {len(without)} without label skipped" if without and config.unlabelled == "skip" else ""
    print(f"{output}: {counts} images, {empty} of them without target{skipped}")
    if unused:
        print(f"note: {len(unused)} masks have no image and are left out, first {', '.join(unused[:3])}")
    print(f"check: sam-spl check {shlex.quote(str(output))}")
    print(f"train: sam-spl train --dataset custom --data_path {shlex.quote(str(output))}")


COMMAND = Command(
    name="prepare",
    config=PrepareConfig,
    run=prepare,
    positional=("images",),
    aliases={"-o": "output"},
    examples=(
        "sam-spl prepare IMAGES --masks MASKS -o datasets/mine",
        "sam-spl prepare IMAGES --coco boxes.json -o datasets/mine --by sequence",
        "sam-spl prepare IMAGES --labelme LABELS -o datasets/mine --unlabelled empty",
    ),
)
