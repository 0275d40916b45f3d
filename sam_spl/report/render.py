"""Pictures: predictions over images, and training curves."""

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

# RGB, told apart by colour-blind eyes too (Okabe and Ito).
_HIT, _MISSED, _FALSE = (0, 158, 115), (230, 159, 0), (204, 60, 60)
_PANEL = 512  # the longer side of a panel, at least, in pixels
_BAR = 28  # height of the caption


def overlay(image: Image, mask: Mask, prob: NDArray[np.float32], threshold: float = 0.5) -> NDArray[np.uint8]:
    """Image, mask and prediction side by side, every target boxed: detected, missed or false.

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
    panels = [
        (stretch(image), "image"),
        (_grey(mask), f"mask: {len(targets)} target{'' if len(targets) == 1 else 's'}"),
        (_grey(prob), f"prediction: {detected} hit, {len(targets) - detected} missed, {len(false)} false"),
    ]
    return np.concatenate([_panel(content, caption, boxes, zoom) for content, caption in panels], axis=1)


def write_png(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB image atomically."""
    data = cv2.imencode(".png", image[..., ::-1])[1]
    with atomic(path) as temporary:
        temporary.write_bytes(data.tobytes())


def draw_curves(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Loss and, where there was validation, IoU and Pd over epochs, from the lines of ``metrics.jsonl``."""
    from matplotlib.figure import Figure  # a second to import, once at the end

    epochs = [row["epoch"] for row in rows]
    scored = [row for row in rows if row.get("iou") is not None]
    figure = Figure(figsize=(10, 4) if scored else (6, 4), layout="constrained")
    axes = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
    axes[0].plot(epochs, [row["loss"] for row in rows], color="#0072b2")
    axes[0].set(xlabel="epoch", ylabel="training loss")
    if scored:
        for key, label, colour in (("iou", "IoU", "#0072b2"), ("pd", "Pd", "#d55e00")):
            axes[1].plot(
                [row["epoch"] for row in scored], [row[key] for row in scored], label=label, color=colour
            )
        axes[1].set(xlabel="epoch", ylabel="validation", ylim=(0, 1))
        axes[1].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def stretch(image: Image) -> NDArray[np.uint8]:
    """Grey between the 0.1st and the 99.9th percentile, so that dim scenes show; targets may saturate."""
    grey = image.mean(-1) if image.ndim == 3 else image.astype(np.float32)
    low, high = np.percentile(grey, (0.1, 99.9))
    return np.clip(255 * (grey - low) / max(high - low, 1), 0, 255).astype(np.uint8)


def _grey(content: NDArray[Any]) -> NDArray[np.uint8]:
    return (255 * content.astype(np.float32)).astype(np.uint8)


def _panel(
    content: NDArray[np.uint8],
    caption: str,
    boxes: list[tuple[NDArray[np.int32], tuple[int, int, int]]],
    zoom: float,
) -> NDArray[np.uint8]:
    size = (round(content.shape[1] * zoom), round(content.shape[0] * zoom))
    panel = cv2.cvtColor(cv2.resize(content, size, interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB)
    for (left, top, width, height), colour in boxes:
        corner = (round((left - 3) * zoom), round((top - 3) * zoom))
        opposite = (round((left + width + 3) * zoom), round((top + height + 3) * zoom))
        cv2.rectangle(panel, corner, opposite, colour, 2, cv2.LINE_AA)
    bar = np.full((_BAR, size[0], 3), 32, np.uint8)
    cv2.putText(bar, caption, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235, 235, 235), 1, cv2.LINE_AA)
    framed = np.concatenate([bar, panel])
    framed[:, -2:] = 32
    return framed
