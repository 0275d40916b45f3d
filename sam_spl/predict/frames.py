"""From what a user names to frames: images, folders of them, TIFF stacks and videos."""

from __future__ import annotations

import glob
import hashlib
import math
import os
import re
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from sam_spl.data.reading import as_image, decode, orientation, read_image, upright
from sam_spl.errors import InputError
from sam_spl.resize import Image
from sam_spl.runtime import quiet_ffmpeg

STACKS = (".tif", ".tiff")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".pgm", ".ppm", ".pnm", ".jp2", *STACKS)
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm", ".wmv")
#: What marks a folder that predict wrote: a file and a folder. And the folders of its pictures, which are no
#: inputs.
SETTINGS, PARTS, PICTURES = "predict.json", "parts", ("masks", "overlays", "prob")

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM", "JPEG2000", "TIFF")
_PERCENTILES = (0.1, 99.9)
_LONGEST = 180  # bytes of one part of a name, of the 255 that file systems take
_SUBFILE = 254  # tag of a page of TIFF; its first bit marks a smaller copy of another page
_CODEC_COLOUR = 4  # levels that colours of a grey video may be from its green, by rounding in its codec
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # also what stands for broken UTF-8
_FORMULA = ("=", "+", "-", "@")  # what spreadsheets take a cell for a formula by
_FALLBACK_RATE = 25.0  # frames a second of a video that does not state it


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


@dataclass(frozen=True)
class Frame:
    """One image to predict.

    Attributes:
        name: relative, without suffix, unique among all frames.
        index: from 0, in a video or a stack; None for an image.
        image: uint8 or uint16, or float32 in [0, 1]; (H, W) or RGB (H, W, 3).
        source: its file.
        scale: how its values get to [0, 1], ``full``, ``minmax`` or ``percentile``.
        of: how many frames the file says that it holds.
        rate: frames a second of a video.
    """

    name: str
    index: int | None
    image: Image
    source: Path
    scale: str
    of: int = 1
    rate: float | None = None


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


def read(source: Source, how: str = "auto", megapixels: float = 150.0) -> Iterator[Frame]:
    """The frames of a file, one at a time.

    Args:
        source: the file.
        how: one of :data:`sam_spl.predict.config.RANGES`, see :func:`to_unit`.
        megapixels: larger images are refused.

    Raises:
        InputError: not readable, empty, animated, too large, no file of data (a pipe); or, after the frames
            that could be read, that the file ends too early.
    """
    path = source.path
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
        raise InputError("is not a regular file")
    if not status.st_size:
        raise InputError("is empty")
    video = path.suffix.lower() in VIDEOS
    yield from (_read_video if video else _read_images)(source, how, megapixels)


def expected_frames(source: Source) -> int:
    """How many frames a file says that it holds: 1 of all that is no video."""
    if source.path.suffix.lower() not in VIDEOS or not source.path.is_file():
        return 1
    try:
        capture = _capture(source.path)
    except InputError:
        return 1
    stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 1
    capture.release()
    return max(1, stated)


def to_unit(image: NDArray[Any], how: str = "auto") -> tuple[Image, str]:
    """Stored values as a network takes them, and which rule was applied.

    Args:
        image: (H, W) or (H, W, 3), of integers or floats.
        how: ``full``: 0 to the full scale of 8 or 16 bits, as testing has it. ``minmax``: the frame's own
            minimum to maximum. ``percentile``: its percentiles 0.1 to 99.9, what lies outside is cut off.
            ``auto``: full for 8 bits. For all else minmax: sensors of 14 bits fill a small part of a 16-bit
            file's scale, and percentiles would cut off targets of less than a thousandth of the frame.

    Returns:
        uint8 and uint16 unchanged for ``full``, else float32 in [0, 1], 0 where all values are equal.

    Raises:
        InputError: values that are not finite, or that have no full scale.
    """
    rule = how if how != "auto" else "full" if image.dtype == np.uint8 else "minmax"
    if rule == "full":
        if image.dtype not in (np.uint8, np.uint16):
            raise InputError(f"holds {image.dtype} values, which have no full scale: --range minmax")
        return image, rule
    low, high = (
        (image.min(), image.max()) if rule == "minmax" else np.percentile(image, _PERCENTILES).tolist()
    )
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("holds values that are not finite")
    unit = np.subtract(image, low, dtype=np.float64 if image.dtype.itemsize > 2 else np.float32)
    unit /= max(float(high) - float(low), np.finfo(np.float32).tiny)
    return np.clip(unit, 0, 1, out=unit).astype(np.float32, copy=False), rule


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


def _read_images(source: Source, how: str, megapixels: float) -> Iterator[Frame]:
    """The image of a file, or the pages of a TIFF stack."""
    path = source.path
    with _decoding("image"):
        PIL.Image.init()  # or formats are not known before a file of theirs is met
        header = PIL.Image.open(path, formats=[one for one in _FORMATS if one in PIL.Image.OPEN])
    with header:
        _check_size(header.size, megapixels)
        pages, whole = _pages(header)
        turned = orientation(header)
        if len(pages) > 1 and header.format == "TIFF":
            yield from _read_pages(source, header, pages, how, megapixels)
            if not whole:
                raise InputError(f"page {len(pages) + 1} is not readable (cut short?)")
            return
    if len(pages) > 1:
        raise InputError(f"is animated ({len(pages)} frames). Save them as images or as a video")
    with _decoding("image"):
        try:
            image, rule = to_unit(upright(_stored(path), turned), how)
        except InputError as error:  # callers say the name
            raise InputError(str(error).removeprefix("image: ").replace(f"{path} ", "", 1)) from error
    yield Frame(source.name, None, image, path, rule)


def _stored(path: Path) -> NDArray[Any]:
    """The values of an image file: as data sets have it for 8 and 16 bits, other types as they are."""
    stored = decode(path)
    if stored.dtype in (np.uint8, np.uint16):
        return read_image(path, stored)
    return stored[..., 2::-1] if stored.ndim == 3 else stored


def _pages(header: PIL.Image.Image) -> tuple[list[int], bool]:
    """The images in a file, without smaller copies of others, and whether those are all of them."""
    with _decoding("image"):
        if header.format == "MPO":  # a camera's JPEG with previews
            return [0], True
        if header.format != "TIFF":
            return list(range(getattr(header, "n_frames", 1))), True
        pages: list[int] = []
        for page in count():
            try:
                header.seek(page)
            except EOFError:
                return pages or [0], True
            except Exception:  # whatever a damaged page raises
                return pages or [0], False
            if not header.tag_v2.get(_SUBFILE, 0) & 1:  # type: ignore[attr-defined]
                pages.append(page)
        raise AssertionError


def _read_pages(
    source: Source, header: PIL.Image.Image, pages: Sequence[int], how: str, megapixels: float
) -> Iterator[Frame]:
    for index, page in enumerate(pages):
        try:
            with _decoding("image"):
                header.seek(page)
                _check_size(header.size, megapixels)
                raw = header.mode in ("F", "I") or header.mode.startswith("I;16")
                values = np.asarray(header) if raw else as_image(header)
                image, rule = to_unit(values.astype(values.dtype.newbyteorder("="), copy=False), how)
        except InputError as error:
            raise InputError(f"page {index + 1} of {len(pages)} {error}") from error
        yield Frame(f"{source.name}/{index:06d}", index, image, source.path, rule, of=len(pages))


@contextmanager
def _decoding(kind: str) -> Iterator[None]:
    """Whatever a damaged file makes a decoder raise says that it cannot be read; Pillow's limit is ours."""
    limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except InputError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise InputError(f"is not a readable {kind} (damaged, or of an unknown kind)") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"is not a readable {kind} ({reason})") from error
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = limit


def _check_size(size: tuple[int, int], megapixels: float) -> None:
    width, height = size
    if width * height > megapixels * 1e6:
        raise InputError(
            f"states {width}x{height} pixels, above the limit of {megapixels:g} million. "
            f"--max_megapixels {math.ceil(width * height / 1e6)} allows it"
        )


def _read_video(source: Source, how: str, megapixels: float) -> Iterator[Frame]:
    """The frames of a video, of 8 bits."""
    capture = _capture(source.path)
    try:
        if not capture.isOpened():
            raise InputError("is not a readable video (damaged, cut short, or of an unknown codec)")
        _check_size(
            (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))),
            megapixels,
        )
        rate, stated = capture.get(cv2.CAP_PROP_FPS), max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        rate = rate if 0 < rate < 1e4 else _FALLBACK_RATE
        index = 0
        for image in _decoded(capture.read):
            unit, rule = to_unit(image, how)
            yield Frame(f"{source.name}/{index:06d}", index, unit, source.path, rule, max(stated, 1), rate)
            index += 1
    finally:
        capture.release()
    if not index:
        raise InputError("is a video without a frame that can be read")
    if index < stated - max(2, stated // 100):  # containers state a few more than they hold
        raise InputError(f"ends after {index} of {stated} frames (cut short?)")


def _capture(path: Path) -> cv2.VideoCapture:
    """Open a video. What FFmpeg says of a damaged one is left out: callers say that it cannot be read."""
    if not is_text(path):  # OpenCV would crash
        raise InputError("has a name that is not UTF-8, by which a video cannot be opened. Rename it")
    with quiet_ffmpeg():
        return cv2.VideoCapture(str(path))


def _decoded(read: Callable[[], tuple[bool, Any]]) -> Iterator[Image]:
    """RGB, or grey where colours differ by no more than codecs round them."""
    while True:
        there, bgr = read()
        if not there:
            return
        blue, green, red = cv2.split(bgr)
        if all(cv2.absdiff(green, one).max() <= _CODEC_COLOUR for one in (blue, red)):
            yield cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
        else:
            yield np.ascontiguousarray(bgr[..., ::-1])
