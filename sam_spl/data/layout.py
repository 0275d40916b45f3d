"""Where a data set's images, masks and split lists lie on disk, in whatever spelling it was downloaded."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sam_spl.data.pairing import IMAGE_SUFFIXES, Files, has_images
from sam_spl.errors import InputError, nearest, plain

_LIST = re.compile(r"(trainval|train|val|test)(?:[_\- ](.*))?", re.IGNORECASE)
_HELD_OUT = 0.2  # of a folder without lists, for testing


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
        listed: False for a folder without any list, whose test images are one in five by the hash of their names.
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

        Of all, different images of one name (in folders of their own) go by role and name.
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
        f"dataset: {path} holds no images/ and masks/ and no folder called {' or '.join(names)} "
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
    parts = {child.name.lower(): child for child in root.iterdir() if child.is_dir() and has_images(child)}
    train_part = parts.get("trainval") or parts.get("train")
    if train_part and "test" in parts:
        folders = {"train": train_part, "test": parts["test"]}
        if "val" in parts and train_part.name.lower() == "train":
            folders["val"] = parts["val"]
        inside = {role: Files.below(folder) for role, folder in folders.items()}
        found_parts = {
            role: _Part(files, list(files.images), folders[role]) for role, files in inside.items()
        }
        return _split(root, "folders", found_parts, skip_missing, odd_masks)

    files = Files.below(root)
    found = find_lists(root)
    name = _choose(root, lists, default_lists, found, files)
    if name is None:
        by_hash = {role: _Part(files, names, root) for role, names in _by_hash(files.images).items()}
        return replace(_split(root, "none", by_hash, skip_missing, odd_masks), listed=False)
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
class _Part:
    """The images of one role: what a list (or a folder) names, and the files it means."""

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


def _fraction(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
