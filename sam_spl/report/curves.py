"""Training curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam_spl.files import atomic


def draw_curves(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Loss and, where there was validation, IoU and Pd over epochs, from the lines of ``metrics.jsonl``."""
    from matplotlib.figure import Figure  # a second to import, once at the end

    epochs = [row["epoch"] for row in rows]
    scored = [row for row in rows if row.get("iou") is not None]
    figure = Figure(figsize=(10, 4) if scored else (6, 4), layout="constrained")
    axes = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
    axes[0].plot(epochs, [row["loss"] for row in rows], marker=_marker(rows), color="#0072b2")
    axes[0].set(xlabel="epoch", ylabel="training loss")
    if scored:
        for key, label, colour in (("iou", "IoU", "#0072b2"), ("pd", "Pd", "#d55e00")):
            values = [row[key] for row in scored]
            places = [row["epoch"] for row in scored]
            axes[1].plot(places, values, marker=_marker(scored), label=label, color=colour)
        axes[1].set(xlabel="epoch", ylabel="validation", ylim=(0, 1))
        axes[1].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _marker(rows: Sequence[dict[str, Any]]) -> str:
    """A single point has no line that shows it."""
    return "o" if len(rows) == 1 else ""
