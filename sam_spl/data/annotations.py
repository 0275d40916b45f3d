"""Masks from annotation files: boxes, polygons, circles and run lengths of COCO and LabelMe.

scikit-image draws polygons and circles: it marks the pixels whose centres are inside, for corners at
fractions of a pixel. OpenCV's ``fillPoly`` marks every pixel that the outline touches, which doubles a
target of a few pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import disk, polygon

from sam_spl.errors import InputError
from sam_spl.foreign import brief, read_json
from sam_spl.resize import Mask

#: {"box": (left, top, right, bottom)}, {"polygon": [(x, y), ...]}, {"disk": (x, y, radius)}, all in pixels;
#: or {"runs": lengths down the columns, background first, "size": (H, W), "origin": where they stand, for
#: messages}.
Shape = Mapping[str, Any]

_FARTHEST = 1e6  # pixels, of a coordinate
_MOST_CORNERS = 10**4  # of a shape: drawing it takes a step for each corner and pixel
_MOST_BITS = 60  # of a run length
_FAULTS = (
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    ValueError,
    OverflowError,
)  # of values of any kind


def read_coco(file: str | Path) -> dict[str, list[Shape]]:
    """Image file name -> shapes, of every image that a COCO file names; an image without annotation has none.

    Raises:
        InputError: no COCO file, or a segmentation that is damaged.
    """
    content = read_json(file)
    try:
        names = {image["id"]: _file_name(image["file_name"]) for image in content["images"]}
        shapes: dict[str, list[Shape]] = {name: [] for name in names.values()}
        for number, annotation in enumerate(content["annotations"]):
            origin = f"{file}: annotation {number}"
            if annotation["image_id"] not in names:
                raise InputError(
                    f"{origin} belongs to image {brief(annotation['image_id'])}, which the file does not "
                    "list. Remove the annotation, or add the image."
                )
            try:
                shapes[names[annotation["image_id"]]] += _coco_shapes(origin, annotation)
            except _FAULTS as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{origin} is not valid ({brief(error)}). Correct or remove it.") from error
    except _FAULTS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is not a COCO file of images and annotations ({brief(error)}).") from error
    return shapes


def read_labelme(file: str | Path) -> list[Shape]:
    """The shapes of one LabelMe file: polygons, rectangles, circles and points.

    Raises:
        InputError: no LabelMe file, or another kind of shape.
    """
    content = read_json(file)
    shapes: list[Shape] = []
    try:
        for shape in content["shapes"]:
            kind = shape.get("shape_type") or "polygon"
            points = _corners(shape["points"])
            if kind == "rectangle":
                (x0, y0), (x1, y1) = points[0], points[2 if len(points) == 4 else 1]
                shapes.append({"box": (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))})
            elif kind == "circle":
                (x, y), edge = points
                shapes.append({"disk": (x, y, float(np.hypot(edge[0] - x, edge[1] - y)))})
            elif kind == "polygon":
                shapes.append({"polygon": points})
            elif kind == "point":
                shapes.append({"polygon": points[:1]})
            else:
                raise InputError(
                    f"{file}: a {brief(kind, quoted=False)} cannot become a mask. Use polygons, rectangles, "
                    "circles or points."
                )
    except _FAULTS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is not a LabelMe file ({brief(error)}).") from error
    return shapes


def draw(shapes: Sequence[Shape], size: tuple[int, int]) -> Mask:
    """The mask (H, W) of shapes in pixel coordinates, where pixel (row, column) covers [column, column + 1).

    A pixel is target when its centre is inside. A shape that holds no centre marks the pixel that it lies
    in, since targets may be smaller than a pixel.

    Raises:
        InputError: run lengths for an image of another size.
    """
    mask = np.zeros(size, bool)
    for shape in shapes:
        if "runs" in shape:
            mask |= _from_runs(shape, size)
            continue
        rows, columns, (x, y) = _pixels(shape, size)
        if len(rows):
            mask[rows, columns] = True
        elif 0 <= x < size[1] and 0 <= y < size[0]:
            mask[int(y), int(x)] = True
    return mask


def run_lengths(text: str) -> list[int]:
    """The run lengths in a COCO string.

    Each number is a series of characters, five bits in each, the lowest first. The code of a character is
    its value plus 48; bit 5 says that the number continues, bit 4 of its last character is its sign. From the
    fourth number on it is the difference to the number two before it.

    Raises:
        ValueError: not such a string.
    """
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} is not a character of run lengths")
        number |= (bits & 31) << shift
        shift += 5
        if shift > _MOST_BITS:
            raise ValueError("a run length is too long")
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        lengths.append(number + lengths[-2] if len(lengths) > 2 else number)
        number = shift = 0
    if shift:
        raise ValueError("the last run length is cut off")
    return lengths


def _pixels(
    shape: Shape, size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[float, float]]:
    """Rows and columns of the pixels whose centres are inside, and the shape's own centre (x, y)."""
    if "box" in shape:  # centres in [left, right)
        left, top, right, bottom = shape["box"]
        edges = np.ceil(np.array([(left, top), (right, bottom)]) - 0.5).astype(int)
        (x0, y0), (x1, y1) = np.clip(edges, 0, size[::-1])
        rows, columns = (grid.ravel() for grid in np.mgrid[y0:y1, x0:x1])
        return rows, columns, ((left + right) / 2, (top + bottom) / 2)
    if "disk" in shape:
        x, y, radius = shape["disk"]
        return *disk((y - 0.5, x - 0.5), max(radius, 1e-6), shape=size), (x, y)
    points = np.asarray(shape["polygon"], float).reshape(-1, 2)
    return *polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, size), tuple(points.mean(0))


def _from_runs(shape: Shape, size: tuple[int, int]) -> Mask:
    if tuple(shape["size"]) != size:
        height, width = shape["size"]
        raise InputError(
            f"{shape['origin']} is a mask of {width}x{height}, its image is {size[1]}x{size[0]} (width x "
            "height). Export the masks at the size of the images."
        )
    runs = np.repeat(np.arange(len(shape["runs"])) % 2 == 1, shape["runs"])
    return runs.reshape(size[::-1]).T


def _coco_shapes(origin: str, annotation: Mapping[str, Any]) -> list[Shape]:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        return [{"polygon": _corners(zip(flat[::2], flat[1::2], strict=True))} for flat in segmentation]
    if isinstance(segmentation, dict):
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        try:
            lengths = run_lengths(counts) if isinstance(counts, str) else [int(count) for count in counts]
            if min(lengths, default=0) < 0 or sum(lengths) != height * width:
                raise ValueError(f"{sum(lengths)} pixels for {width}x{height}")
        except ValueError as error:
            raise InputError(f"{origin}: its run lengths are damaged ({error}). Export it again.") from error
        return [{"runs": lengths, "size": (height, width), "origin": origin}]
    left, top, wide, high = map(_pixel, annotation["bbox"])
    if wide < 0 or high < 0:
        raise ValueError(f"a box of {wide:g}x{high:g}")
    return [{"box": (left, top, left + wide, top + high)}]


def _file_name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"file_name {brief(value)}")
    return value


def _corners(points: Iterable[Any]) -> list[tuple[float, float]]:
    """The corners of a shape in pixels, one at least."""
    corners = [(_pixel(x), _pixel(y)) for x, y in islice(points, _MOST_CORNERS + 1)]
    if not 0 < len(corners) <= _MOST_CORNERS:
        raise ValueError("a shape without a corner" if not corners else f"more than {_MOST_CORNERS} corners")
    return corners


def _pixel(value: Any) -> float:
    """A coordinate or a length in pixels."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _FARTHEST:
        raise ValueError(f"{brief(value)} is no number of pixels up to {_FARTHEST:g}")
    return float(value)
