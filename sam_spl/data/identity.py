"""Whether the set that was found is the one that was named, by its lists, counts and image sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sam_spl.data.config import DatasetConfig
from sam_spl.data.known import dataset_contents
from sam_spl.data.layout import Item, Split, fingerprint
from sam_spl.data.reading import decode
from sam_spl.errors import InputError

_LOOKED_AT = 5  # images, for their sizes


@dataclass(frozen=True)
class Identity:
    """Signs that a set is not the one that was named, a sentence each; None where there are none.

    Attributes:
        mismatch: it is another set: the lists or counts are another set's, or the images cannot be this
            set's.
        remark: it may be a part of the set, or have other lists, so its results do not compare with
            published ones.
    """

    mismatch: str | None = None
    remark: str | None = None


def identify(config: DatasetConfig, split: Split, sizes: Iterable[tuple[int, int]] | None = None) -> Identity:
    """Compare a set with what is known of the one that was named.

    Args:
        config: of the named set; ``published_splits``, ``official_lists`` and ``published_size`` are what is
            known.
        split: the set as it was found, nothing held out yet.
        sizes: (H, W) of its images as stored; None reads a few of them.
    """
    if not config.published_splits:
        return Identity()
    parts = [items for items in (split.train, split.val, split.test) if items]
    counts = "/".join(str(len(items)) for items in parts)
    published = " or ".join(config.published_splits)
    lists = {fingerprint(items) for items in parts}
    as_published = counts in config.published_splits
    known_lists = lists <= set(config.official_lists) or not config.official_lists

    against = _signs_of_another(config, counts, lists) if not (as_published and known_lists) else []
    if config.published_size is not None:
        seen = list(sizes if sizes is not None else _sizes([item for items in parts for item in items]))
        other = [size for size in seen if size != tuple(config.published_size)]
        if 2 * len(other) > len(seen):
            against.append(f"its images are {_wide(other[0])} and not {_wide(config.published_size)}")
    if against:
        return Identity(
            mismatch=f"{split.root} does not look like {config.title}: {', '.join(against)}. Its results "
            "would be listed under a wrong name. Give the folder of the named set as --data_path, or the "
            "name of this set as --dataset"
        )
    if not as_published:
        return Identity(
            remark=f"{config.title} with {counts} images, published results use {published}: a part of it, "
            "or other lists? Scores do not compare with published ones"
        )
    if not known_lists:
        return Identity(
            remark=f"the lists of {config.title} have the published lengths but other names than the "
            "official ones. Scores do not compare with published ones"
        )
    return Identity()


def _signs_of_another(config: DatasetConfig, counts: str, lists: set[str]) -> list[str]:
    """Lists of another known set, or its counts of images, or more images than the named set has."""
    for name, other in dataset_contents().items():
        title = other.get("title", name)
        if other.get("name", name) == config.name:
            continue
        if lists & set(other.get("official_lists", [])):
            return [f"its lists are those of {title}"]
        if counts in other.get("published_splits", []) and counts not in config.published_splits:
            return [f"its {counts} images are those of {title}"]
    most = max(_total(one) for one in config.published_splits)
    return [f"it has {_total(counts)} images and not {most}"] if _total(counts) > most else []


def _total(counts: str) -> int:
    return sum(int(count) for count in counts.split("/"))


def _sizes(items: Sequence[Item]) -> list[tuple[int, int]]:
    """(H, W) of a few images from all over the set; a broken one is reported when it is used."""
    sizes = []
    for item in items[:: max(1, len(items) // _LOOKED_AT)][:_LOOKED_AT]:
        try:
            sizes.append(decode(item.image).shape[:2])
        except InputError:
            continue
    return sizes


def _wide(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"
