"""Four training steps against the published code's, for every network that has such a golden."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sam_spl.engine.optim import build_optimizer
from sam_spl.weights.published import to_published
from tests.conftest import GOLDEN, fill


def assert_trains_as_published(
    model: torch.nn.Module,
    case: str,
    *,
    device: str,
    loss: torch.nn.Module,
    optimizer: Any,
    size: int = 128,
    phase: str | None = None,
    unused: tuple[str, ...] = (),
    noisy: tuple[str, ...] = (),
) -> None:
    """Losses and parameter norms to 1e-9, gradient norms to 1e-8, and the same parameters without gradient.

    Args:
        model: with the golden weights.
        case: of ``tests/golden/CASE_train.json``.
        device: to train on.
        loss: of (logits, mask).
        optimizer: its configuration.
        size: side of the images in pixels.
        phase: a part of the file with a training of its own.
        unused: prefixes of published names that nothing uses and our networks leave out.
        noisy: ends of published names whose gradients are rounding noise and whose steps are not: their
            norms to 1e-6.
    """
    golden = json.loads((GOLDEN / f"{case}_train.json").read_text())
    golden = golden[phase] if phase else golden
    image = fill.image(f"{case}/train", (2, model.in_channels, size, size))
    image = torch.from_numpy(image).to(device).double()
    mask = torch.from_numpy(fill.mask(f"{case}/train", (2, 1, size, size))).to(device).double()
    model.to(device).double().train()
    steps = build_optimizer(model, optimizer)

    losses = []
    for step in range(4):
        value = loss(model(image), mask)
        steps.zero_grad()
        value.backward()
        losses.append(value.item())
        if step == 0:
            gradients = to_published({name: p.grad for name, p in model.named_parameters()}, model.published)
        steps.step()

    assert losses == pytest.approx(golden["losses"], rel=1e-9)
    without = {name for name, gradient in gradients.items() if gradient is None}
    left_out = {name for name in golden["without_gradient"] if name.startswith(unused)} if unused else set()
    assert without | left_out == set(golden["without_gradient"])
    for name, norm in golden["grad_norms_first_step"].items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-8, abs=1e-12), name
    norms = {
        name: p.norm().item()
        for name, p in to_published(dict(model.named_parameters()), model.published).items()
    }
    for name, norm in golden["param_norms_after_4"].items():
        if name not in left_out:
            rel = 1e-6 if name.endswith(noisy) else 1e-9
            assert norms[name] == pytest.approx(norm, rel=rel), name


def published_steps(
    model: torch.nn.Module,
    case: str,
    shape: tuple[int, int],
    *,
    device: str,
    loss: torch.nn.Module,
    optimizer: Any,
) -> Iterator[tuple[float, dict[str, float], dict[str, float]]]:
    """Train on a golden case step by step, in float64.

    Args:
        model: with the golden weights.
        case: of ``tests/golden/CASE_train.json``.
        shape: number of images, and their side in pixels.
        device: to train on.
        loss: of (logits, mask).
        optimizer: its configuration.

    Yields:
        The loss before each step, the norms of its gradients, and the norms of parameters and buffers after
        it, under published names.
    """
    count, size = shape
    image = torch.from_numpy(fill.image(f"{case}/train", (count, model.in_channels, size, size)))
    mask = torch.from_numpy(fill.mask(f"{case}/train", (count, 1, size, size)))
    image, mask = image.to(device).double(), mask.to(device).double()
    model.to(device).double().train()
    steps = build_optimizer(model, optimizer)

    def norms(tensors: dict[str, torch.Tensor]) -> dict[str, float]:
        return {name: x.double().norm().item() for name, x in to_published(tensors, model.published).items()}

    for _ in range(4):
        value = loss(model(image), mask)
        steps.zero_grad()
        value.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        steps.step()
        yield value.item(), norms(gradients), norms(model.state_dict())
