"""From the folder of a data set, in any known layout, to its images with their masks by role."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sam_spl.data.lists import VAL_NAMES, choose_lists, find_lists, read_list, split_by_hash
from sam_spl.data.pairing import Files, has_images
from sam_spl.errors import InputError, plain


@dataclass(frozen=True)
class Item:
    """One image, its mask, and their name.

    ``resize_mask`` is set where the mask is known to have another size than the image.
    """

    name: str
    image: Path
    mask: Path
    resize_mask: bool = False


@dataclass(frozen=True)
class Split:
    """The images of a data set by role.

    Attributes:
        root: folder of the data set.
        lists: name of the split, for logs and result files.
        train: training images; the validation images of a ``trainval`` list are not among them.
        val: validation images, empty where the set has none.
        test: test images.
        skipped: names left out because the image or the mask is missing.
        listed: False for a folder without lists; its test images are one in five, by the hash of the name.
    """

    root: Path
    lists: str
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    skipped: tuple[str, ...] = ()
    listed: bool = True

    def images(self, role: str) -> tuple[Item, ...]:
        """The images of ``train``, ``val`` or ``test``; or of ``all``, each once.

        In ``all``, different images with the same name get their role in front.
        """
        if role != "all":
            return getattr(self, role)
        roles = {item: role for role in ("train", "val", "test") for item in getattr(self, role)}
        names = Counter(item.name for item in roles)
        return tuple(
            item if names[item.name] == 1 else replace(item, name=f"{role}/{item.name}")
            for item, role in roles.items()
        )


def find_root(data_path: str | Path, names: Iterable[str]) -> Path:
    """The folder of a data set: ``data_path`` itself, or the folder in it with one of ``names``.

    Raises:
        InputError: neither exists.
    """
    path = Path(data_path).expanduser()
    names = list(dict.fromkeys(names))
    if not path.is_dir():
        raise InputError(
            f"dataset: no folder {path} (from {Path.cwd()}). Give the folder of {names[0]} as --data_path "
            "(docs/data.md says where the sets come from)."
        )
    if has_images(path):
        return path
    wanted = {plain(name) for name in names}
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and plain(folder.name) in wanted:
            inner = [child for child in sorted(folder.iterdir()) if child.is_dir() and has_images(child)]
            if has_images(folder) or not inner:
                return folder
            return inner[0]  # archives often hold one more folder of the set's name
    found = sorted(child.name for child in path.iterdir() if child.is_dir())
    raise InputError(
        f"dataset: {path} holds no images/ and masks/ and no folder named {' or '.join(names)} "
        f"(found: {', '.join(found[:8]) or 'nothing'}). Put the set there or give --data_path."
    )


def find_split(
    root: Path,
    lists: str | None = None,
    *,
    default_lists: str | None = None,
    skip_missing: bool = False,
    odd_masks: Iterable[str] = (),
) -> Split:
    """Find images, masks and lists below ``root``.

    Args:
        root: folder with images and masks, or with ``{train,trainval,test}/`` that hold both.
        lists: folder of the split lists, where there are several (``50_50``, ``idx_427``); ``.`` for the
            root.
        default_lists: which of several to use where ``lists`` is None.
        skip_missing: leave out names without image or mask, listed in ``skipped``, instead of stopping.
        odd_masks: names whose masks may have another size than their images.

    Returns:
        The split. Without lists, one image in five is for testing, by the hash of its name.

    Raises:
        InputError: there are no images, a listed image or mask is missing, a list is empty, or there are
            several different splits and none is chosen.
    """
    parts = {child.name.lower(): child for child in root.iterdir() if child.is_dir() and has_images(child)}
    train_part = parts.get("trainval") or parts.get("train")
    if train_part and "test" in parts:
        folders = {"train": train_part, "test": parts["test"]}
        val_part = next((parts[name] for name in VAL_NAMES if name in parts), None)
        if val_part and train_part.name.lower() == "train":
            folders["val"] = val_part
        inside = {role: Files.below(folder) for role, folder in folders.items()}
        found_parts = {
            role: _Part(files, list(files.images), folders[role]) for role, files in inside.items()
        }
        return _split(root, "folders", found_parts, skip_missing, odd_masks)

    files = Files.below(root)
    found = find_lists(root)
    name = choose_lists(root, lists, default_lists, found, files)
    if name is None:
        by_hash = {role: _Part(files, names, root) for role, names in split_by_hash(files.images).items()}
        return replace(_split(root, "none", by_hash, skip_missing, odd_masks), listed=False)
    paths = dict(found[name])
    whole = paths.pop("trainval", None)
    if "train" not in paths and whole is not None:
        paths.pop("val", None)  # part of trainval
        paths["train"] = whole
    roles = [role for role in ("train", "val", "test") if role in paths]
    listed: dict[str, _Part] = {role: _Part(files, read_list(paths[role]), paths[role]) for role in roles}
    for part in listed.values():
        if not part.names:
            raise InputError(
                f"dataset: the list {part.origin} is empty. Restore it, or choose other lists: "
                "dataset.lists=NAME"
            )
    return _split(root, name, listed, skip_missing, odd_masks)


def fingerprint(items: Iterable[Item]) -> str:
    """SHA-256 of the sorted names joined by newlines: equal for equal lists, in any order."""
    return hashlib.sha256("\n".join(sorted(item.name for item in items)).encode()).hexdigest()


@dataclass(frozen=True)
class _Part:
    """The images of one role: the names in a list (or a folder), and the files."""

    files: Files
    names: list[str]
    origin: Path


def _split(
    root: Path, lists: str, parts: Mapping[str, _Part], skip_missing: bool, odd_masks: Iterable[str]
) -> Split:
    """Pair the named images of every role with their masks."""
    odd = set(odd_masks)
    items: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    faults, skipped = [], []
    for role, part in parts.items():
        no_image, no_mask = [], []
        for listed in part.names:
            name = part.files.image_name(listed)
            mask = part.files.mask(name) if name is not None else None
            if name is None:
                no_image.append(listed)
            elif mask is None:
                no_mask.append(name)
            else:
                items[role].append(Item(name, part.files.images[name], mask, resize_mask=name in odd))
        of = f"of {len(part.names)} images"
        if no_image:
            faults.append(
                f"the list {part.origin} names {len(no_image)} {of} that are not there, first "
                f"{', '.join(no_image[:3])}"
            )
        if no_mask:
            faults.append(
                f"{len(no_mask)} {of} in {part.origin} have no mask, first {', '.join(no_mask[:3])} (a mask "
                "is named like its image, also with _pixels0, _mask or _label added)"
            )
        skipped += no_image + no_mask
    if faults and not skip_missing:
        raise InputError(
            f"dataset: {'; '.join(faults)}. Add the files, fix the list, or go on without them: "
            "dataset.missing=skip"
        )
    train, val, test = (tuple(dict.fromkeys(items[role])) for role in ("train", "val", "test"))
    return Split(root, lists, train, val, test, tuple(dict.fromkeys(skipped)))
