"""Which images of a data set are new to a network, by what its weights say of their training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_spl.data.catalog import DataSet, Part, open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.data.layout import Split, find_split, fingerprint
from sam_spl.data.lists import find_lists
from sam_spl.errors import InputError


@dataclass(frozen=True)
class HeldOut:
    """The images of a part that did not train a network.

    Attributes:
        data: the set.
        part: of it, without the training images.
        trained: how many images of the part were left out, because they are training images.
        chose: how many of those that are left have chosen the weights among those of several epochs.
        stated: whether the weights state what they were trained on. If not, nothing is left out.
    """

    data: DataSet
    part: Part
    trained: int = 0
    chose: int = 0
    stated: bool = True


def held_out(config: DatasetConfig, role: str, description: Mapping[str, Any], *, seed: int) -> HeldOut:
    """The images of a data set that are new to weights.

    Training images are those of the list that the weights record, whichever lists the set is opened with; of
    a folder without lists, those that are not in its test share. Images that training held out for validation
    (``trainer.val_share``) are the set's validation images, where they can be drawn again.

    Args:
        config: of the data set.
        role: train, val, test or all.
        description: of the weights.
        seed: of generated images.

    Raises:
        InputError: there are none, or it cannot be known which of the images are training images.
    """
    trained_on: Mapping[str, Any] = description.get("trained_on") or {}
    data, drawn = _open(config, trained_on, seed)
    part = data.part(role) if role == "all" or data.parts[role].count else None
    if part is None:
        raise InputError(
            f"split: {data.title} (lists {data.lists}) has no {role} images. Choose another split (train, "
            "val, test, all) or another set, with images that are new to the weights."
        )
    if not trained_on:
        return HeldOut(data, part, stated=False)
    chosen_by = _chosen_by(description)
    if not data.splits:
        return _generated(data, part, trained_on, chosen_by)

    trained: set[Path] = set()
    chose: set[Path] = set()
    if drawn:
        trained, chose = data.parts["train"].files, data.parts["val"].files if chosen_by == "val" else set()
    else:
        known = data.known_to(trained_on)
        for title, split in data.splits.items():
            for of in _splits_of_training(title, split, trained_on, known=title in known):
                trained |= {item.image for item in of.train}
                chose |= {item.image for item in of.images(chosen_by)} if chosen_by else set()
    left = part.without(trained)
    if not left.count:
        raise InputError(
            f"split: these weights were trained on all of the {part.count} {role} images of {data.title} "
            f"(lists {data.lists}). Choose images that are new to them."
        )
    return HeldOut(data, left, part.count - left.count, len(left.files & chose))


def _open(config: DatasetConfig, trained_on: Mapping[str, Any], seed: int) -> tuple[DataSet, bool]:
    """The set, and whether its validation images are those that training drew from its list."""
    drawn = trained_on.get("held_out")
    if drawn and config.source == "folder":
        data = open_dataset(config, val_share=drawn["share"], seed=drawn["seed"])
        if data.parts["train"].fingerprint == trained_on.get("fingerprint"):
            return data, True
    return open_dataset(config, seed=seed), False


def _chosen_by(description: Mapping[str, Any]) -> str | None:
    """The role of the images that chose the epoch of the weights; None for the last epoch."""
    match = re.search(r"on the (train|val|test) images", str(description.get("selected_by")))
    return match[1] if match else None


def _splits_of_training(
    title: str, split: Split, trained_on: Mapping[str, Any], *, known: bool
) -> list[Split]:
    """The lists of a folder that weights, or those before them, were trained with; of other folders none."""
    recorded = set((trained_on.get("sets") or {title: trained_on.get("fingerprint")}).values())
    found = [candidate for candidate in _lists_of(split) if fingerprint(candidate.train) in recorded]
    if found or not known:
        return found
    if split.listed:
        raise InputError(
            f"split: these weights were trained on {title} with lists {trained_on.get('lists')}, and no "
            f"lists in {split.root} name those images. Which of its images are new to them cannot be known: "
            "restore the lists, or give images of another set."
        )
    return [split]  # images were added or removed since; those of its test share stay there


def _lists_of(split: Split) -> Iterator[Split]:
    """The split, and those by other lists of its folder."""
    yield split
    for name in find_lists(split.root) if split.listed and split.lists != "folders" else ():
        if name != split.lists:
            yield find_split(split.root, name, skip_missing=True)


def _generated(data: DataSet, part: Part, trained_on: Mapping[str, Any], chosen_by: str | None) -> HeldOut:
    if trained_on.get("dataset") != data.title:
        return HeldOut(data, part)
    if part.role in ("train", "all"):
        raise InputError(
            f"split: these weights were trained on generated images, and which of the {part.role} images "
            "were among them cannot be known. Choose split=val or split=test."
        )
    return HeldOut(data, part, chose=part.count if part.role == chosen_by else 0)
