"""The weights of the published SAM-SPL."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from sam_spl.config import config_folder, group_files
from sam_spl.models.hiera import SAM2_NAMES
from sam_spl.models.published import Published, State
from sam_spl.models.registry import model_file

_PATCH_EMBED = "encoder.trunk.patch_embed.proj"

_ENCODER = (
    ("encoder.stem.#.#.channel_attention", "image_encoder.inc0.#.#.ca"),
    ("encoder.stem.#.#.spatial_attention.conv", "image_encoder.inc0.#.#.sa.conv1"),
    ("encoder.stem", "image_encoder.inc0"),
    ("encoder.guides.#.channel_attention", "image_encoder.incs.#.0.ca"),
    ("encoder.guides.#.spatial_attention.conv", "image_encoder.incs.#.0.sa.conv1"),
    ("encoder.guides.#", "image_encoder.incs.#.0"),
    ("encoder.prompts.#", "image_encoder.trunk.promote_genertor.blocks.#.blk"),
    ("unused.patch_embed", "image_encoder.trunk.promote_genertor.patchEmded"),
    *((f"encoder.trunk.{ours}", f"image_encoder.trunk.{sam2}") for ours, sam2 in SAM2_NAMES),
    ("encoder.trunk", "image_encoder.trunk"),
)
_SOURCE = (
    ("project_in", "deep_conv_block"),
    ("self_prompt.downs.#.#.0", "image_pe_encoder.proj_blocks.#.#.conv"),
    ("self_prompt.downs.#.#.1", "image_pe_encoder.proj_blocks.#.#.bn"),
    ("self_prompt.downs", "image_pe_encoder.proj_blocks"),
    ("self_prompt.fuse", "image_pe_encoder.proj.0"),
    ("mask_token", "mask_token.weight"),
    ("transformer.layers.#.self_attention", "decoder_transformer.layers.#.self_attn"),
    ("transformer.layers.#.token_to_image", "decoder_transformer.layers.#.cross_attn_token_to_image"),
    ("transformer.layers.#.image_to_token", "decoder_transformer.layers.#.cross_attn_image_to_token"),
    ("transformer.layers.#.mlp.0", "decoder_transformer.layers.#.mlp.layers.0"),
    ("transformer.layers.#.mlp.2", "decoder_transformer.layers.#.mlp.layers.1"),
    ("transformer.final_attention", "decoder_transformer.final_attn_token_to_image"),
    ("transformer.final_norm", "decoder_transformer.norm_final_attn"),
    ("transformer", "decoder_transformer"),
    ("upscale", "output_upscaling"),
    ("token_mlp.0", "output_hypernetworks_mlp.layers.0"),
    ("token_mlp.2", "output_hypernetworks_mlp.layers.1"),
    ("token_mlp.4", "output_hypernetworks_mlp.layers.2"),
    ("project_out", "proj_block"),
)
_UPS = (
    ("decoder.ups.#.skip", "skip_convs.#"),
    ("decoder.ups.#.calibrate_up", "up_decoders.#.cross_att.se_input_att.fc.1"),
    ("decoder.ups.#.calibrate_skip", "up_decoders.#.cross_att.se_skip_att.fc.1"),
    ("decoder.ups.#.fuse.0", "up_decoders.#.nConvs.0.conv"),
    ("decoder.ups.#.fuse.1", "up_decoders.#.nConvs.0.norm"),
    ("decoder.ups.#.fuse.3", "up_decoders.#.nConvs.1.conv"),
    ("decoder.ups.#.fuse.4", "up_decoders.#.nConvs.1.norm"),
    ("decoder.heads", "reduction_convs"),
)


def _describe(state: State) -> dict[str, Any] | None:
    """The variant, by width and depth of its trunk. The normalisation is the data set's, and not stated."""
    width = state.get(f"{_PATCH_EMBED}.weight")
    blocks = {match[1] for name in state if (match := re.match(r"encoder\.trunk\.blocks\.(\d+)\.", name))}
    if width is None:
        return None
    for name, path in group_files("model").items():
        if not path.is_relative_to(config_folder()):
            continue  # a file of the user's, which may be faulty
        file = model_file(name)
        if file["network"] == "sam_spl.models.sam_spl:SAMSPL":
            trunk = file["arguments"]
            if (trunk["embed_dim"], sum(trunk["stages"])) == (width.shape[:1].numel(), len(blocks)):
                return {"model": name}
    return None


def _unused(state: State) -> dict[str, Tensor]:
    """A second patch embedding, which the published forward pass never calls."""
    return {
        f"unused.patch_embed.0.{kind}": torch.zeros_like(state[f"{_PATCH_EMBED}.{kind}"])
        for kind in ("weight", "bias")
    }


SAM_SPL = Published(
    names=(*_ENCODER, *((f"decoder.source.{ours}", published) for ours, published in _SOURCE), *_UPS),
    marks=("image_encoder.inc0.",),
    own_mark=f"{_PATCH_EMBED}.weight",
    describe=_describe,
    # One head in the first stage of every variant, Hiera-L too.
    arguments={"num_heads": 1, "freeze_trunk": True},
    unused=_unused,
)
