"""What tests of weights share."""

from __future__ import annotations

import pytest
import torch

from sam_spl.models.registry import build_model
from tests.conftest import TINY, golden_state


@pytest.fixture(scope="session")
def published() -> dict[str, torch.Tensor]:
    return golden_state("sam_spl_t")


@pytest.fixture
def tiny() -> torch.nn.Module:
    torch.manual_seed(3)
    return build_model("sam_spl_t", **TINY)


def same(a, b) -> bool:
    """Whether two state dicts are equal, names and types of numbers included."""
    return a.keys() == b.keys() and all(
        torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a
    )
