"""Which files of a folder are images, and which of them are masks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sam_spl.errors import InputError

IMAGE_SUFFIXES = {".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff"}
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "mixed", "irstd1k_img")
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations/masks", "irstd1k_label")
_MASK_ENDINGS = ("", "_pixels0", "_mask", "_label")

T = TypeVar("T")


@dataclass(frozen=True)
class Files:
    """The image and mask files of a folder.

    Attributes:
        images: name -> file. In nested folders the name is the path below the image folder: ``44/1(814)``.
        masks: stem -> file, likewise.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    _image_of: Mapping[str, str]
    _mask_of: Mapping[str, Path]

    @classmethod
    def below(cls, root: Path, *, masks_needed: bool = True) -> Files:
        """Find them: ``images/`` and ``masks/`` in any spelling, or images with ``*_mask`` files among them.

        Without need of masks, images without a folder of their own may also be nested, and each of them is an
        image whatever its name ends with.

        Raises:
            InputError: no image, or no mask at all where they are needed.
        """
        image_folder, mask_folder = _folder(root, _IMAGE_FOLDERS), _folder(root, _MASK_FOLDERS)
        images = files_below(image_folder) if image_folder else files_below(root, nested=not masks_needed)
        if not images:
            raise InputError(f"dataset: {root} has no images/ folder (or images/ is empty).")
        masks: Mapping[str, Path] = {}
        if mask_folder:
            masks = files_below(mask_folder)
        elif masks_needed:  # both in one folder
            masks = {name: path for name, path in images.items() if _image_name(name) in images}
            images = {name: path for name, path in images.items() if name not in masks}
        if masks_needed and not masks:
            raise InputError(f"dataset: {root} has no masks/ folder beside its images (or it is empty).")
        return cls.of(images, masks)

    @classmethod
    def of(cls, images: Mapping[str, Path], masks: Mapping[str, Path]) -> Files:
        """Image files by name and mask files by stem."""
        return cls(images, masks, _by_last_part({name: name for name in images}), _by_last_part(masks))

    def image_name(self, listed: str) -> str | None:
        """The image that a line of a list means; None if there is none.

        A line may leave out the folders of an image, or have more of them (``images/1``). A line with another
        folder means another image, since frames of different sequences have the same numbers.
        """
        last = listed.rpartition("/")[2]
        names = (listed, listed.partition("/")[2], last if "/" in listed else self._image_of.get(last, ""))
        return next((name for name in names if name in self.images), None)

    def mask(self, name: str) -> Path | None:
        """The mask of an image; None if there is none. Only the images, or only the masks, may be nested."""
        last = name.rpartition("/")[2]
        flat = self.masks if self._image_of.get(last) == name else {}
        others = flat if "/" in name else self._mask_of
        for stem, masks in ((name, self.masks), (last, others)):
            for ending in _MASK_ENDINGS:
                if stem + ending in masks:
                    return masks[stem + ending]
        return None


def has_images(root: str | Path) -> bool:
    """Whether a folder is a data set: it holds images in one of the known layouts."""
    root = Path(root).expanduser()
    if not root.is_dir():
        return False
    if _folder(root, _IMAGE_FOLDERS) is not None:
        return True
    if any(_image_name(path.stem) and path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir()):
        return True
    return any(
        child.name.lower() in ("train", "trainval", "test") and has_images(child)
        for child in _folders_in(root)
    )


def _folders_in(root: Path) -> list[Path]:
    """The folders in a folder, links to folders too, in order. An image folder's files cost no call each."""
    with os.scandir(root) as entries:
        return sorted(root / entry.name for entry in entries if _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def files_below(folder: Path, *, nested: bool = True) -> dict[str, Path]:
    """Image files by their path below ``folder`` without suffix.

    Raises:
        InputError: two files differ in their suffix only.
    """
    files: dict[str, Path] = {}
    for name, suffix in sorted(
        _names_below(folder, nested=nested), key=lambda file: (file[0] + file[1]).split("/")
    ):
        if name in files:
            last = name.rpartition("/")[2]
            raise InputError(
                f"dataset: {files[name]} and {last}{suffix} differ in their suffix only. Keep one of them."
            )
        files[name] = folder / (name + suffix)
    return files


def _names_below(folder: Path, *, nested: bool) -> Iterator[tuple[str, str]]:
    """(path below ``folder`` without suffix, suffix) of each image file; a `Path` for each costs far more."""
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            entries = os.scandir(folder / below)
        except PermissionError:
            continue
        with entries:
            for entry in entries:
                stem, _, ending = entry.name.rpartition(".")
                if stem and f".{ending.lower()}" in IMAGE_SUFFIXES:
                    yield below + stem, f".{ending}"
                if nested and entry.is_dir(follow_symlinks=False):
                    folders.append(f"{below}{entry.name}/")


def _folder(root: Path, names: tuple[str, ...]) -> Path | None:
    """The first folder of ``names`` (in any case, ``a/b`` for one inside another) that holds an image."""
    candidates = {child.name.lower(): child for child in _folders_in(root)}
    for name in names:
        outer, _, inner = name.partition("/")
        folder = candidates.get(outer)
        if folder and inner:
            folder = next((child for child in folder.iterdir() if child.name.lower() == inner), None)
        if folder and folder.is_dir() and next(_names_below(folder, nested=True), None):
            return folder
    return None


def _image_name(mask: str) -> str:
    """The image that a mask among the images belongs to; empty if the name is not a mask's."""
    return next(
        (mask.removesuffix(ending) for ending in _MASK_ENDINGS if ending and mask.endswith(ending)), ""
    )


def _by_last_part(paths: Mapping[str, T]) -> dict[str, T]:
    """Last part of a nested name -> value, where it is unique."""
    last: dict[str, list[T]] = defaultdict(list)
    for name, value in paths.items():
        last[name.rpartition("/")[2]].append(value)
    return {name: values[0] for name, values in last.items() if len(values) == 1}
