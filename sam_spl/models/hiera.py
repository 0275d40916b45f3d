"""SAM 2's Hiera image encoder without its neck: the trunk that guides SAM-SPL.

The modules, and so the parameters, are timm's ``HieraDet``. The forward pass is ours: SAM-SPL steps through
the trunk block by block, and two rewritings that change no result save a good part of its work.
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.models.hieradet_sam2 import HieraDet, MultiScaleBlock
from torch import Tensor

#: Where a SAM 2 checkpoint has this trunk, and (ours, SAM 2's) beginnings of names that differ.
SAM2_PREFIX = "image_encoder.trunk."
SAM2_NAMES = (("blocks.#.mlp.fc1", "blocks.#.mlp.layers.0"), ("blocks.#.mlp.fc2", "blocks.#.mlp.layers.1"))


class Hiera(HieraDet):
    """Token pyramid of SAM 2 (Ravi et al., 2024, arXiv 2408.00714), run one block at a time.

    Weights start as truncated normals of 0.02, residual branches scaled down with depth (timm's own scheme):
    they are meant to be overwritten by SAM 2's, and it is what trains when there are none.

    Args:
        embed_dim: channels of the first stage; they double from stage to stage.
        num_heads: attention heads of the first stage; they double as well.
        stages: blocks of each stage.
        window_spec: attention window of each stage, in tokens.
        global_att_blocks: blocks, counted over the whole trunk, that attend globally.
        pos_size: (H, W) of the learned global position grid.

    Shape:
        - image: (B, 3, H, W), H and W multiples of 32
        - tokens: (B, H / 4, W / 4, embed_dim) first, the grid halved at each new stage
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        stages: tuple[int, ...],
        window_spec: tuple[int, ...],
        global_att_blocks: tuple[int, ...],
        pos_size: tuple[int, int] = (7, 7),
    ) -> None:
        super().__init__(
            num_classes=0,
            embed_dim=embed_dim,
            num_heads=num_heads,
            stages=tuple(stages),
            window_spec=tuple(window_spec),
            global_att_blocks=tuple(global_att_blocks),
            global_pos_size=tuple(pos_size),
            q_pool=len(stages) - 1,
        )
        del self.head  # classification only

    @property
    def stage_dims(self) -> list[int]:
        """Channels at the end of each stage."""
        return [self.blocks[end].dim_out for end in self.stage_ends]

    def embed(self, image: Tensor) -> Tensor:
        """Patch embedding plus windowed position embedding, the tokens that enter block 0."""
        return self._pos_embed(self.patch_embed(image))

    def forward_block(self, index: int, tokens: Tensor) -> Tensor:
        """Run block ``index``; (B, h, w, C) to (B, h', w', C')."""
        return forward_block(self.blocks[index], tokens)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Tokens at the end of every stage, as SAM 2's own trunk returns them (but NHWC)."""
        tokens = self.embed(image)
        ends = []
        for index in range(len(self.blocks)):
            tokens = self.forward_block(index, tokens)
            if index in self.stage_ends:
                ends.append(tokens)
        return ends


def forward_block(block: MultiScaleBlock, tokens: Tensor) -> Tensor:
    """One Hiera block, equal to ``block(tokens)`` for less work.

    Windows are padded with zeros before the qkv projection in SAM 2, so padding attends through the
    projection's bias. Projecting first and padding with that bias is the same. So is cropping before the output
    projection. At 256 x 256 a stage of 16 x 16 tokens in windows of 14 has 784 padded positions for 256 real ones.

    Shape:
        - tokens: (B, h, w, C)
        - returns: (B, h', w', C'); halved and doubled in the first block of a new stage
    """
    x = block.norm1(tokens)
    shortcut = tokens
    if block.dim != block.dim_out:
        shortcut = block.proj(x)
        if block.pool is not None:
            shortcut = _pool(shortcut, block.pool)
    attended = _attend(block, block.attn.qkv(x))[:, : shortcut.shape[1], : shortcut.shape[2]]
    x = shortcut + block.attn.proj(attended)
    return x + block.mlp(block.norm2(x))


def _attend(block: MultiScaleBlock, qkv: Tensor) -> Tensor:
    """Windowed (or global) multi-head attention over projected tokens; the window padding is not cropped."""
    batch, height, width, _ = qkv.shape
    window_h, window_w = block.window_size if block.is_windowed else (height, width)
    pad_h, pad_w = -height % window_h, -width % window_w
    qkv = pad_with(qkv, block.attn.qkv.bias, pad_h, pad_w)
    rows, columns = (height + pad_h) // window_h, (width + pad_w) // window_w

    # (B, rows, window_h, columns, window_w, 3C) -> (B * windows, window_h, window_w, 3C)
    qkv = qkv.reshape(batch, rows, window_h, columns, window_w, -1).transpose(2, 3)
    qkv = qkv.reshape(batch * rows * columns, window_h, window_w, -1)
    q, k, v = qkv.chunk(3, dim=-1)
    if block.attn.q_pool is not None:
        q = _pool(q, block.attn.q_pool)
    window_h, window_w = q.shape[1:3]

    heads = block.attn.num_heads
    q, k, v = (part.flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    x = F.scaled_dot_product_attention(q, k, v)  # (B * windows, heads, positions, C / heads)

    x = x.transpose(1, 2).reshape(batch, rows, columns, window_h, window_w, -1).transpose(2, 3)
    return x.reshape(batch, rows * window_h, columns * window_w, -1)


def pad_with(tokens: Tensor, value: Tensor, rows: int, columns: int) -> Tensor:
    """Append ``rows`` below and ``columns`` at the right of (B, h, w, C), filled with ``value`` (C).

    The tokens themselves keep every bit, in half precision too.
    """
    if not rows and not columns:
        return tokens
    height, width = tokens.shape[1:3]
    padded = F.pad(tokens, (0, 0, 0, columns, 0, rows))
    padded[:, height:] = value.to(padded.dtype)
    padded[:, :height, width:] = value.to(padded.dtype)
    return padded


def _pool(tokens: Tensor, pool) -> Tensor:
    return pool(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
