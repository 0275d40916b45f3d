"""From image and mask files, PIL images and arrays to the arrays that the toolkit works with."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from sam_spl.errors import InputError
from sam_spl.foreign import require_regular
from sam_spl.resize import Image, Mask

_ORIENTATION = 274  # tag of EXIF
_ROUNDING = 1e-4  # by which resized floats may leave [0, 1]
_MOST_PIXELS = 8192 * 8192  # of an image of a data set: examining it takes some 16 bytes a pixel
_ONE_AT_A_TIME = Lock()  # of what changes the filters of warnings, which all threads share
_MOST_LOOKED_AT = 150 * 10**6  # of one image, as predict has it


def read_image(path: Path, stored: NDArray[Any] | None = None, most: float = _MOST_PIXELS) -> Image:
    """uint8 or uint16, (H, W) where the file is grey in fact, else RGB (H, W, 3); alpha is dropped.

    Args:
        path: the file.
        stored: what :func:`decode` gave for it, where that is known.
        most: pixels.

    Raises:
        InputError: not readable as an image of 8 or 16 bits, or too large.
    """
    image = decode(path, most) if stored is None else stored
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"image: {path} holds {image.dtype} values. Save it with 8 or 16 bits per channel.")
    return _grey_if_grey(image[..., 2::-1] if image.ndim == 3 else image)


def read_mask(path: Path) -> Mask:
    """Boolean (H, W): above half of full scale, or above 0 where there are only 0 and 1.

    Full scale is 255, or 65535 in a 16-bit file with values above 255. The largest colour channel counts.

    Raises:
        InputError: not readable as an image, or values that are negative or not finite.
    """
    return binarise(decode_mask(path))


def decode_mask(path: Path) -> NDArray[Any]:
    """The stored values of a mask, as :func:`decode` gives them.

    Raises:
        InputError: not readable, or values that are negative or not finite.
    """
    mask = decode(path)
    if mask.dtype not in (np.uint8, np.uint16) and not (np.isfinite(mask).all() and mask.min(initial=0) >= 0):
        raise InputError(
            f"mask: {path} holds values that are negative or not finite. Save it with 0 and 255."
        )
    return mask


def binarise(mask: NDArray[Any]) -> Mask:
    """What :func:`read_mask` does with the stored values, (H, W) or (H, W, C)."""
    if mask.ndim == 3:
        mask = mask[..., :3].max(-1)
    largest = mask.max(initial=0)
    return mask > (0 if largest <= 1 else 127 if largest <= 255 else 32767)


def decode(path: Path, most: float = _MOST_PIXELS) -> NDArray[Any]:
    """The stored values, (H, W) or (H, W, C) in OpenCV's order of channels.

    Args:
        path: the file.
        most: pixels. A small file may state any number of them.

    Raises:
        InputError: not readable as an image, or too large.
    """
    # imdecode over imread: it takes any file name, and separates a missing file from a broken one.
    try:
        require_regular(path)
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"image: cannot read {path}: {error.strerror or error}.") from error
    width, height = _stated_size(data)
    if width * height > most:
        raise InputError(
            f"image: {path} states {width}x{height} pixels, more than {most / 1e6:.0f} million. Cut it."
        )
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except (cv2.error, MemoryError):  # sides that it refuses, or has no memory for
        image = None
    if image is None:
        raise InputError(f"image: {path} is not a readable image (damaged?). Replace it.")
    return image


def _stated_size(data: NDArray[np.uint8]) -> tuple[int, int]:
    """(width, height) by an image's header; (0, 0) of the few kinds of files that Pillow does not know."""
    try:
        with (
            _ONE_AT_A_TIME,
            warnings.catch_warnings(action="ignore"),
            PIL.Image.open(io.BytesIO(data.data)) as header,
        ):
            return header.size
    except PIL.Image.DecompressionBombError:
        return 10**9, 10**9
    except Exception:  # whatever a damaged header raises: OpenCV may read it
        return 0, 0


def orientation(header: PIL.Image.Image) -> int:
    """How EXIF says that an image is to be shown, 1 (as it is stored) to 8, without decoding the image.

    1 for TIFF, which decoders turn themselves, and where the entry cannot be read.
    """
    if header.format == "TIFF":
        return 1
    with suppress(Exception):  # whatever a damaged entry raises
        # Of PNG files Pillow's own method would decode the image, in search of an entry behind it.
        found = PIL.Image.Image.getexif(header).get(_ORIENTATION, 1)
        return found if found in range(1, 9) else 1
    return 1


def _orientation_in(path: str | Path) -> int:
    # Some files that OpenCV reads are none for Pillow, and of large ones it warns.
    with suppress(Exception), warnings.catch_warnings(action="ignore"), PIL.Image.open(path) as header:
        return orientation(header)
    return 1


def upright(image: Image, orientation: int) -> Image:
    """An image as stored, (H, W) or (H, W, 3), turned and mirrored as EXIF says."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    down = orientation in (3, 4, 7, 8)
    across = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(image[:: -1 if down else 1, :: -1 if across else 1])


def as_image(image: Any) -> Image:
    """Any image in the form that data sets have: equal for a path, a PIL image and an array of equal values.

    PIL and OpenCV, which reads paths, do not always decode a file to equal values: PIL keeps 8 of the 16
    bits of colour files, and the two convert some colour spaces differently. Files of floats are taken as
    PIL images and arrays only.

    An image file whose EXIF entry says so is turned, as programs show it. PIL images and arrays are taken as
    they are, and data sets as they are stored, since their masks are.

    Args:
        image: an image file's path; a PIL image of mode 1, L, LA, P, PA, RGB, RGBA, I, I;16 or F; or what
            :func:`as_array` takes.

    Returns:
        uint8, uint16 or float32 in [0, 1]; (H, W) where the image is grey in fact, else RGB (H, W, 3).

    Raises:
        InputError: not readable as an image, or another mode or kind of array.
    """
    if isinstance(image, str | Path):
        return upright(read_image(Path(image), most=_MOST_LOOKED_AT), _orientation_in(image))
    return _grey_if_grey(
        as_array(_of_pil(image) if isinstance(image, PIL.Image.Image) else np.asarray(image))
    )


def as_array(image: NDArray[Any]) -> Image:
    """Check an array and drop alpha.

    Args:
        image: uint8, uint16 or floats in [0, 1]; (H, W), (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4).

    Returns:
        uint8, uint16 or float32, (H, W) or (H, W, 3).

    Raises:
        InputError: another shape, another type (booleans are not brightness), or floats outside [0, 1].
    """
    if image.ndim == 3 and image.shape[2] in (1, 4):
        image = image[..., 0] if image.shape[2] == 1 else image[..., :3]
    if not image.size or (image.ndim != 2 and (image.ndim != 3 or image.shape[2] != 3)):
        raise InputError(
            f"image: shape {image.shape} is not an image. Give (H, W), RGB (H, W, 3) or RGBA (H, W, 4)."
        )
    if image.dtype.kind == "f":
        low, high = image.min(), image.max()
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN too
            raise InputError(
                f"image: floats from {low:g} to {high:g} are not in [0, 1]. Divide them by their full scale, "
                "or give uint8 or uint16."
            )
        return image.astype(np.float32, copy=False)
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        raise InputError(
            f"image: values of type {image.dtype} have no known scale. Give uint8, uint16 or "
            "floats in [0, 1]."
        )
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _of_pil(image: PIL.Image.Image) -> NDArray[Any]:
    """The values of a PIL image as reading its file gives them: 16 bits, floats, grey or RGB."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)  # PIL opens some 16-bit files with 32 bits
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise InputError(
                f"image: PIL mode I with values from {values.min()} to {values.max()} is not of 16 bits."
            )
        return values.astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        known = "LA" if image.mode == "La" else "RGB"  # to which PIL converts it
        raise InputError(
            f'image: PIL mode {image.mode} is neither grey nor RGB. Give image.convert("{known}").'
        )
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def _grey_if_grey(image: Image) -> Image:
    """(H, W) where the three channels are equal."""
    if image.ndim == 3 and (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all():
        image = image[..., 0]
    return np.ascontiguousarray(image)
