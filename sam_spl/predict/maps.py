"""From a network's logits to probability maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sam_spl.errors import InputError
from sam_spl.resize import resize_logits


def check_finite(logits: Tensor, names: Sequence[str]) -> None:
    """Look at the answers themselves: the sigmoid would make an infinite one a sure one.

    Args:
        logits: (B, ...).
        names: of the B images.

    Raises:
        InputError: a value is infinite or not a number.
    """
    finite = logits.flatten(1).isfinite().all(1).tolist()
    for name in (name for name, fine in zip(names, finite, strict=True) if not fine):
        raise InputError(
            f"the network's answer to {name} is not finite. Use other weights, or precision=fp32 if these "
            "were trained so."
        )


def map_size(
    resolution: str, logits: Tensor, own: tuple[int, int], input_size: int | None
) -> tuple[int, int]:
    """(H, W) of the probability map that a protocol's ``resolution`` means."""
    if resolution == "own":
        return own
    if resolution == "input":
        return (input_size, input_size) if input_size else (logits.shape[-2], logits.shape[-1])
    return int(resolution), int(resolution)


def probability(logits: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """The probability map (H, W) of logits (1, h, w), interpolated as logits."""
    return resize_logits(logits, size)[0].sigmoid().cpu().numpy()
