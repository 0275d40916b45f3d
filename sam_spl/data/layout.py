"""Where a data set's images, masks and split lists lie on disk, in whatever spelling it was downloaded."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sam_spl.errors import InputError, nearest, plain

IMAGE_SUFFIXES = {".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff"}
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "mixed", "irstd1k_img")
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations/masks", "irstd1k_label")
_MASK_ENDINGS = ("", "_pixels0", "_mask", "_label")
_LIST = re.compile(r"(trainval|train|val|test)(?:[_\- ](.*))?", re.IGNORECASE)
_HELD_OUT = 0.2  # of a folder without lists, for testing

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One image, its mask, and the name that both go by.

    ``resize_mask`` is set where the set is known to come with a mask of another size than its image.
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
        lists: which split this is, for logs and result files.
        train: training images; the validation images of a ``trainval`` list are not among them.
        val: validation images, empty where the set has none.
        test: test images.
        skipped: names left out because image or mask is missing.
    """

    root: Path
    lists: str
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    skipped: tuple[str, ...] = ()


def find_root(data_path: str | Path, names: Iterable[str]) -> Path:
    """The data set's folder: ``data_path`` itself, or the one in it that is called by one of ``names``.

    Raises:
        InputError: neither exists.
    """
    path = Path(data_path).expanduser()
    names = list(dict.fromkeys(names))
    if not path.is_dir():
        raise InputError(
            f"dataset: no folder {path} (from {Path.cwd()}). Put {names[0]} there or give --data_path "
            "(datasets/README.md says where the sets come from)."
        )
    if _has_images(path):
        return path
    wanted = {plain(name) for name in names}
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and plain(folder.name) in wanted:
            inner = [child for child in sorted(folder.iterdir()) if child.is_dir() and _has_images(child)]
            if _has_images(folder) or not inner:
                return folder
            return inner[0]  # archives often hold one more folder of the set's name
    found = sorted(child.name for child in path.iterdir() if child.is_dir())
    raise InputError(
        f"dataset: {path} holds no images/ and masks/ and no folder called {' or '.join(names)} "
        f"(found: {', '.join(found[:8]) or 'nothing'}). Put the set there or give --data_path."
    )


def is_dataset(path: str | Path) -> bool:
    """Whether a folder is a data set itself: it holds images in one of the known layouts."""
    path = Path(path).expanduser()
    return path.is_dir() and _has_images(path)


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
        lists: folder of the split lists, where there is more than one (``50_50``, ``idx_427``); ``.`` for the root.
        default_lists: which to take of several different ones where ``lists`` is None.
        skip_missing: leave out what lacks its image or its mask, and say so in ``skipped``, instead of stopping.
        odd_masks: names whose masks may be of another size than their images.

    Returns:
        The split. Without any list, every fifth image by the hash of its name is for testing.

    Raises:
        InputError: no images, a wanted image or mask that is not there, an empty list, or several different splits
            and none chosen.
    """
    parts = {child.name.lower(): child for child in root.iterdir() if child.is_dir() and _has_images(child)}
    train_part = parts.get("trainval") or parts.get("train")
    if train_part and "test" in parts:
        folders = {"train": train_part, "test": parts["test"]}
        if "val" in parts and train_part.name.lower() == "train":
            folders["val"] = parts["val"]
        inside = {role: Files.below(folder) for role, folder in folders.items()}
        found_parts = {role: _Part(files, list(files.images), folders[role]) for role, files in inside.items()}
        return _split(root, "folders", found_parts, skip_missing, odd_masks)

    files = Files.below(root)
    found = find_lists(root)
    name = _choose(root, lists, default_lists, found, files)
    if name is None:
        by_hash = {role: _Part(files, names, root) for role, names in _by_hash(files.images).items()}
        lists = "none found: one in five held out by the hash of its name"
        return _split(root, lists, by_hash, skip_missing, odd_masks)
    paths = dict(found[name])
    whole = paths.pop("trainval", None)
    if "train" not in paths and whole is not None:
        paths.pop("val", None)  # part of trainval
        paths["train"] = whole
    roles = [role for role in ("train", "val", "test") if role in paths]
    listed = {role: _Part(files, read_list(paths[role]), paths[role]) for role in roles}
    for part in listed.values():
        if not part.names:
            raise InputError(
                f"dataset: the list {part.origin} is empty. Restore it, or choose other lists with dataset.lists=."
            )
    return _split(root, name, listed, skip_missing, odd_masks)


def find_lists(root: Path) -> dict[str, dict[str, Path]]:
    """Name -> role -> file, for every training list that has its test list beside it.

    A split is called by its folder, or by folder and what follows the role (``splits/full`` for
    ``splits/train_full.txt``) where one folder holds several.
    """
    by_ending: dict[Path, dict[str, dict[str, Path]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted([*root.glob("*.txt"), *root.glob("*/*.txt")]):
        if match := _LIST.fullmatch(path.stem):
            by_ending[path.parent][match[2] or ""][match[1].lower()] = path
    found = {}
    for folder, endings in by_ending.items():
        whole = {ending: roles for ending, roles in endings.items() if "test" in roles and len(roles) > 1}
        if not whole:  # trainval.txt beside test_NAME.txt
            together = {role: path for roles in endings.values() for role, path in roles.items()}
            whole = {"": together} if "test" in together and len(together) > 1 else {}
        for ending, roles in whole.items():
            name = folder.relative_to(root).as_posix()
            found[name if len(whole) == 1 else f"{name}/{ending}".rstrip("/")] = roles
    return found


def read_list(path: Path) -> list[str]:
    """The names of a split list, each once: stems or file names, with or without folders, BOM, CRLF or blank lines."""
    lines = (line.strip().replace("\\", "/") for line in path.read_text(encoding="utf-8-sig").splitlines())
    return list(dict.fromkeys(_stem(line) for line in lines if line))


def fingerprint(items: Iterable[Item]) -> str:
    """SHA-256 of the sorted names joined by newlines: equal for equal lists, in whatever order or line ending."""
    return hashlib.sha256("\n".join(sorted(item.name for item in items)).encode()).hexdigest()


@dataclass(frozen=True)
class Files:
    """The image and mask files of a folder.

    Attributes:
        images: name -> file; in nested folders the name is the path below the image folder, ``44/1(814)``.
        masks: stem -> file, likewise.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    _image_of: Mapping[str, str]
    _mask_of: Mapping[str, Path]

    @classmethod
    def below(cls, root: Path) -> Files:
        """Find them: ``images/`` and ``masks/`` in any spelling, or images with ``*_mask`` files among them.

        Raises:
            InputError: no image, or no mask at all.
        """
        image_folder, mask_folder = _folder(root, _IMAGE_FOLDERS), _folder(root, _MASK_FOLDERS)
        images = files_below(image_folder) if image_folder else files_below(root, nested=False)
        if not images:
            raise InputError(f"dataset: {root} has no images/ folder (or images/ is empty).")
        if mask_folder:
            masks = files_below(mask_folder)
        else:  # both in one folder
            masks = {name: path for name, path in images.items() if _image_name(name) in images}
            images = {name: path for name, path in images.items() if name not in masks}
        if not masks:
            raise InputError(f"dataset: {root} has no masks/ folder beside its images (or it is empty).")
        return cls.of(images, masks)

    @classmethod
    def of(cls, images: Mapping[str, Path], masks: Mapping[str, Path]) -> Files:
        """Image files by name and mask files by stem."""
        return cls(images, masks, _by_last_part({name: name for name in images}), _by_last_part(masks))

    def image_name(self, listed: str) -> str | None:
        """The image that a line of a list means; None if there is none."""
        if listed in self.images:
            return listed
        below = listed.partition("/")[2]  # lists may name images/1.png
        return below if below in self.images else self._image_of.get(listed.rpartition("/")[2])

    def mask(self, name: str) -> Path | None:
        """The mask of an image; None if there is none."""
        names = (name + ending for ending in _MASK_ENDINGS)
        last = name.rpartition("/")[2]
        return next((self.masks[mask] for mask in names if mask in self.masks), None) or next(
            (self._mask_of[last + ending] for ending in _MASK_ENDINGS if last + ending in self._mask_of), None
        )


@dataclass(frozen=True)
class _Part:
    """The images of one role: what a list (or a folder) names, and the files it means."""

    files: Files
    names: list[str]
    origin: Path


def _split(root: Path, lists: str, parts: Mapping[str, _Part], skip_missing: bool, odd_masks: Iterable[str]) -> Split:
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
                f"the list {part.origin} names {len(no_image)} {of} that are not there, first {', '.join(no_image[:3])}"
            )
        if no_mask:
            faults.append(
                f"{len(no_mask)} {of} in {part.origin} have no mask, first {', '.join(no_mask[:3])} (a mask is called "
                "as its image, or that with _pixels0, _mask or _label)"
            )
        skipped += no_image + no_mask
    if faults and not skip_missing:
        raise InputError(
            f"dataset: {'; '.join(faults)}. Complete the set or mend the list, or go on without them: "
            "dataset.missing=skip"
        )
    train, val, test = (tuple(dict.fromkeys(items[role])) for role in ("train", "val", "test"))
    return Split(root, lists, train, val, test, tuple(dict.fromkeys(skipped)))


def _choose(
    root: Path,
    lists: str | None,
    default_lists: str | None,
    found: Mapping[str, Mapping[str, Path]],
    files: Files,
) -> str | None:
    """The split of ``found`` to take; None where there is none."""

    def called(wanted: str, names: Iterable[str]) -> str | None:
        # YAML and Hydra read 50_50 as the number 5050.
        return next((name for name in names if name == wanted or plain(name) == plain(wanted) != ""), None)

    if lists is not None:
        name = called(lists, found)
        if name is None:
            remedy = f"Nearest: {nearest(lists, found)}" if found else "It has none: set dataset.lists=null."
            raise InputError(f"dataset.lists: {root} has no split lists {lists!r}. {remedy}")
        return name
    contents = {
        name: {role: {files.image_name(listed) for listed in read_list(path)} for role, path in roles.items()}
        for name, roles in found.items()
    }
    different = [name for k, name in enumerate(found) if contents[name] not in list(contents.values())[:k]]
    if len(different) < 2:
        return different[0] if different else None
    name = called(default_lists, different) if default_lists else None
    if name is None:
        raise InputError(
            f"dataset: {root} holds {len(different)} splits ({', '.join(sorted(different))}), whose numbers are not "
            f"comparable. Choose one, as dataset.lists={sorted(different)[0]}"
        )
    return name


def _by_hash(images: Iterable[str]) -> dict[str, list[str]]:
    """One image in five for testing, by its name alone, so that a further image moves none of the others."""
    names = list(images)
    test = {name for name in names if _fraction(name) < _HELD_OUT}
    if len(names) > 1 and len(test) in (0, len(names)):
        test = {min(names, key=_fraction)}
    return {"train": [name for name in names if name not in test], "test": sorted(test)}


def _stem(name: str) -> str:
    head, dot, suffix = name.rpartition(".")
    return head if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _image_name(mask: str) -> str:
    """The image that a mask among the images belongs to; empty for what is called as no mask."""
    return next((mask.removesuffix(ending) for ending in _MASK_ENDINGS if ending and mask.endswith(ending)), "")


def _by_last_part(paths: Mapping[str, T]) -> dict[str, T]:
    """Last part of a nested name -> value, where it is unique."""
    last: dict[str, list[T]] = defaultdict(list)
    for name, value in paths.items():
        last[name.rpartition("/")[2]].append(value)
    return {name: values[0] for name, values in last.items() if len(values) == 1}


def _has_images(root: Path) -> bool:
    if _folder(root, _IMAGE_FOLDERS) is not None or any(_image_name(name) for name in files_below(root, nested=False)):
        return True
    return any(
        child.is_dir() and child.name.lower() in ("train", "trainval", "test") and _has_images(child)
        for child in root.iterdir()
    )


def _folder(root: Path, names: tuple[str, ...]) -> Path | None:
    """The first folder of ``names`` (in any case, ``a/b`` for one inside another) that holds an image."""
    candidates = {child.name.lower(): child for child in sorted(root.iterdir()) if child.is_dir()}
    for name in names:
        outer, _, inner = name.partition("/")
        folder = candidates.get(outer)
        if folder and inner:
            folder = next((child for child in folder.iterdir() if child.name.lower() == inner), None)
        if folder and folder.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*.*")):
            return folder
    return None


def files_below(folder: Path, *, nested: bool = True) -> dict[str, Path]:
    """Image files by their path below ``folder`` without suffix.

    Raises:
        InputError: two files differ in their suffix only.
    """
    paths = folder.rglob("*") if nested else folder.iterdir()
    files: dict[str, Path] = {}
    for path in sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise InputError(
                f"dataset: {files[name]} and {path.name} differ in their suffix only. Keep one of the two."
            )
        files[name] = path
    return files


def _fraction(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
