"""Losses over a network's list of logit maps."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.engine.config import LossConfig
from sam_spl.errors import ConfigError, nearest
from sam_spl.registry import Registry
from sam_spl.runtime import sum_of_processes


class SegmentationLoss(nn.Module):
    """Weighted binary cross entropy and soft IoU, summed over the maps.

    Args:
        bce: weight of the cross entropy, mean over pixels (SAM-SPL's recipe).
        iou: weight of the soft IoU, 1 - (sum(p y) + 1) / (sum p + sum y - sum(p y) + 1), p the probability.
        iou_over: ``batch`` sums over the whole batch, of all processes (DATransNet's recipe); ``image`` over
            each image, then takes the mean, so that an image with a small target counts as much as one with a
            large one.

    Shape:
        - logits: list of (B, 1, H, W), or coarser ones (:func:`mask_of_size`)
        - mask: (B, 1, H, W) in {0, 1}
        - returns: scalar, in float32 at least
    """

    def __init__(self, bce: float = 1.0, iou: float = 0.0, iou_over: str = "image") -> None:
        super().__init__()
        if iou_over not in ("image", "batch"):
            raise ConfigError(f"loss.iou_over: {iou_over!r} is neither image nor batch")
        for weight in (bce, iou):
            if not isinstance(weight, int | float) or not 0 <= weight < math.inf or bce == iou == 0:
                raise ConfigError(
                    f"loss.bce, loss.iou: {bce!r} and {iou!r} are not valid, give numbers >= 0, one above 0."
                )
        self.bce, self.iou, self.iou_over = bce, iou, iou_over

    def forward(self, logits: list[Tensor], mask: Tensor) -> Tensor:
        loss = mask.new_zeros(())
        for x in logits:
            x, y = _in_float32(x), mask_of_size(mask, x.shape[-2:])
            if self.bce:
                loss = loss + self.bce * F.binary_cross_entropy_with_logits(x, y)
            if self.iou:
                loss = loss + self.iou * soft_iou_loss(x.sigmoid(), y, over=self.iou_over)
        return loss


def soft_iou_loss(prob: Tensor, mask: Tensor, *, over: str) -> Tensor:
    """One minus the smoothed IoU of probabilities, of each ``image`` (mean) or of the ``batch``."""
    dims = (1, 2, 3) if over == "image" else (0, 1, 2, 3)
    intersection, both = (prob * mask).sum(dims), (prob + mask).sum(dims)
    if over == "batch":
        intersection, both = sum_of_processes(torch.stack([intersection, both]))
    union = both - intersection
    return (1 - (intersection + 1) / (union + 1)).mean()


def mask_of_size(mask: Tensor, size: Sequence[int]) -> Tensor:
    """The mask for a logit map of the image's size, or of a half, a quarter, ... of it, rounded up.

    A pixel of the coarser mask is target where one of its 2x2 pixels is, so no target is lost.

    Raises:
        ConfigError: a map of another size.
    """
    made = mask
    while made.shape[-2:] != tuple(size):
        if min(made.shape[-2:]) < 2:
            raise ConfigError(
                f"loss: a map of the network is {tuple(size)}, for images {tuple(mask.shape[-2:])}. "
                "Its sides have to be the image's, or halves, quarters, ... of them, rounded up."
            )
        made = F.max_pool2d(made, 2, ceil_mode=True)
    return made


def _in_float32(x: Tensor) -> Tensor:
    """Float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


#: Losses by name: called with ``loss.arguments``, each gives a function of (list of logit maps, mask).
LOSSES: Registry[Callable[..., Callable[[list[Tensor], Tensor], Tensor]]] = Registry(
    "loss.name", {"segmentation": SegmentationLoss}
)


def build_loss(config: LossConfig) -> Callable[[list[Tensor], Tensor], Tensor]:
    """The loss that a configuration asks for.

    Raises:
        ConfigError: an unknown loss, or arguments that it does not take.
    """
    loss = LOSSES[config.name]
    known = inspect.signature(loss).parameters
    for key in config.arguments:
        if key not in known:
            raise ConfigError(
                f"loss.{key}: {config.name} has no such argument. Nearest: {nearest(key, known)}"
            )
    try:
        inspect.signature(loss).bind(**config.arguments)
    except TypeError as error:
        raise ConfigError(f"loss: {config.name}: {error}. Give it as loss.arguments={{...}}.") from error
    return loss(**config.arguments)
