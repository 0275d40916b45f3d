"""From the settings of a data set to its images. The settings are the files of ``configs/dataset/``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sam_spl.data.config import DatasetConfig
from sam_spl.data.identity import Identity, identify
from sam_spl.data.implanted import ImplantedSource, find_frames
from sam_spl.data.known import set_of_folder
from sam_spl.data.layout import Item, Split, find_root, find_split, fingerprint
from sam_spl.data.sources import FolderSource, Joined, Source
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.data.targets import Targets
from sam_spl.data.varied import VariedSource
from sam_spl.errors import ConfigError, InputError

_SCENE = 256  # pixels of the generated scenes among implanted frames

#: Training images that weights files record of a folder without lists.
_SAMPLES = 16


@dataclass(frozen=True)
class Part:
    """One role of a data set. It is opened when asked for: decoding training images costs testing nothing.

    Attributes:
        role: train, val, test or all; where the sets of a union have different ones, each with its set.
        count: number of images.
        fingerprint: SHA-256 of the list of names; None for generated images.
        open: makes the source; ``skip_bad=True`` leaves files that cannot be read to those who load them.
        items: the images; none of generated ones.
    """

    role: str
    count: int
    fingerprint: str | None
    open: Callable[..., Source]
    items: tuple[Item, ...] = ()

    @property
    def files(self) -> set[Path]:
        """The image files."""
        return {item.image for item in self.items}

    def without(self, files: Collection[Path]) -> Part:
        """The part without some image files."""
        if not self.files & set(files):
            return self
        return _part(self.role, tuple(item for item in self.items if item.image not in files))


@dataclass(frozen=True)
class DataSet:
    """A data set as it was found.

    Attributes:
        title: as papers spell it.
        lists: which split.
        where: the folder, or how it is generated.
        parts: train, val and test.
        skipped: names left out because the image or the mask is missing (``dataset.missing=skip``).
        identity: signs that it is not the set that was named.
        splits: set title -> the folder that was found; several for a union, none for generated images.
    """

    title: str
    lists: str
    where: str
    parts: dict[str, Part]
    skipped: tuple[str, ...] = ()
    identity: Identity = field(default_factory=Identity)
    splits: dict[str, Split] = field(default_factory=dict)

    def part(self, role: str) -> Part:
        """The part ``role``; ``all`` is every image of train, val and test, once.

        Raises:
            InputError: the set has no image in it.
        """
        return self._filled(self._whole() if role == "all" else self.parts[role])

    def part_to_test(self, trained_on: Mapping[str, Any] | None) -> Part:
        """What weights are tested on: the test images, or all images of a folder that is new to the weights.

        The latter holds for folders without lists. Their test images are one in five, for weights that were
        trained on the other four.

        Args:
            trained_on: from the weights' description; None where it is unknown, as for published weights.

        Raises:
            InputError: the set has no test images.
        """
        known = self.known_to(trained_on)
        roles = {title: "test" if of.listed or title in known else "all" for title, of in self.splits.items()}
        if "all" not in roles.values():
            return self.part("test")
        role = (
            "all"
            if len(set(roles.values())) == 1
            else ", ".join(f"{title} {of}" for title, of in roles.items())
        )
        return self._filled(_part(role, _images(self.splits, roles)))

    def known_to(self, trained_on: Mapping[str, Any] | None) -> set[str]:
        """The folders whose images weights were trained on.

        These are folders with the same training list, sets with the same name (except "custom", which every
        folder without a name has), and folders that hold one of the recorded training images: images may have
        been added or removed since.
        """
        of = trained_on or {}
        lists = of.get("sets") or {of.get("dataset"): of.get("fingerprint")}
        named = lists.keys() - {"custom"}
        sampled = {pair for images in of.get("samples", {}).values() for pair in images.items()}
        return {
            title
            for title, own in self.training_lists.items()
            if own in lists.values() or title in named or _holds_one(self.splits[title], sampled)
        }

    @property
    def training_samples(self) -> dict[str, dict[str, str]]:
        """For each folder without lists, some training images by name and content, to recognise it by."""
        return {
            title: {item.name: _content(item) for item in sorted(split.train, key=_drawn)[:_SAMPLES]}
            for title, split in self.splits.items()
            if not split.listed
        }

    @property
    def training_lists(self) -> dict[str, str]:
        """The fingerprint of each folder's training list, before images are held out for validation."""
        return {title: fingerprint(split.train) for title, split in self.splits.items()}

    def _whole(self) -> Part:
        if self.splits:
            return _part("all", _images(self.splits, dict.fromkeys(self.splits, "all")))
        parts = self.parts.values()  # of generated images, which are numbered in each part
        return Part(
            "all",
            sum(part.count for part in parts),
            None,
            lambda **how: Joined([part.open(**how) for part in parts], [f"{part.role}/" for part in parts]),
        )

    def _filled(self, part: Part) -> Part:
        if not part.count:
            raise InputError(
                f"dataset: {self.title} ({self.where}, lists {self.lists}) has no {part.role} images."
            )
        return part


def open_dataset(config: DatasetConfig, *, val_share: float = 0.0, seed: int = 0) -> DataSet:
    """Find a data set.

    Args:
        config: which set, and where.
        val_share: share of training images to hold out where the set has no validation images.
        seed: chooses the images to hold out, and the generated images.

    Raises:
        ConfigError: a value is not valid.
        InputError: the folder, a mask or a listed image is missing.
    """
    if config.source != "folder":
        return _generated(config, seed)
    splits = _members(config.members) if config.members else {config.title: locate(config)}
    identity = _identity(config.members or [config], splits)
    train, val, test = (_images(splits, dict.fromkeys(splits, role)) for role in ("train", "val", "test"))
    if val_share > 0 and not val:
        train, val = hold_out(train, val_share, seed)
    only = next(iter(splits.values())) if len(splits) == 1 else None
    return DataSet(
        title=config.title,
        lists=only.lists if only else ", ".join(f"{title} {split.lists}" for title, split in splits.items()),
        where=str(only.root if only else config.members[0].data_path),
        parts={role: _part(role, items) for role, items in (("train", train), ("val", val), ("test", test))},
        skipped=tuple(
            _named(splits, title, name) for title, split in splits.items() for name in split.skipped
        ),
        identity=identity,
        splits=splits,
    )


def locate(config: DatasetConfig) -> Split:
    """Where the files of a set on disk are.

    Raises:
        ConfigError: a value is not valid, or the set is not a folder of images.
        InputError: the folder, a mask or a listed image is missing.
    """
    if config.members:
        names = ", ".join(member.name for member in config.members)
        raise ConfigError(f"dataset: {config.name} is a union of sets. Use them one by one: {names}")
    if config.source != "folder":
        raise ConfigError(f"dataset: {config.name} is generated, it is not a folder of images.")
    assert config.data_path is not None
    root = find_root(config.data_path, (config.title, config.name, *config.aliases))
    try:
        return find_split(
            root,
            config.lists,
            default_lists=config.default_lists,
            skip_missing=config.missing == "skip",
            odd_masks=config.odd_masks,
        )
    except InputError as error:
        other = set_of_folder(root.name)
        if other is None or other == config.name:
            raise
        raise InputError(
            f"{error} Or is this another set? Its folder is named {root.name}: --dataset {other}"
        ) from error


def _members(members: list[DatasetConfig]) -> dict[str, Split]:
    """The sets of a union by their titles."""
    splits = {member.title: locate(member) for member in members}
    if len({split.root for split in splits.values()}) < len(splits):
        raise InputError(
            f"dataset: {' and '.join(splits)} are both read from {members[0].data_path}. Give --data_path "
            "the folder that holds the sets."
        )
    return splits


def _identity(members: list[DatasetConfig], splits: Mapping[str, Split]) -> Identity:
    found = [identify(member, splits[member.title]) for member in members]
    return Identity(
        mismatch="; ".join(one.mismatch for one in found if one.mismatch) or None,
        remark="; ".join(one.remark for one in found if one.remark) or None,
    )


def _images(splits: Mapping[str, Split], roles: Mapping[str, str]) -> tuple[Item, ...]:
    """The images of each folder in its role."""
    return tuple(
        replace(item, name=_named(splits, title, item.name))
        for title, split in splits.items()
        for item in split.images(roles[title])
    )


def _named(splits: Mapping[str, Split], title: str, name: str) -> str:
    """The name of an image; in a union with its set in front."""
    return name if len(splits) == 1 else f"{title}/{name}"


def _holds_one(split: Split, sampled: set[tuple[str, str]]) -> bool:
    """Whether the split holds a sampled image, by name and content: 000001 is a name in several sets."""
    names = {name for name, _ in sampled}
    return any(item.name in names and (item.name, _content(item)) in sampled for item in split.images("all"))


def _content(item: Item) -> str:
    with item.image.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _drawn(item: Item) -> bytes:
    """A key to sort images at random by, the same for the same name."""
    return hashlib.sha256(item.name.encode()).digest()


def _part(role: str, items: tuple[Item, ...]) -> Part:
    return Part(role, len(items), fingerprint(items), partial(FolderSource, items), items)


def groups_of(config: DatasetConfig, names: Sequence[str]) -> list[str] | None:
    """The group of each image by ``dataset.group``; None where the images are independent.

    Args:
        config: of the set; in a union each member has its own pattern.
        names: as the set's source gives them.
    """
    members = config.members or [config]
    if len(members) == 1:
        return group_names(members[0].group, names) if members[0].group else None
    if not any(member.group for member in members):
        return None
    groups = {name: name for name in names}
    for member in members:
        own = [name for name in names if name.startswith(f"{member.title}/")]
        if member.group:
            inner = group_names(member.group, [name.removeprefix(f"{member.title}/") for name in own])
            groups |= {name: f"{member.title}/{group}" for name, group in zip(own, inner, strict=True)}
    return list(groups.values())


def group_names(pattern: str, names: Sequence[str]) -> list[str]:
    """The group of each name: what the first group of the pattern matches in it, or the whole match.

    A name without a match is a group of its own.
    """
    matches = [re.search(pattern, name) for name in names]
    found = [match and match[1 if match.re.groups else 0] for match in matches]
    return [group or name for group, name in zip(found, names, strict=True)]


def hold_out(items: tuple[Item, ...], share: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Split off a random ``share``: at least one image, and not all of them."""
    count = min(max(1, round(share * len(items))), len(items) - 1)
    held = set(np.random.default_rng(seed).permutation(len(items))[:count].tolist())
    return (
        tuple(item for index, item in enumerate(items) if index not in held),
        tuple(item for index, item in enumerate(items) if index in held),
    )


def _same(source: Source, *, skip_bad: bool = False) -> Source:
    return source


def _generated(config: DatasetConfig, seed: int) -> DataSet:
    arguments = {str(key): value for key, value in config.synthetic.items()}
    counts = {role: arguments.pop(role, 0) for role in ("train", "val", "test")}
    for key in ("areas", "scr"):
        if key in arguments:
            arguments[key] = tuple(arguments[key])
    # The test images do not follow the run's seed, so that runs of different seeds compare.
    seeds = {"train": 10 * seed + 1, "val": 10 * seed + 2, "test": 3}
    try:
        where, sources = _MAKERS[config.source](config, counts, seeds, arguments)
    except TypeError as error:
        raise ConfigError(f"dataset.synthetic: {error}") from error
    parts = {role: Part(role, len(source), None, partial(_same, source)) for role, source in sources.items()}
    return DataSet(config.title, "generated", where, parts)


Sources = tuple[str, dict[str, Source]]
Numbers = Mapping[str, int]


def _synthetic(config: DatasetConfig, counts: Numbers, seeds: Numbers, arguments: dict[str, Any]) -> Sources:
    size = _side(config)
    return f"generated at {size} pixels", {
        role: SyntheticSource(count, size, seed=seeds[role], **arguments) for role, count in counts.items()
    }


def _varied(config: DatasetConfig, counts: Numbers, seeds: Numbers, arguments: dict[str, Any]) -> Sources:
    size, targets = _side(config), Targets(**arguments)
    return f"generated at {size} pixels", {
        role: VariedSource(count, size, seed=seeds[role], targets=targets) for role, count in counts.items()
    }


def _implanted(config: DatasetConfig, counts: Numbers, seeds: Numbers, arguments: dict[str, Any]) -> Sources:
    """Test images have frames of their own: the last fifth, since frames of a video follow each other."""
    assert config.data_path is not None
    root = Path(config.data_path).expanduser()
    frames = find_frames(root)
    begin = len(frames) - max(1, len(frames) // 5) if len(frames) > 1 else 0
    of = {"train": frames[: begin or None], "val": frames[begin:], "test": frames[begin:]}
    share = arguments.pop("scenes", 0.0)
    targets = Targets(**arguments)
    return f"targets implanted into {len(frames)} frames of {root}", {
        role: ImplantedSource(
            of[role],
            count,
            seeds[role],
            targets,
            VariedSource(count, max(_SCENE, _side(config)), seeds[role], targets),
            share if role == "train" else 0.0,
        )
        for role, count in counts.items()
    }


def _side(config: DatasetConfig) -> int:
    if config.image_size is None:
        raise ConfigError("dataset.image_size: null is not valid, synthetic images need a size in pixels.")
    return config.image_size


_MAKERS: dict[str, Callable[[DatasetConfig, Numbers, Numbers, dict[str, Any]], Sources]] = {
    "synthetic": _synthetic,
    "varied": _varied,
    "implanted": _implanted,
}
