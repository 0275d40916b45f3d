"""One update of the weights: forward, loss, backward, step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from sam_spl.data.normalise import Normalise
from sam_spl.engine.optim import Average
from sam_spl.runtime import World

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What an update gave.

    Attributes:
        loss: mean over the images of this process.
        norm: of the gradients, before clipping.
        bad: the loss or the gradients are not finite, in any process, so nothing was changed.
    """

    loss: float
    norm: float
    bad: bool


class Update:
    """Update a network by a group of batches, whose gradients add up to that of one large batch.

    Args:
        model: on its device.
        network: the same, or around it what adds up the gradients of all processes.
        loss: of (logits, mask), a mean over images.
        normalise: of the network, computed on its device.
        optimizer: of the parameters that train.
        average: of the weights, if there is one.
        clip: largest norm of the gradients; 0 for none.
        world: this process.
    """

    def __init__(
        self,
        model: nn.Module,
        network: nn.Module,
        loss: Callable[[list[Tensor], Tensor], Tensor],
        normalise: Normalise,
        optimizer: torch.optim.Optimizer,
        average: Average | None,
        clip: float,
        world: World,
    ) -> None:
        self.model, self.network, self.loss, self.normalise = model, network, loss, normalise
        self.optimizer, self.average, self.clip, self.world = optimizer, average, clip, world
        self.scaler = GradScaler(world.device.type, enabled=world.precision is torch.float16)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._kept = _Buffers(model)

    def __call__(self, batches: Sequence[Batch]) -> Outcome:
        """Update the weights, unless a loss or the gradients are not finite."""
        self._kept.keep()
        self.optimizer.zero_grad(set_to_none=True)
        images = sum(len(batch["name"]) for batch in batches)
        losses = []
        for number, batch in enumerate(batches, 1):
            share = len(batch["name"]) / images
            last = number == len(batches)
            with nullcontext() if last else self._alone():  # processes add up their gradients once
                losses.append(self._backward(batch, share))
        norm = self._clip_gradient()
        # Read before the step, which cannot be undone. A GPU has the step's work queued by then.
        loss, length = torch.stack([torch.stack(losses).sum(), norm.to(losses[0].dtype)]).tolist()
        # In float16 the scaler leaves a step out whose gradients overflow, and lowers its scale: below 1 it
        # is not the scale that makes them.
        scaled = self.scaler.is_enabled()
        finite = math.isfinite(loss) and (math.isfinite(length) or (scaled and self.scaler.get_scale() >= 1))
        bad = self.world.any_of(not finite)
        if bad:
            self._kept.restore()
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self.scaler.step(self.optimizer)
            if self.average is not None:
                self.average.update(self.model)
        self.scaler.update()
        return Outcome(loss, length, bad)

    def _backward(self, batch: Batch, share: float) -> Tensor:
        """Add a batch's gradients, weighted by its share of the images; its share of the loss."""
        device = self.world.device
        image = torch.cat([self.normalise.batch(x.to(device, non_blocking=True)) for x in batch["image"]])
        mask = batch["mask"].to(device, non_blocking=True).float()
        with self.world.autocast():
            logits = self.network(image)
        loss = self.loss(logits, mask) * share
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _alone(self) -> Any:
        return self.network.no_sync() if isinstance(self.network, DistributedDataParallel) else nullcontext()

    def _clip_gradient(self) -> Tensor:
        """Clip all gradients to ``clip``; their norm before, a scalar, equal in all processes."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        if self.clip:
            nn.utils.clip_grads_with_norm_(self.trained, self.clip, norm)
        return norm


class _Buffers:
    """A network's buffers before a step: a forward pass that overflows spoils BatchNorm's statistics."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._copies: dict[str, Tensor] = {}

    def keep(self) -> None:
        now = dict(self._model.named_buffers())
        if not self._copies:
            self._copies = {name: torch.empty_like(value) for name, value in now.items()}
        self._copy(self._copies, now)

    def restore(self) -> None:
        self._copy(dict(self._model.named_buffers()), self._copies)

    @torch.no_grad()
    def _copy(self, into: Mapping[str, Tensor], of: Mapping[str, Tensor]) -> None:
        if into:
            torch._foreach_copy_(list(into.values()), [of[name] for name in into])
