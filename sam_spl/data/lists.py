"""Split lists: which there are, which of several to use, what is in one, and a split without any."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from sam_spl.data.pairing import IMAGE_SUFFIXES, Files
from sam_spl.errors import InputError, nearest, plain
from sam_spl.foreign import brief, read_text

_LIST = re.compile(r"(trainval|train|val|valid|validation|test)(?:[_\- ](.*))?", re.IGNORECASE)
VAL_NAMES = ("val", "valid", "validation")  # names of lists and folders of validation images
_HELD_OUT = 0.2  # of a folder without lists, for testing
_LONGEST = 4096  # characters of a name with its folders, as file systems have it


def find_lists(root: Path) -> dict[str, dict[str, Path]]:
    """Name -> role -> file, for every training list that has its test list beside it.

    A split is named after its folder. Where one folder holds several, the ending of the file is added:
    ``splits/full`` for ``splits/train_full.txt``.
    """
    by_ending: dict[Path, dict[str, dict[str, Path]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted([*root.glob("*.txt"), *root.glob("*/*.txt")]):
        if match := _LIST.fullmatch(path.stem):
            role = match[1].lower()
            by_ending[path.parent][match[2] or ""]["val" if role in VAL_NAMES else role] = path
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


def choose_lists(
    root: Path,
    lists: str | None,
    default_lists: str | None,
    found: Mapping[str, Mapping[str, Path]],
    files: Files,
) -> str | None:
    """The split of ``found`` to use; None where there is none.

    Args:
        root: folder of the data set, for messages.
        lists: the wanted split, if any.
        default_lists: the split to use where there are several different ones.
        found: from :func:`find_lists`.
        files: of the data set; two splits are equal where they mean the same images.

    Raises:
        InputError: the wanted split is not there, or there are several and no default.
    """

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
            f"dataset: {root} holds {len(different)} splits ({', '.join(sorted(different))}), whose numbers "
            f"are not comparable. Choose one, as --lists {sorted(different)[0]}."
        )
    return name


def read_list(path: Path) -> list[str]:
    """The names in a split list, each once.

    A line is a stem or a file name, with or without folders. CRLF and blank lines do not matter. A byte order
    mark of UTF-16 is heeded: Windows writes such files.

    Raises:
        InputError: the list cannot be read, is no text, or has a line that is no name.
    """
    lines = [line.strip() for line in read_text(path, "dataset: the list").splitlines()]
    for number, line in enumerate(lines, 1):
        if len(line) > _LONGEST:
            raise InputError(
                f"dataset: line {number} of the list {path} has {len(line)} characters ({brief(line)}). Give "
                "one name a line."
            )
    return list(dict.fromkeys(_stem(line.replace("\\", "/")) for line in lines if line))


def split_by_hash(images: Iterable[str]) -> dict[str, list[str]]:
    """One image in five for testing, by its name alone, so that adding an image moves no other."""
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
