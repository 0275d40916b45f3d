"""From files to frames: images, TIFF stacks and videos."""

from __future__ import annotations

import math
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from sam_spl.data.reading import as_image, decode, orientation, read_image, upright
from sam_spl.errors import InputError
from sam_spl.predict.inputs import VIDEOS, Source, is_text
from sam_spl.resize import Image
from sam_spl.runtime import quiet_ffmpeg

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM", "JPEG2000", "TIFF")
_PERCENTILES = (0.1, 99.9)
_SUBFILE = 254  # tag of a page of TIFF; its first bit marks a smaller copy of another page
_CODEC_COLOUR = 4  # levels that colours of a grey video may be from its green, by rounding in its codec
_FALLBACK_RATE = 25.0  # frames a second of a video that does not state it


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
            image, rule = to_unit(upright(_stored(path, megapixels * 1e6), turned), how)
        except InputError as error:  # callers say the name
            raise InputError(str(error).removeprefix("image: ").replace(f"{path} ", "", 1)) from error
    yield Frame(source.name, None, image, path, rule)


def _stored(path: Path, most: float) -> NDArray[Any]:
    """The values of an image file: as data sets have it for 8 and 16 bits, other types as they are."""
    stored = decode(path, most)
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
