"""The settings of a data set and of copy-paste.

Nothing heavy is imported here, since ``--help`` shows them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import MISSING

from sam_spl.config import is_name, read, require, require_choice, require_side
from sam_spl.data.known import IMAGENET_MEAN, IMAGENET_STD, dataset_file
from sam_spl.data.pairing import has_images
from sam_spl.errors import ConfigError
from sam_spl.foreign import brief

#: How images and masks may be resized; :mod:`sam_spl.resize` says what the names mean.
RESIZE_RULES = ("pillow", "opencv")

#: Where images come from: files, or :mod:`sam_spl.data.synthetic`, ``varied`` or ``implanted``.
SOURCES = ("folder", "synthetic", "varied", "implanted")

_MOST_IMAGES = 10**7  # that are generated: an epoch's order is kept in memory
_MOST_TARGETS = 1000  # in an image
_LARGEST_TARGET = 10**6  # pixels
_STRONGEST = 10**4  # signal-to-clutter ratio
_UNIT = 10**6  # what a mean or a spread is below, and how many times its smallest


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _within(most: float) -> Callable[[Any], bool]:
    return lambda value: _range(value) and 0 < value[0] <= value[1] <= most


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _range(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_number, value))


def is_normalisation(mean: list[float], std: list[float]) -> bool:
    """Whether values can be the means and spreads of one channel or more, on a scale of [0, 1]."""
    in_range = all(_number(value) and abs(value) <= _UNIT for value in (*mean, *std))
    return in_range and 0 < len(mean) == len(std) and min(std) >= 1 / _UNIT


#: Of ``dataset.synthetic``: what holds for a value, and how to say it.
_SYNTHETIC: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("train", "val", "test"),
        (
            lambda value: _count(value) and value <= _MOST_IMAGES,
            f"give a number of images up to {_MOST_IMAGES}",
        ),
    ),
    "areas": (
        _within(_LARGEST_TARGET),
        f"give two numbers above 0 up to {_LARGEST_TARGET} in order, as [1,100]",
    ),
    "scr": (_within(_STRONGEST), f"give two numbers above 0 up to {_STRONGEST} in order, as [3,12]"),
    **dict.fromkeys(("empty", "dark", "scenes"), (_share, "must be in [0, 1]")),
    "most_targets": (
        lambda value: _count(value) and 0 < value <= _MOST_TARGETS,
        f"give a whole number from 1 to {_MOST_TARGETS}",
    ),
}


@dataclass
class DatasetConfig:
    """Where a data set is and how its recipe treats it.

    In an instance ``members`` holds such settings: the names of sets are replaced by what their files say,
    with this set's ``data_path`` and ``missing``.

    Raises:
        ConfigError: a value is not valid.
    """

    name: str = MISSING
    title: str = MISSING  # as papers spell it
    aliases: list[str] = field(default_factory=list)  # other names, on the command line and of folders
    source: str = "folder"  # folder | synthetic | varied | implanted
    data_path: str | None = "./datasets"  # folder of the data set, or its parent folder
    lists: str | None = None  # folder of the split lists, where a set comes with several
    default_lists: str | None = None  # which of several, with lists=null
    group: str | None = None  # pattern of names: images with an equal match depend on each other
    missing: str = "error"  # error | skip: what to do about images or masks that are not there
    odd_masks: list[str] = field(default_factory=list)  # images whose masks may have another size
    published_splits: list[str] = field(default_factory=list)  # counts of images, as 663/664
    official_lists: list[str] = field(default_factory=list)  # fingerprints of lists, where they are known
    published_size: list[int] | None = None  # (H, W), where all images of the set have one size
    members: list[Any] = field(default_factory=list)  # names of the sets that this one is the union of
    image_size: int | None = 256  # network input, square; null: each image at its own size (testing only)
    test_size: int | None = None  # where testing differs from image_size
    native_test: bool = False  # testing at each image's own size
    resize: str = "pillow"  # pillow | opencv: how images and masks get to image_size
    mean: list[float] = field(default_factory=lambda: list(IMAGENET_MEAN))  # of values in [0, 1]
    std: list[float] = field(default_factory=lambda: list(IMAGENET_STD))  # likewise
    augment: str = "scale_crop"  # training transform of the set's published recipe
    copy_paste: float = 0.0  # probability in the set's published recipe
    synthetic: dict[str, Any] = field(
        default_factory=dict
    )  # counts (train, val, test) and properties of scenes

    def __post_init__(self) -> None:
        require_choice(self.source, "dataset.source", SOURCES)
        require_choice(self.missing, "dataset.missing", ("error", "skip"))
        require_choice(self.resize, "dataset.resize", RESIZE_RULES)
        if self.source in ("folder", "implanted") and self.data_path is None:
            raise ConfigError("dataset.data_path: a value is required, as --data_path FOLDER.")
        for key, size in (("image_size", self.image_size), ("test_size", self.test_size)):
            require_side(size, f"dataset.{key}")
        require(is_name(self.title), "dataset.title", self.title, "give a name that can be a folder's")
        if not is_normalisation(self.mean, self.std):
            raise ConfigError(
                f"dataset.mean, dataset.std: {self.mean} and {self.std} are not valid, give one value or one "
                "per channel in both, finite, std above 0."
            )
        require(0 <= self.copy_paste <= 1, "dataset.copy_paste", self.copy_paste, "must be in [0, 1]")
        check_pattern("dataset.group", self.group)
        for key, (holds, rule) in _SYNTHETIC.items():
            if key in self.synthetic:
                value = self.synthetic[key]
                require(holds(value), f"dataset.synthetic.{key}", value, rule)
        if self.members:
            self._resolve_members()

    @classmethod
    def named(cls, name: str, **changes: Any) -> DatasetConfig:
        """The settings in the file of a name or alias, with some of them changed.

        Raises:
            ConfigError: unknown name or key, or a value that is not valid.
        """
        return read(cls, dataset_file(name) | changes, at="dataset")

    def _resolve_members(self) -> None:
        members = [self._member(member) for member in self.members]
        for member in members:
            if member.source != "folder" or member.members:
                raise ConfigError(
                    f"dataset: {member.name} cannot be part of a union; its parts are sets of image files."
                )
        titles = [member.title for member in members]
        for title in titles:
            require(titles.count(title) == 1, "dataset", f"[{','.join(titles)}]", f"name {title} once")
        if self.name == "union":
            self.name = "+".join(member.name for member in members)
            self.title = "+".join(titles)
        self.members = members

    def _member(self, member: Any) -> DatasetConfig:
        shared: dict[str, Any] = {"data_path": self.data_path, "missing": self.missing}
        if isinstance(member, DatasetConfig):
            return replace(member, **shared)
        if isinstance(member, Mapping):  # as a saved configuration holds it
            return read(DatasetConfig, dict(member) | shared, at="dataset.members")
        content = dataset_file(str(member))
        if content.get("data_path", "") is None:
            raise ConfigError(f"dataset: {member} cannot be part of a union; its parts are sets with a name.")
        return read(DatasetConfig, content | shared, at="dataset.members")


@dataclass
class CopyPasteConfig:
    """Targets cut out of some images and pasted into training images.

    Raises:
        ConfigError: a value is not valid.
    """

    probability: float | None = None  # null: as in the set's published recipe (dataset.copy_paste)
    source: str = "train"  # train | all: where targets are cut from; all leaks test images, as published

    def __post_init__(self) -> None:
        require_choice(self.source, "copy_paste.source", ("train", "all"))
        chosen = self.probability
        require(chosen is None or 0 <= chosen <= 1, "copy_paste.probability", chosen, "must be in [0, 1]")


def check_folders(datasets: Iterable[DatasetConfig]) -> None:
    """Several sets cannot be read from the folder of one.

    Raises:
        ConfigError: they would be.
    """
    asked: dict[str, set[str]] = {}
    for dataset in datasets:
        if dataset.source == "folder":
            asked.setdefault(str(dataset.data_path), set()).add(dataset.title)
    for path, titles in asked.items():
        if len(titles) > 1 and has_images(path):
            raise ConfigError(
                f"dataset.data_path: {path} is one data set, but {len(titles)} are asked for "
                f"({', '.join(sorted(titles))}). Give the folder that holds them."
            )


def check_pattern(key: str, pattern: str | None) -> None:
    """Whether a value is a regular expression.

    Raises:
        ConfigError: it is not one.
    """
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ConfigError(f"{key}: {brief(pattern)} is not a regular expression ({error}).") from error
