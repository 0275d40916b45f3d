"""From a network's logits to probability maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam_spl.errors import NotFiniteError
from sam_spl.resize import resize_logits

Size = tuple[int, int]  # (H, W) in pixels


def check_finite(logits: Tensor, names: Sequence[str]) -> None:
    """Look at the answers themselves: the sigmoid would make an infinite one a sure one.

    Args:
        logits: (B, ...).
        names: of the B images.

    Raises:
        NotFiniteError: a value is infinite or not a number.
    """
    finite = logits.flatten(1).isfinite().all(1).tolist()
    for name in (name for name, fine in zip(names, finite, strict=True) if not fine):
        raise NotFiniteError(
            f"the network's answer to {name} is not finite. Use other weights, or precision=fp32 if these "
            "were trained so."
        )


def map_size(resolution: str, logits: Tensor, own: Size, input_size: int | None) -> Size:
    """(H, W) of the probability map that a protocol's ``resolution`` means."""
    if resolution == "own":
        return own
    if resolution == "input":
        return (input_size, input_size) if input_size else (logits.shape[-2], logits.shape[-1])
    return int(resolution), int(resolution)


def probability(logits: Tensor, size: Size) -> NDArray[np.float32]:
    """The probability map (H, W) of logits (1, h, w), interpolated as logits."""
    return probabilities(logits, [(0, size)])[0]


def probabilities(logits: Tensor, wanted: Sequence[tuple[int, Size]]) -> list[NDArray[np.float32]]:
    """Probability maps of a batch: one interpolation for each size, one copy from the device.

    Args:
        logits: (B, h, w).
        wanted: number in the batch and (H, W) of each map.
    """
    of_size: dict[Size, list[int]] = {}
    for place, (_, size) in enumerate(wanted):
        of_size.setdefault(size, []).append(place)
    made = []
    for size, places in of_size.items():
        numbers = [wanted[place][0] for place in places]
        chosen = logits if numbers == list(range(len(logits))) else logits[numbers]
        made.append(resize_logits(chosen, size).sigmoid().flatten())
    values = (torch.cat(made) if len(made) > 1 else made[0]).cpu().numpy()
    maps = dict.fromkeys(range(len(wanted)), values)  # in order; each is replaced by its part
    start = 0
    for size, places in of_size.items():
        for place in places:
            maps[place] = values[start : start + size[0] * size[1]].reshape(size)
            start += size[0] * size[1]
    return list(maps.values())
