"""Four training steps against the published code's, for every network that has such a golden."""

from __future__ import annotations

import json
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
    unused: tuple[str, ...],
) -> None:
    """Losses and parameter norms to 1e-9, gradient norms to 1e-8, and the same parameters without gradient.

    ``unused`` are prefixes of published names that nothing uses and our networks leave out.
    """
    golden = json.loads((GOLDEN / f"{case}_train.json").read_text())
    image = (
        torch.from_numpy(fill.image(f"{case}/train", (2, model.in_channels, 128, 128))).to(device).double()
    )
    mask = torch.from_numpy(fill.mask(f"{case}/train", (2, 1, 128, 128))).to(device).double()
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
    left_out = {name for name in golden["without_gradient"] if name.startswith(unused)}
    assert without | left_out == set(golden["without_gradient"])
    for name, norm in golden["grad_norms_first_step"].items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-8, abs=1e-12), name
    norms = {
        name: p.norm().item()
        for name, p in to_published(dict(model.named_parameters()), model.published).items()
    }
    for name, norm in golden["param_norms_after_4"].items():
        if name not in left_out:
            assert norms[name] == pytest.approx(norm, rel=1e-9), name
