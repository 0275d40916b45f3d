"""Where a data set's images, masks and split lists lie on disk, in whatever spelling it was downloaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sam_spl.errors import InputError, nearest

IMAGE_SUFFIXES = {".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff"}
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "irstd1k_img")
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "irstd1k_label")
_MASK_ENDINGS = ("", "_pixels0", "_mask", "_label")
_LIST = re.compile(r"(trainval|train|val|test)([_\- ].*)?", re.IGNORECASE)
_HELD_OUT = 0.2  # of a folder without lists, for testing


@dataclass(frozen=True)
class Item:
    """One image, its mask, and the name that both go by."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Split:
    """The images of a data set by role.

    Attributes:
        root: folder of the data set.
        lists: which split this is, for logs and result files.
        train: training images; the validation images of a ``trainval`` list are not among them.
        val: validation images, empty where the set has none.
        test: test images.
    """

    root: Path
    lists: str
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]


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
    wanted = {_plain(name) for name in names}
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and _plain(folder.name) in wanted:
            inner = [child for child in sorted(folder.iterdir()) if child.is_dir() and _has_images(child)]
            if _has_images(folder) or not inner:
                return folder
            return inner[0]  # archives often hold one more folder of the set's name
    found = sorted(child.name for child in path.iterdir() if child.is_dir())
    raise InputError(
        f"dataset: {path} holds no images/ and masks/ and no folder called {' or '.join(names)} "
        f"(found: {', '.join(found[:8]) or 'nothing'}). Put the set there or give --data_path."
    )


def find_split(root: Path, lists: str | None = None) -> Split:
    """Find images, masks and lists below ``root``.

    Args:
        root: folder with ``images/`` and ``masks/``, or with ``{train,trainval,test}/{images,masks}/``.
        lists: folder of the split lists, where there is more than one (``50_50``, ``idx_427``); ``.`` for the root.

    Returns:
        The split. Without any list, every fifth image by the hash of its name is for testing.

    Raises:
        InputError: no images, an image without mask, an empty list, a list that names an absent image, or several
            splits and none chosen.
    """
    parts = {child.name.lower(): child for child in root.iterdir() if child.is_dir() and _has_images(child)}
    train_part = parts.get("trainval") or parts.get("train")
    if train_part and "test" in parts:
        val = _pair(parts["val"]) if "val" in parts and train_part.name.lower() == "train" else {}
        return Split(
            root,
            "folders",
            tuple(_pair(train_part).values()),
            tuple(val.values()),
            tuple(_pair(parts["test"]).values()),
        )

    items = _pair(root)
    found = _find_lists(root)
    # YAML and Hydra read 50_50 as the number 5050.
    lists = next((name for name in found if lists is not None and _plain(name) == _plain(lists)), lists)
    if lists is not None and lists not in found:
        raise InputError(
            f"dataset.lists: {root} has no split lists {lists!r}. "
            + (f"Nearest: {nearest(lists, found)}" if found else "It has none: set dataset.lists=null.")
        )
    if lists is None and len(found) > 1:
        raise InputError(
            f"dataset.lists: {root} holds {len(found)} splits ({', '.join(sorted(found))}), whose numbers are not "
            f"comparable. Choose one, as dataset.lists={sorted(found)[0]}"
        )
    if not found:
        test = {name for name in items if _fraction(name) < _HELD_OUT}
        if len(items) > 1 and len(test) in (0, len(items)):
            test = {min(items, key=_fraction)}
        return Split(
            root,
            "none found: one in five held out by the hash of its name",
            tuple(item for name, item in items.items() if name not in test),
            (),
            tuple(items[name] for name in sorted(test)),
        )

    lists = lists or next(iter(found))
    roles = {role: _read_list(path, items) for role, path in found[lists].items()}
    train = roles.get("train") or roles.get("trainval", ())
    return Split(root, lists, train, roles.get("val", ()) if "train" in roles else (), roles.get("test", ()))


def fingerprint(items: Iterable[Item]) -> str:
    """SHA-256 of the sorted names joined by newlines: equal for equal lists, in whatever order or line ending."""
    return hashlib.sha256("\n".join(sorted(item.name for item in items)).encode()).hexdigest()


def _pair(root: Path) -> dict[str, Item]:
    """Every image below ``root`` with its mask, by name."""
    images, masks = _folder(root, _IMAGE_FOLDERS), _folder(root, _MASK_FOLDERS)
    if images is None:
        raise InputError(f"dataset: {root} has no images/ folder (or images/ is empty).")
    if masks is None:
        raise InputError(f"dataset: {root} has no masks/ folder beside {images.name}/ (or it is empty).")
    by_stem = {path.stem: path for path in _files(masks)}
    items, without = {}, []
    for image in _files(images):
        mask = next((by_stem[image.stem + end] for end in _MASK_ENDINGS if image.stem + end in by_stem), None)
        if mask is None:
            without.append(image.name)
        else:
            items[image.stem] = Item(image.stem, image, mask)
    if without:
        raise InputError(
            f"dataset: {len(without)} of {len(without) + len(items)} images in {images} have no mask in {masks}, "
            f"first {', '.join(without[:3])}. A mask is called as its image, or that with _pixels0, _mask or _label."
        )
    return items


def _find_lists(root: Path) -> dict[str, dict[str, Path]]:
    """Folder name -> role -> file, for every folder that holds a training and a test list."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted([*root.glob("*.txt"), *root.glob("*/*.txt")]):
        if match := _LIST.fullmatch(path.stem):
            found.setdefault(path.parent.relative_to(root).as_posix(), {})[match[1].lower()] = path
    return {name: roles for name, roles in found.items() if "test" in roles and len(roles) > 1}


def _read_list(path: Path, items: dict[str, Item]) -> tuple[Item, ...]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    names = [name if name in items else _stem(name) for name in lines]
    if not names:
        raise InputError(f"dataset: the list {path} is empty. Restore it, or choose other lists with dataset.lists=.")
    if absent := [name for name in names if name not in items]:
        raise InputError(
            f"dataset: the list {path} names {len(absent)} of {len(names)} images that are not there, first "
            f"{', '.join(absent[:3])}. Complete the images or mend the list."
        )
    return tuple(items[name] for name in dict.fromkeys(names))


def _stem(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def _has_images(root: Path) -> bool:
    if _folder(root, _IMAGE_FOLDERS) is not None:
        return True
    return any(
        _folder(child, _IMAGE_FOLDERS) is not None
        for child in root.iterdir()
        if child.is_dir() and child.name.lower() in ("train", "trainval", "test")
    )


def _folder(root: Path, names: tuple[str, ...]) -> Path | None:
    for child in sorted(root.iterdir()):
        if child.is_dir() and child.name.lower() in names and any(True for _ in _files(child)):
            return child
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _fraction(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
