"""The weights of the published SCTransNet, whose levels and parts are numbered from 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sam_spl.models.published import BASICIRSTD, Published, State

_WIDTHS = (32, 64, 128, 256)
_BLOCKS = 4
_LEVELS = tuple((level, level + 1) for level in range(4))
_LAYER = "mtc.encoder.layer.#"
_ATTENTION = f"{_LAYER}.channel_attn"
_FEED_FORWARD = (
    ("expand", "project_in"),
    ("near", "dwconv3x3"),
    ("far", "dwconv5x5"),
    ("project", "project_out"),
    ("gate", "eca.conv.0"),
)
_GATED_UP = (
    ("of_skip", "coatt.mlp_x.1"),
    ("of_deep", "coatt.mlp_g.1"),
    ("fuse.0", "nConvs.0.conv"),
    ("fuse.1", "nConvs.0.norm"),
    ("fuse.3", "nConvs.1.conv"),
    ("fuse.4", "nConvs.1.norm"),
)


def _transformer() -> list[tuple[str, str]]:
    """Names below ``transformer``."""
    names = [
        ("blocks.#.norm", f"{_LAYER}.attn_norm.body"),
        ("blocks.#.key.0", f"{_ATTENTION}.mheadk"),
        ("blocks.#.key.1", f"{_ATTENTION}.k"),
        ("blocks.#.value.0", f"{_ATTENTION}.mheadv"),
        ("blocks.#.value.1", f"{_ATTENTION}.v"),
    ]
    for k, number in _LEVELS:
        names += [
            (f"tokens.{k}", f"mtc.embeddings_{number}.patch_embeddings"),
            (f"back.{k}.norm", f"mtc.encoder.encoder_norm{number}.body"),
            (f"back.{k}.conv", f"mtc.reconstruct_{number}.conv"),
            (f"back.{k}.bn", f"mtc.reconstruct_{number}.norm"),
            (f"blocks.#.query_norms.{k}", f"{_LAYER}.attn_norm{number}.body"),
            (f"blocks.#.queries.{k}.0", f"{_ATTENTION}.mhead{number}"),
            (f"blocks.#.queries.{k}.1", f"{_ATTENTION}.q{number}"),
            (f"blocks.#.out.{k}", f"{_ATTENTION}.project_out{number}"),
            (f"blocks.#.feed_norms.{k}", f"{_LAYER}.ffn_norm{number}.body"),
            *((f"blocks.#.feeds.{k}.{ours}", f"{_LAYER}.ffn{number}.{of}") for ours, of in _FEED_FORWARD),
        ]
    return names


def _describe(state: State) -> dict[str, Any]:
    """One variant, images at their own size; the normalisation is of the training set."""
    return {"model": "sctransnet", "image_size": None, "resize": "pillow"}


def _unused(state: State) -> dict[str, Tensor]:
    """Embeddings of positions for 256x256 pixels and a number for each query and key, which nothing uses."""
    positions = {f"unused.positions.{k}": torch.zeros(1, 256, width) for k, width in enumerate(_WIDTHS)}
    numbers = {
        f"unused.blocks.{block}.q{query}_attn{key}": torch.zeros(1)
        for block in range(_BLOCKS)
        for query in range(1, 5)
        for key in range(1, 5)
    }
    return {**positions, **numbers}


SCTRANSNET = Published(
    names=(
        ("stem", "inc.0"),
        *((f"encoders.{k}", f"down_encoder{number}.0") for k, number in _LEVELS),
        *((f"transformer.{ours}", theirs) for ours, theirs in _transformer()),
        *(
            (f"decoders.{k}.{ours}", f"up_decoder{number}.{theirs}")
            for k, number in _LEVELS
            for ours, theirs in _GATED_UP
        ),
        ("head", "outc"),
        *((f"sides.{k}", f"gt_conv{k + 2}.0") for k in range(4)),
        ("fuse", "outconv"),
        *((f"unused.positions.{k}", f"mtc.embeddings_{number}.position_embeddings") for k, number in _LEVELS),
        ("unused.blocks.#", _ATTENTION),  # what is left of it
    ),
    marks=("inc.0.", "mtc.", "up_decoder1."),
    own_mark="transformer.back.0.norm.weight",
    describe=_describe,
    normalisation=BASICIRSTD,
    prefix="model.",
    unused=_unused,
    wrap=lambda named: {"epoch": 0, "state_dict": named, "total_loss": 0.0},
)
