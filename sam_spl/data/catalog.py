"""From a data set's configuration to its images. The sets themselves are the files of ``configs/dataset/``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from sam_spl.data.dataset import FolderSource, Normalise, Source
from sam_spl.data.identity import Identity, identify
from sam_spl.data.layout import Item, Split, find_root, find_split, fingerprint
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.errors import ConfigError, InputError


@dataclass(frozen=True)
class Part:
    """One role of a data set, opened when asked for: decoding a training set takes time that testing need not spend.

    Attributes:
        role: train, val or test.
        count: number of images.
        fingerprint: SHA-256 of the list of names; None for generated images.
        open: makes the source.
    """

    role: str
    count: int
    fingerprint: str | None
    open: Callable[[], Source]


@dataclass(frozen=True)
class DataSet:
    """A data set as it was found.

    Attributes:
        title: as papers spell it.
        lists: which split.
        where: the folder, or how it is generated.
        parts: train, val and test.
        skipped: names left out because image or mask is missing (``dataset.missing=skip``).
        identity: what speaks against its being the set that it is called.
    """

    title: str
    lists: str
    where: str
    parts: dict[str, Part]
    skipped: tuple[str, ...] = ()
    identity: Identity = field(default_factory=Identity)

    def part(self, role: str) -> Part:
        """The part ``role``.

        Raises:
            InputError: the set has no image in it.
        """
        if not self.parts[role].count:
            raise InputError(f"dataset: {self.title} ({self.where}, lists {self.lists}) has no {role} images.")
        return self.parts[role]


def open_dataset(config: Any, *, val_share: float = 0.0, seed: int = 0) -> DataSet:
    """Find a data set.

    Args:
        config: :class:`~sam_spl.cli.config.DatasetConfig`.
        val_share: of the training images, held out for validation where the set has no validation images.
        seed: of what is held out, and of generated images.

    Raises:
        ConfigError: a value is not valid.
        InputError: the folder, a mask or a listed image is missing.
    """
    if config.source == "synthetic":
        return _synthetic(config, seed)
    split, identity = _union(config.members) if config.members else _found(config)
    train, val = split.train, split.val
    if val_share > 0 and not val:
        train, val = hold_out(train, val_share, seed)
    return DataSet(
        config.title,
        split.lists,
        str(split.root),
        {
            role: Part(role, len(items), fingerprint(items), lambda items=items: FolderSource(items))
            for role, items in (("train", train), ("val", val), ("test", split.test))
        },
        split.skipped,
        identity,
    )


def _found(config: Any) -> tuple[Split, Identity]:
    split = locate(config)
    return split, identify(config, split)


def locate(config: Any) -> Split:
    """Where the files of one folder set lie.

    Raises:
        ConfigError: a value is not valid, or the set is none of folders.
        InputError: the folder, a mask or a listed image is missing.
    """
    if config.members:
        names = ", ".join(str(getattr(member, "name", member)) for member in config.members)
        raise ConfigError(f"dataset: {config.name} is a union of sets. Take them one by one: {names}")
    if config.source != "folder":
        raise ConfigError(f"dataset.source: {config.source!r} of {config.name} is no folder of images")
    if config.missing not in ("error", "skip"):
        raise ConfigError(f"dataset.missing: {config.missing!r} is neither error nor skip")
    root = find_root(config.data_path, (config.title, config.name, *config.aliases))
    return find_split(
        root,
        config.lists,
        default_lists=config.default_lists,
        skip_missing=config.missing == "skip",
        odd_masks=config.odd_masks,
    )


def _union(members: list[Any]) -> tuple[Split, Identity]:
    """Several sets as one; an image is called by its set and its name."""
    found = {member.title: _found(member) for member in members}
    splits = {title: split for title, (split, _) in found.items()}
    if len({split.root for split in splits.values()}) < len(splits):
        raise InputError(
            f"dataset: {' and '.join(splits)} are both read from {members[0].data_path}. Give --data_path the "
            "folder that holds the sets."
        )

    def together(role: str) -> tuple[Item, ...]:
        return tuple(
            replace(item, name=f"{title}/{item.name}")
            for title, split in splits.items()
            for item in getattr(split, role)
        )

    union = Split(
        root=Path(members[0].data_path),
        lists=", ".join(f"{title} {split.lists}" for title, split in splits.items()),
        train=together("train"),
        val=together("val"),
        test=together("test"),
        skipped=tuple(f"{title}/{name}" for title, split in splits.items() for name in split.skipped),
    )
    identities = [identity for _, identity in found.values()]
    return union, Identity(
        mismatch="; ".join(one.mismatch for one in identities if one.mismatch) or None,
        remark="; ".join(one.remark for one in identities if one.remark) or None,
    )


def groups_of(config: Any, names: Sequence[str]) -> list[str] | None:
    """The group of each image by ``dataset.group``; None where the set's images are independent.

    Args:
        config: :class:`~sam_spl.cli.config.DatasetConfig`; of a union each member has its own pattern.
        names: as the set's source gives them.
    """
    if not config.members:
        return group_names(config.group, names) if config.group else None
    if not any(member.group for member in config.members):
        return None
    groups = {name: name for name in names}
    for member in config.members:
        own = [name for name in names if name.startswith(f"{member.title}/")]
        if member.group:
            inner = group_names(member.group, [name.removeprefix(f"{member.title}/") for name in own])
            groups |= {name: f"{member.title}/{group}" for name, group in zip(own, inner, strict=True)}
    return list(groups.values())


def group_names(pattern: str, names: Sequence[str]) -> list[str]:
    """The group of each name: what the pattern's first group matches in it, or all of the match.

    A name in which the pattern is not found is a group of its own.
    """
    matches = [re.search(pattern, name) for name in names]
    found = [match and match[1 if match.re.groups else 0] for match in matches]
    return [group or name for group, name in zip(found, names, strict=True)]


def hold_out(items: tuple[Item, ...], share: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Split off a random ``share`` (at least one image, and leaving one)."""
    count = min(max(1, round(share * len(items))), len(items) - 1)
    held = set(np.random.default_rng(seed).permutation(len(items))[:count].tolist())
    return (
        tuple(item for index, item in enumerate(items) if index not in held),
        tuple(item for index, item in enumerate(items) if index in held),
    )


def normalise_of(config: Any, channels: int) -> Normalise:
    """The normalisation of a data set for a network of ``channels``.

    A network of one channel takes the mean of three values: they are equal where a set has its own, and ImageNet's
    (0.485, 0.456, 0.406) are of colours that an infrared image does not have.

    Raises:
        ConfigError: mean and std have neither one value nor one per channel.
    """
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if channels == 1 and len(mean) == len(std) == 3:
        mean, std = (fmean(mean),), (fmean(std),)
    if len(mean) != len(std) or len(mean) not in (1, channels) or min(std) <= 0:
        raise ConfigError(f"dataset.mean, dataset.std: {mean} and {std} need 1 or {channels} values, std above 0")
    return Normalise(mean, std, channels)


def _synthetic(config: Any, seed: int) -> DataSet:
    arguments = {str(key): value for key, value in config.synthetic.items()}
    counts = {role: int(arguments.pop(role, 0)) for role in ("train", "val", "test")}
    for key in ("areas", "scr"):
        if key in arguments:
            arguments[key] = tuple(arguments[key])
    try:
        # The test images do not follow the run's seed, so that runs of different seeds compare.
        sources = {
            role: SyntheticSource(count, config.image_size, seed=10 * base + offset, **arguments)
            for (role, count), base, offset in zip(counts.items(), (seed, seed, 0), (1, 2, 3), strict=True)
        }
    except TypeError as error:
        raise ConfigError(f"dataset.synthetic: {error}") from error
    parts = {role: Part(role, len(source), None, lambda source=source: source) for role, source in sources.items()}
    return DataSet(config.title, "generated", f"generated at {config.image_size} pixels", parts)
