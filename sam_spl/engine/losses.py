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

_LEAST = 1e-12  # of a sum of probabilities that something is divided by


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


class SLS(nn.Module):
    """Scale- and location-sensitive loss (Liu et al., CVPR 2024, arXiv 2403.19366), the mean over the maps.

    As MSHNet's published code has it, not the paper: the location is the first moments of the
    probabilities, which no mass divides, so length also compares masses.

    Args:
        warm_epochs: how many of the first epochs take the IoU alone; published as "epoch > 5", which is 6.
            A loss that is told no epoch is past them.

    Shape:
        - logits: list of (B, 1, H, W), or coarser ones (:func:`mask_of_size`)
        - mask: (B, 1, H, W) in [0, 1]
        - returns: scalar, in float32 at least: moments of a small target are lost in half precision
    """

    def __init__(self, warm_epochs: int = 6) -> None:
        super().__init__()
        if not isinstance(warm_epochs, int) or warm_epochs < 0:
            raise ConfigError(
                f"loss.warm_epochs: {warm_epochs!r} is not valid, give a number of epochs from 0 up."
            )
        self.warm_epochs, self.warm = warm_epochs, False

    def set_epoch(self, epoch: int) -> None:
        """Begin or end the warm-up; ``epoch`` counts from 0."""
        self.warm = epoch < self.warm_epochs

    def forward(self, logits: list[Tensor], mask: Tensor) -> Tensor:
        losses = []
        for x in logits:
            prob, y = _in_float32(x).sigmoid(), mask_of_size(mask, x.shape[-2:])
            if self.warm:
                losses.append(1 - _iou(prob, y)[0].mean())
            else:
                losses.append(1 - _scaled_iou(prob, y).mean() + location_loss(prob, y).mean())
        return torch.stack(losses).mean()


def _iou(prob: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """IoU of each image's probabilities, and their sum and the mask's: (B,). Both empty: 0."""
    p, t = prob.sum((1, 2, 3)), mask.sum((1, 2, 3))
    intersection = (prob * mask).sum((1, 2, 3))
    return intersection / (p + t - intersection).clamp_min(_LEAST), p, t


def _scaled_iou(prob: Tensor, mask: Tensor) -> Tensor:
    """IoU of each image times how alike the two sizes are, in (0, 1]: (B,)."""
    iou, p, t = _iou(prob, mask)
    spread = ((p - t) / 2).square()
    alike = (torch.minimum(p, t) + spread) / (torch.maximum(p, t) + spread).clamp_min(_LEAST)
    return alike * iou


def location_loss(prob: Tensor, mask: Tensor) -> Tensor:
    """SLS's term of location of each image, (B,): by length and angle of the vectors of first moments."""
    (px, py), (tx, ty) = _moments(prob), _moments(mask)
    turned = (py / (px + 1e-8)).arctan() - (ty / (tx + 1e-8)).arctan()
    p, t = (px.square() + py.square() + 1e-8).sqrt(), (tx.square() + ty.square() + 1e-8).sqrt()
    length = torch.minimum(p, t) / (torch.maximum(p, t) + 1e-8)
    return 1 - length + 4 / math.pi**2 * turned.square()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means over all pixels of x times column / width and x times row / height: (B,) each."""
    height, width = x.shape[-2:]
    columns = torch.arange(width, device=x.device, dtype=x.dtype) / width
    rows = torch.arange(height, device=x.device, dtype=x.dtype) / height
    pixels = height * width
    return (x.sum((1, 2)) * columns).sum(1) / pixels, (x.sum((1, 3)) * rows).sum(1) / pixels


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
    "loss.name", {"segmentation": SegmentationLoss, "sls": SLS}
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
