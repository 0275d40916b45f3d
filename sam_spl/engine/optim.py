"""Optimizers by name, the learning rate over time, and the moving average of weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from sam_spl.engine.config import OptimizerConfig
from sam_spl.errors import ConfigError


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Any optimizer that timm knows by name, over the parameters that train.

    Args:
        model: parameters under ``encoder.trunk`` get ``lr * trunk_lr_scale``.
        config: name, learning rate, weight decay and further arguments.

    Raises:
        ConfigError: unknown optimizer, or arguments that it does not take.
    """
    from timm.optim import create_optimizer_v2  # seconds to import, and only training needs it

    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = config.trunk_lr_scale if name.startswith("encoder.trunk.") else 1.0
            groups.setdefault(scale, []).append(parameter)
    parameters = [
        {"params": group, "lr": config.lr * scale, "lr_scale": scale} for scale, group in groups.items()
    ]
    arguments = {key: tuple(value) if key == "betas" else value for key, value in config.args.items()}
    try:
        return create_optimizer_v2(
            parameters, opt=config.name, lr=config.lr, weight_decay=config.weight_decay, **arguments
        )
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise ConfigError(
            f"optimizer: {config.name} with {arguments} cannot be built ({error}). optimizer.name takes "
            "timm's names (adan, adam, adamw, sgd, ...), optimizer.args the arguments of that optimizer."
        ) from error


def learning_rate(epoch: float, epochs: int, config: OptimizerConfig) -> float:
    """The learning rate at a moment of training, in epochs from the start.

    Linear from 0 over ``warmup_epochs``, then half a cosine from ``lr`` to ``eta_min`` at the end of the last
    epoch, or (``multistep``) ``lr`` times ``gamma`` for every milestone passed.

    Args:
        epoch: with ``per_step`` the middle of a step; without, the start of an epoch, whose rate holds for
            all of it. At the start of the first epoch a warm-up would give zero, so it takes the middle:
            the mean of what ``per_step`` gives.
        epochs: of the whole training.
        config: the schedule.
    """
    warmup = config.warmup_epochs
    if epoch < warmup:
        reached = epoch if config.per_step else min(epoch + 0.5, warmup)
        return config.lr * reached / warmup
    if config.schedule == "multistep":
        return config.lr * config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    done = (epoch - warmup) / max(epochs - warmup, 1e-9)
    return config.eta_min + (config.lr - config.eta_min) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group its share of ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


class Average:
    """An exponential moving average of weights and buffers, with a warm-up.

    Update n uses a decay of at most (1 + n) / (10 + n), so the random start is soon forgotten; the first
    update copies. What is frozen is not averaged: the two networks share it.

    Attributes:
        module: the averaged network.
        updates: how many there were.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        parameters = dict(model.named_parameters())
        frozen = {id(value): value for value in parameters.values() if not value.requires_grad}
        self.module = copy.deepcopy(model, frozen).eval()
        self.updates = 0
        self._decay = decay
        own = dict(self.module.named_parameters())
        self._weights = [(own[name], value) for name, value in parameters.items() if value.requires_grad]
        saved = model.state_dict().keys()
        self._buffers = [name for name, _ in model.named_buffers() if name in saved]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the network's weights as they are now."""
        warm = 1 - 1 / (1 + (self.updates + 1) / 9)  # (1 + n) / (10 + n), rounded as timm has it
        decay = min(self._decay, warm) if self.updates else 0.0
        # A module may put a new tensor in a buffer's place.
        buffers = [(self.module.get_buffer(name), model.get_buffer(name)) for name in self._buffers]
        averaged = self._weights + [pair for pair in buffers if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in averaged], [value for _, value in averaged], 1 - decay)
        for own, value in buffers:
            if not own.is_floating_point():
                own.copy_(value)
        self.updates += 1
