"""Masks from what people label with: COCO and LabelMe files of boxes and polygons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import polygon

from sam_spl.errors import InputError
from sam_spl.resize import Mask

Shape = Mapping[
    str, Any
]  # {"box": (left, top, right, bottom)}, {"polygon": [(x, y), ...]} or {"mask": array}


def read_coco(file: str | Path) -> dict[str, list[Shape]]:
    """Image file name -> shapes, of every image that a COCO file names; an image without annotation has none.

    Raises:
        InputError: no COCO file, or a segmentation in a form that is not read.
    """
    content = _json(file)
    try:
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        shapes: dict[str, list[Shape]] = {name: [] for name in names.values()}
        for number, annotation in enumerate(content["annotations"]):
            if annotation["image_id"] not in names:
                raise InputError(
                    f"{file}: annotation {number} is of image {annotation['image_id']!r}, which is not there."
                )
            shapes[names[annotation["image_id"]]] += _coco_shapes(file, number, annotation)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is no COCO file of images and annotations ({error!r}).") from error
    return shapes


def read_labelme(file: str | Path) -> list[Shape]:
    """The shapes of one LabelMe file: polygons, rectangles and circles.

    Raises:
        InputError: no LabelMe file, or another kind of shape.
    """
    content = _json(file)
    shapes: list[Shape] = []
    try:
        for shape in content["shapes"]:
            kind, points = (
                shape.get("shape_type") or "polygon",
                [(float(x), float(y)) for x, y in shape["points"]],
            )
            if kind == "rectangle":
                (x0, y0), (x1, y1) = points[0], points[2 if len(points) == 4 else 1]
                shapes.append({"box": (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))})
            elif kind == "circle":
                (x, y), edge = points
                angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
                radius = float(np.hypot(edge[0] - x, edge[1] - y))
                circle = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
                shapes.append({"polygon": circle.tolist()})
            elif kind == "polygon":
                shapes.append({"polygon": points})
            elif kind == "point":
                shapes.append({"polygon": points[:1]})
            else:
                raise InputError(
                    f"{file}: a {kind} cannot be made a mask. Use polygons, rectangles, circles or points."
                )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is no LabelMe file ({error!r}).") from error
    return shapes


def draw(shapes: Sequence[Shape], size: tuple[int, int]) -> Mask:
    """The mask (H, W) of shapes in pixel coordinates, where pixel (row, column) covers [column, column + 1).

    A pixel is target when its centre is inside. A shape that holds no centre marks the pixel it lies in: targets may
    be smaller than a pixel.
    """
    mask = np.zeros(size, bool)
    for shape in shapes:
        if "mask" in shape:
            mask |= shape["mask"]
            continue
        if "box" in shape:
            left, top, right, bottom = shape["box"]
            points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        else:
            points = np.asarray(shape["polygon"], float).reshape(-1, 2)
        if "box" in shape:  # centres in [left, right)
            first, last = np.ceil(points[[0, 2]] - 0.5).astype(int)
            (x0, y0), (x1, y1) = np.clip(first, 0, size[::-1]), np.clip(last, 0, size[::-1])
            rows, columns = (grid.ravel() for grid in np.mgrid[y0:y1, x0:x1])
        else:
            rows, columns = polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, size)
        if not len(rows):
            x, y = np.floor(points.mean(0)).astype(int)
            rows, columns = np.array([y]), np.array([x])
        inside = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
        mask[rows[inside], columns[inside]] = True
    return mask


def _coco_shapes(file: str | Path, number: int, annotation: Mapping[str, Any]) -> list[Shape]:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        return [{"polygon": np.reshape(points, (-1, 2)).tolist()} for points in segmentation]
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        if isinstance(counts, str):
            raise InputError(
                f"{file}: annotation {number} is a compressed run-length mask. Export polygons or uncompressed runs."
            )
        height, width = segmentation["size"]
        runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return [{"mask": runs.reshape(width, height).T}]
    left, top, width, height = annotation["bbox"]
    return [{"box": (left, top, left + width, top + height)}]


def _json(file: str | Path) -> Any:
    try:
        return json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(f"{file} is no JSON file ({error}).") from error
