"""Predictions over images as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.files import atomic
from sam_spl.metrics.target import components, match
from sam_spl.resize import Image, Mask

# RGB, also distinct to colour-blind eyes (Okabe and Ito).
_HIT, _MISSED, _FALSE = (0, 158, 115), (230, 159, 0), (204, 60, 60)
Colour = tuple[int, int, int]
Boxes = list[tuple[NDArray[np.int32], Colour]]
Caption = list[tuple[str, Colour | None]]
_FOUND = (86, 180, 233)  # of which nobody knows whether it is a target
_PANEL = 512  # the longer side of a panel, at least, in pixels
_LARGEST = 4096  # and of a picture, at most: larger ones cannot be looked at
_MANY = 1000  # outlines, beyond which their distances, of all pairs, would take long
_BAR = 28  # height of the caption
_FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.5)


def overlay(image: Image, mask: Mask, prob: NDArray[np.float32], threshold: float = 0.5) -> NDArray[np.uint8]:
    """Image, mask and prediction side by side, every target boxed: hit, missed or false.

    Args:
        image: uint8 or uint16, (H, W) or (H, W, 3).
        mask: bool (H, W).
        prob: (H, W) in [0, 1].
        threshold: of the prediction.

    Returns:
        RGB uint8.
    """
    predictions, targets = components(prob > threshold), components(mask)
    matched = match(targets, predictions)
    false = [box for k, box in enumerate(predictions.boxes) if k not in set(matched.tolist())]
    boxes = [
        *((box, _HIT if k >= 0 else _MISSED) for box, k in zip(targets.boxes, matched, strict=True)),
        *((box, _FALSE) for box in false),
    ]
    zoom = max(1.0, _PANEL / max(mask.shape))
    detected = int((matched >= 0).sum())
    counted = [
        (f"{detected} hit", _HIT),
        (f"{len(targets) - detected} missed", _MISSED),
        (f"{len(false)} false", _FALSE),
    ]
    panels: list[tuple[NDArray[np.uint8], Caption]] = [
        (stretch(image), [("image", None)]),
        (_grey(mask), [(f"mask: {len(targets)} target{'' if len(targets) == 1 else 's'}", None)]),
        (_grey(prob), [("prediction:", None), *counted]),
    ]
    return np.concatenate([_panel(content, caption, boxes, zoom) for content, caption in panels], axis=1)


def marked(image: Image, boxes: NDArray[np.int32], labels: Sequence[int]) -> NDArray[np.uint8]:
    """An image with an outline around each detection, and its number.

    Args:
        image: uint8, uint16 or floats in [0, 1]. Grey (H, W) is stretched, RGB (H, W, 3) shown as it is.
        boxes: (N, 4) left, top, width, height in pixels.
        labels: N numbers.

    Returns:
        RGB uint8. The longer side is 512 pixels, by enlarging smaller images, to 4096, by shrinking larger.
    """
    longer = max(image.shape[:2])
    zoom, shrink = max(1.0, _PANEL / longer), min(1.0, _LARGEST / longer)
    if shrink < 1:
        image = cv2.resize(image, _scaled(image, shrink), interpolation=cv2.INTER_AREA)
        boxes = np.rint(boxes * shrink).astype(np.int32)
    values = image * np.float32(65535) if image.dtype.kind == "f" else image
    shown = stretch(values) if image.ndim == 2 else _eight_bits(values)
    picture = _outlined(shown, [(box, _FOUND) for box in boxes], zoom)
    for (left, top, width, _), label in zip(boxes.tolist(), labels, strict=True):
        text, x = str(label), round((left + width + 3) * zoom) + 4  # beside the outline
        wide = cv2.getTextSize(text, *_FONT, 1)[0][0]
        if x + wide > picture.shape[1]:
            x = max(0, round((left - 3) * zoom) - 4 - wide)
        for colour, thickness in (((0, 0, 0), 3), (_FOUND, 1)):
            at = (x, max(12, round(top * zoom) + 4))
            cv2.putText(picture, text, at, *_FONT, colour, thickness, cv2.LINE_AA)
    return picture


def write_png(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB image atomically."""
    data = cv2.imencode(".png", image[..., ::-1])[1]
    with atomic(path) as temporary:
        temporary.write_bytes(data.tobytes())


def stretch(image: Image) -> NDArray[np.uint8]:
    """Grey between the 0.1st and the 99.9th percentile, so that dim scenes show; targets may saturate."""
    grey = image.mean(-1) if image.ndim == 3 else image.astype(np.float32)
    low, high = np.percentile(grey, (0.1, 99.9))
    return np.clip(255 * (grey - low) / max(high - low, 1), 0, 255).astype(np.uint8)


def _grey(content: NDArray[Any]) -> NDArray[np.uint8]:
    return (255 * content.astype(np.float32)).astype(np.uint8)


def margins(boxes: NDArray[np.int32]) -> NDArray[np.float64]:
    """How far from its target each outline is, in pixels: up to 3, and outlines of neighbours do not meet."""
    low, high = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
    apart = np.maximum(low - high.transpose(1, 0, 2), low.transpose(1, 0, 2) - high).max(-1).astype(float)
    np.fill_diagonal(apart, np.inf)
    return np.clip((apart.min(1, initial=np.inf) - 1) / 2, 0, 3)


def _panel(content: NDArray[np.uint8], caption: Caption, boxes: Boxes, zoom: float) -> NDArray[np.uint8]:
    panel = _outlined(content, boxes, zoom)
    framed = np.concatenate([_bar(caption, panel.shape[1]), panel])
    framed[:, -2:] = 32
    return framed


def _outlined(content: NDArray[np.uint8], boxes: Boxes, zoom: float) -> NDArray[np.uint8]:
    """Grey or RGB content as RGB, enlarged, with its boxes outlined."""
    panel = cv2.resize(content, _scaled(content, zoom), interpolation=cv2.INTER_NEAREST)
    panel = cv2.cvtColor(panel, cv2.COLOR_GRAY2RGB) if panel.ndim == 2 else panel
    corners = np.array([box for box, _ in boxes], np.int32).reshape(-1, 4)
    apart = margins(corners) if len(corners) <= _MANY else np.ones(len(corners))
    for (left, top, width, height), margin, (_, colour) in zip(corners, apart, boxes, strict=True):
        corner = (round((left - margin) * zoom), round((top - margin) * zoom))
        opposite = (round((left + width + margin) * zoom), round((top + height + margin) * zoom))
        cv2.rectangle(panel, corner, opposite, colour, 2, cv2.LINE_AA)
    return panel


def _scaled(content: NDArray[Any], zoom: float) -> tuple[int, int]:
    """(width, height) of an image at another scale."""
    return max(1, round(content.shape[1] * zoom)), max(1, round(content.shape[0] * zoom))


def _eight_bits(image: Image) -> NDArray[np.uint8]:
    return image if image.dtype == np.uint8 else (image / 257).astype(np.uint8)


def _bar(caption: Caption, width: int) -> NDArray[np.uint8]:
    """Words on a dark bar; a square in front of those that a colour of boxes means."""
    bar, x = np.full((_BAR, width, 3), 32, np.uint8), 8
    for text, colour in caption:
        if colour:
            cv2.rectangle(bar, (x, 10), (x + 9, 19), colour, -1)
            x += 14
        cv2.putText(bar, text, (x, 19), *_FONT, (235, 235, 235), 1, cv2.LINE_AA)
        x += cv2.getTextSize(text, *_FONT, 1)[0][0] + 8
    return bar
