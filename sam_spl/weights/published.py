"""Parameter names: ours, the published codes', and SAM 2's.

One table of (ours, published) patterns serves both directions, so a round trip gives the names it began with.
Numbers pass through unchanged unless a pattern names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

# "#" stands for one number. The first pattern that a name begins with decides; the rest of the name is kept.
_TABLE = [
    ("encoder.stem.#.#.channel_attention", "image_encoder.inc0.#.#.ca"),
    ("encoder.stem.#.#.spatial_attention.conv", "image_encoder.inc0.#.#.sa.conv1"),
    ("encoder.stem", "image_encoder.inc0"),
    ("encoder.guides.#.channel_attention", "image_encoder.incs.#.0.ca"),
    ("encoder.guides.#.spatial_attention.conv", "image_encoder.incs.#.0.sa.conv1"),
    ("encoder.guides.#", "image_encoder.incs.#.0"),
    ("encoder.prompts.#", "image_encoder.trunk.promote_genertor.blocks.#.blk"),
    ("unused.patch_embed", "image_encoder.trunk.promote_genertor.patchEmded"),
    ("encoder.trunk.blocks.#.mlp.fc1", "image_encoder.trunk.blocks.#.mlp.layers.0"),
    ("encoder.trunk.blocks.#.mlp.fc2", "image_encoder.trunk.blocks.#.mlp.layers.1"),
    ("encoder.trunk", "image_encoder.trunk"),
    ("decoder.source.project_in", "deep_conv_block"),
    *(
        (f"decoder.source.self_prompt.downs.#.#.{ours}", f"image_pe_encoder.proj_blocks.#.#.{published}")
        for ours, published in (("0", "conv"), ("1", "bn"))
    ),
    ("decoder.source.self_prompt.downs", "image_pe_encoder.proj_blocks"),
    ("decoder.source.self_prompt.fuse", "image_pe_encoder.proj.0"),
    ("decoder.source.mask_token", "mask_token.weight"),
    *(
        (f"decoder.source.transformer.layers.#.{ours}", f"decoder_transformer.layers.#.{published}")
        for ours, published in (
            ("self_attention", "self_attn"),
            ("token_to_image", "cross_attn_token_to_image"),
            ("image_to_token", "cross_attn_image_to_token"),
            ("mlp.0", "mlp.layers.0"),
            ("mlp.2", "mlp.layers.1"),
        )
    ),
    ("decoder.source.transformer.final_attention", "decoder_transformer.final_attn_token_to_image"),
    ("decoder.source.transformer.final_norm", "decoder_transformer.norm_final_attn"),
    ("decoder.source.transformer", "decoder_transformer"),
    ("decoder.source.upscale", "output_upscaling"),
    *((f"decoder.source.token_mlp.{2 * i}", f"output_hypernetworks_mlp.layers.{i}") for i in range(3)),
    ("decoder.source.project_out", "proj_block"),
    ("decoder.ups.#.skip", "skip_convs.#"),
    ("decoder.ups.#.calibrate_up", "up_decoders.#.cross_att.se_input_att.fc.1"),
    ("decoder.ups.#.calibrate_skip", "up_decoders.#.cross_att.se_skip_att.fc.1"),
    *(
        (f"decoder.ups.#.fuse.{ours}", f"up_decoders.#.nConvs.{published}")
        for ours, published in (("0", "0.conv"), ("1", "0.norm"), ("3", "1.conv"), ("4", "1.norm"))
    ),
    ("decoder.heads", "reduction_convs"),
    # DATransNet, whose published numbers begin with 1.
    ("stem", "inc.0"),
    ("unused.encoder5", "encoder5.0"),
    *((f"encoders.{level}", f"encoder{level + 1}.0") for level in range(4)),
    *(
        (f"gradformers.{level}.{ours}", f"contras{level + 1}.{published}")
        for level in range(4)
        for ours, published in (
            ("queries", "query_convs"),
            ("keys", "key_convs"),
            ("values", "value_convs"),
            ("out", "out_conv"),
        )
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
        (f"{block}.{ours}", f"decoder{number}.{published}")
        for number, block in (
            (1, "decoders.0"),
            (2, "decoders.1"),
            (3, "decoders.2"),
            (4, "decoders.3"),
            (5, "unused.decoder5"),
        )
        for ours, published in (
            ("gate", "sattn.0"),
            ("fuse.0", "nConvs.0.conv"),
            ("fuse.1", "nConvs.0.norm"),
            ("fuse.3", "nConvs.1.conv"),
            ("fuse.4", "nConvs.1.norm"),
        )
    ),
    ("head.0.square", "outc.0.dwconv_hw"),
    ("head.0.wide", "outc.0.dwconv_w"),
    ("head.0.high", "outc.0.dwconv_h"),
    ("head", "outc"),
]

#: What published files hold and no network uses: kept in converted files under this prefix, ignored on loading.
UNUSED = "unused."


def to_published(state: Mapping[str, T]) -> dict[str, T]:
    """Rename a state dict of ours to the published names."""
    return {_rename(name, _TO_PUBLISHED): value for name, value in state.items()}


def from_published(state: Mapping[str, T]) -> dict[str, T]:
    """Rename a published (or SAM 2) state dict to our names."""
    return {_rename(name, _FROM_PUBLISHED): value for name, value in state.items()}


def _compile(pairs: list[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    rules = []
    for source, target in pairs:
        pattern = re.escape(source).replace(r"\#", r"(\d+)") + r"(?=\.|$)"
        groups = iter(range(1, target.count("#") + 1))
        rules.append((re.compile(pattern), re.sub("#", lambda _, g=groups: rf"\g<{next(g)}>", target)))
    return rules


def _rename(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in rules:
        if match := pattern.match(name):
            return match.expand(target) + name[match.end() :]
    return name


_TO_PUBLISHED = _compile(_TABLE)
_FROM_PUBLISHED = _compile([(published, ours) for ours, published in _TABLE])
