"""From what a user names, folders and patterns too, to files of frames and names for what comes out."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

from sam_spl.errors import InputError

STACKS = (".tif", ".tiff")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".pgm", ".ppm", ".pnm", ".jp2", *STACKS)
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm", ".wmv")
#: What marks a folder that predict wrote: a file and a folder. And the folders of its pictures, which are no
#: inputs.
SETTINGS, PARTS, PICTURES = "predict.json", "parts", ("masks", "overlays", "prob")
_LONGEST = 180  # bytes of one part of a name, of the 255 that file systems take
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # also what stands for broken UTF-8
_FORMULA = ("=", "+", "-", "@")  # what spreadsheets take a cell for a formula by


@dataclass(frozen=True)
class Source:
    """A file that frames come from.

    Attributes:
        path: absolute.
        file: relative to what the user named, with its suffix; ``/`` between folders.
        name: of its outputs: ``file`` without its suffix, or more of it where that is another file's name.
    """

    path: Path
    file: str
    name: str

    @property
    def several(self) -> bool:
        """Whether the file may hold more than one frame."""
        return self.path.suffix.lower() in (*VIDEOS, *STACKS)

    @property
    def order(self) -> tuple[Any, ...]:
        """What sorts sources: folder by folder, numbers in names by their value."""
        return natural(str(PurePosixPath(self.file).parent)), natural(self.file)


def list_files(words: Sequence[str], output: Path) -> tuple[dict[Path, str], list[str]]:
    """The files that words on the command line mean.

    Args:
        words: files, folders (searched with all that is below) and glob patterns. A word that exists is
            taken as it is, whatever marks its name holds.
        output: folder whose content is no input, but for files of it that are named.

    Returns:
        Absolute path -> path relative to what was named: to the folder or the folder of the file, or to what
        the patterns or several words have in common. And what could not be searched, a line each.

    Raises:
        InputError: nothing has that name, or no image or video is there.
    """
    problems: list[str] = []
    found: dict[Path, None] = {}
    bases: list[Path] = []
    for word in words:
        matches = [word] if os.path.lexists(word) else _matching(word, output, problems)
        if not matches:
            raise InputError(f"input: there is no file, folder or pattern {word!r} (in {Path.cwd()}).")
        alone = len(words) == 1 and matches == [word]
        for path in (Path(os.path.abspath(match)) for match in matches):
            bases.append(path if path.is_dir() and alone else path.parent)
            for file in _walk(path, output, problems) if path.is_dir() else [path]:
                found.setdefault(file)
    if not found:
        raise InputError(
            f"input: no image or video in {', '.join(words)} ({' '.join((*IMAGES, *VIDEOS))}). "
            "The output folder is not searched."
        )
    try:
        base = Path(os.path.commonpath(bases))
    except ValueError:  # on several drives of Windows
        return {path: path.name for path in found}, problems
    return {path: path.relative_to(base).as_posix() for path in found}, problems


def name_sources(files: Mapping[Path, str], known: Mapping[str, str]) -> list[Source]:
    """Sources with names that no two of them share, nor their frames, on any file system; in order.

    Args:
        files: absolute path -> relative path.
        known: path -> name, of files that have a name from an earlier run. They keep it.
    """
    plain = {path: _safe(str(PurePosixPath(file).with_suffix(""))) for path, file in files.items()}
    shared = Counter(name.casefold() for name in plain.values())
    taken = _Names()
    for name in plain.values():
        taken.folders.update(_parents(name.casefold()))
    for of, name in known.items():
        taken.claim(name, Source(Path(of), name, name).several)
    sources = []
    for path, file in files.items():
        several = Source(path, file, "").several
        name = known.get(str(path), "")
        if not name:
            wanted = [plain[path]] if shared[plain[path].casefold()] == 1 else []
            name = taken.first_free([*wanted, _safe(file)], several)
            taken.claim(name, several)
        sources.append(Source(path, file, name))
    return sorted(sources, key=lambda source: source.order)


def natural(text: str) -> list[tuple[int, str]]:
    """What sorts text with numbers in it: frame2 before frame10."""
    parts = re.split(r"([0-9]+)", text)
    return [(int(part), part) if k % 2 else (-1, part) for k, part in enumerate(parts)]


def is_text(path: Path) -> bool:
    """Whether a path is UTF-8, as files of other systems may not be."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: object) -> str:
    """In one line that any console can show: names of files may hold line feeds, escapes and broken UTF-8."""
    return _UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], str(text))


class _Names:
    """Names that are taken, in any case of letters: files, and folders that their frames or files are in."""

    def __init__(self) -> None:
        self.files: set[str] = set()  # names of sources
        self.folders: set[str] = set()  # folders that some name lies in
        self.several: set[str] = set()  # names whose frames lie in a folder of that name

    def first_free(self, wanted: Sequence[str], several: bool) -> str:
        flat = wanted[-1].replace("/", "_")  # in no folder, which may be that of a video's frames
        more = (f"{flat}~{k}" for k in count(2))
        return next(name for name in chain(wanted, [flat], more) if self.free(name, several))

    def free(self, name: str, several: bool) -> bool:
        key, parents = name.casefold(), set(_parents(name.casefold()))
        return not (key in self.files or parents & self.several or (several and key in self.folders))

    def claim(self, name: str, several: bool) -> None:
        key = name.casefold()
        self.files.add(key)
        self.folders.update(_parents(key))
        if several:
            self.several.add(key)


def _parents(name: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(name).parents if str(parent) != "."]


def _safe(file: str) -> str:
    """A relative path for outputs: of printable text, below its folder, no part too long or like an output
    file. In a table it is one line, and no formula.
    """
    text = file.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    parts = []
    for part in PurePosixPath(_CONTROL.sub("_", text)).parts:
        if part in ("/", "..", "."):
            continue
        if len(part.encode()) > _LONGEST:
            kept = part.encode()[: _LONGEST - 9].decode("utf-8", "ignore")
            part = f"{kept}_{hashlib.sha256(part.encode()).hexdigest()[:8]}"
        parts.append(part)
    # masks/a.png cannot be a file and a folder.
    folders = [f"{part}_" if part.lower().endswith((".png", ".npy", ".mp4")) else part for part in parts[:-1]]
    name = "/".join([*folders, *parts[-1:]]) or "_"
    return f"_{name}" if name.startswith(_FORMULA) else name


def _matching(pattern: str, output: Path, problems: list[str]) -> list[str]:
    """The files and folders that a pattern means; below ``**``, the files.

    ``**`` follows links as the search of a folder does: into each folder once. Python's own goes round in
    circles of links.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        written = [os.path.join(os.path.realpath(output), name) for name in PICTURES]
        found = [match for match in glob.glob(pattern) if not _within_any(os.path.realpath(match), written)]
        return sorted(found, key=natural)
    first = parts.index("**")
    roots = glob.glob("/".join(parts[:first]) or "/") if first else [""]
    matches = []
    for root in (Path(root) for root in sorted(roots, key=natural) if os.path.isdir(root or ".")):
        for file in _walk(root, output, problems, every=parts[-1] != "**"):
            names = file.relative_to(root).parts
            of = next((k for k in range(1, len(names) + 1) if _match(names[:k], parts[first:])), 0)
            if of == len(names) or (of and _has_frames(names[-1])):  # the file, or a folder that holds it
                matches.append(str(file))
    return matches


def _match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern; ``**`` stands for any number of parts."""
    if not patterns or not names:
        return not names and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _match(names, patterns[1:]) or _match(names[1:], patterns)
    return fnmatch(names[0], patterns[0]) and _match(names[1:], patterns[1:])


def _walk(root: Path, output: Path, problems: list[str], *, every: bool = False) -> Iterator[Path]:
    """Images and videos below a folder, in order, without hidden files and without what predict wrote.

    ``every``: all files.
    """
    own = os.path.realpath(output)
    if _within(own, os.path.realpath(root)) and own != os.path.realpath(root):
        written = [own]
    else:  # the input lies in the output folder: what predict writes there is left out
        written = [os.path.join(own, name) for name in PICTURES]
    seen: set[str] = set()

    def tell(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read: {error.strerror}")

    for folder, folders, files in os.walk(root, followlinks=True, onerror=tell):
        real = os.path.realpath(folder)
        if real in seen or _within_any(real, written):
            folders.clear()
            continue
        seen.add(real)
        earlier = PICTURES if SETTINGS in files and PARTS in folders else ()  # of a run into another folder
        searched = (name for name in folders if not name.startswith(".") and name not in earlier)
        folders[:] = sorted(searched, key=natural)
        for name in sorted(files, key=natural):
            path = os.path.join(folder, name)
            if name.startswith(".") or not (every or _has_frames(name)):
                continue
            if not os.path.islink(path) or not _within_any(os.path.realpath(path), written):
                yield Path(path)


def _has_frames(name: str) -> bool:
    return name.lower().endswith((*IMAGES, *VIDEOS))


def _within_any(path: str, folders: Iterable[str]) -> bool:
    return any(_within(path, folder) for folder in folders)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
