"""The weights of the published DATransNet, whose numbers begin with 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sam_spl.models.published import Published, State

_GRADFORMER = (
    ("queries", "query_convs"),
    ("keys", "key_convs"),
    ("values", "value_convs"),
    ("out", "out_conv"),
)
_GATED_UP = (
    ("gate", "sattn.0"),
    ("fuse.0", "nConvs.0.conv"),
    ("fuse.1", "nConvs.0.norm"),
    ("fuse.3", "nConvs.1.conv"),
    ("fuse.4", "nConvs.1.norm"),
)
_DECODERS = (
    *((f"decoders.{level}", f"decoder{level + 1}") for level in range(4)),
    ("unused.decoder5", "decoder5"),
)


def _describe(state: State) -> dict[str, Any]:
    """One variant. Its recipe: grey value / 255, images at their own size, no rule for shrinking them."""
    return {"model": "datransnet", "mean": [0.0], "std": [1.0], "image_size": None, "resize": "pillow"}


def _unused(state: State) -> dict[str, Tensor]:
    """A fifth level, which the published forward pass never calls."""
    from sam_spl.models.datransnet import GatedUp, Res  # which imports this file

    blocks = {"encoder5": Res(128, 128), "decoder5": GatedUp(128, 256, 128)}
    return {
        f"unused.{block}.{name}": torch.zeros_like(value)
        for block, module in blocks.items()
        for name, value in module.state_dict().items()
    }


DATRANSNET = Published(
    names=(
        ("stem", "inc.0"),
        ("unused.encoder5", "encoder5.0"),
        *((f"encoders.{level}", f"encoder{level + 1}.0") for level in range(4)),
        *(
            (f"gradformers.{level}.{ours}", f"contras{level + 1}.{published}")
            for level in range(4)
            for ours, published in _GRADFORMER
        ),
        ("gfem.non_local.back", "GFEM.sp.W"),
        ("gfem.non_local.phi", "GFEM.sp.phi.0"),
        ("gfem.non_local.g", "GFEM.sp.g.0"),
        ("gfem.non_local", "GFEM.sp"),
        ("gfem.gate", "GFEM.ca.fc1"),
        ("gfem.from_non_local", "GFEM.tra_conv_1"),
        ("gfem.from_pooled", "GFEM.tra_conv_2"),
        ("gfem.out", "GFEM.out_conv"),
        *(
            (f"{block}.{ours}", f"{number}.{published}")
            for block, number in _DECODERS
            for ours, published in _GATED_UP
        ),
        ("head.0.square", "outc.0.dwconv_hw"),
        ("head.0.wide", "outc.0.dwconv_w"),
        ("head.0.high", "outc.0.dwconv_h"),
        ("head", "outc"),
    ),
    marks=("inc.0.", "contras1.", "GFEM."),
    own_mark="gfem.gate.weight",
    describe=_describe,
    unstated={
        "train_size": "DATransNet's attention depends on its training size, which published weights do not "
        "state. Give train_size=256, or 512 for IRSTD-1k."
    },
    prefix="model.",
    unused=_unused,
    wrap=lambda named: {"epoch": 0, "state_dict": named, "total_loss": 0.0},
)
