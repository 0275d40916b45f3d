"""SAM 2's Hiera image encoder without its neck: the trunk that guides SAM-SPL.

SAM-SPL steps through the trunk block by block. Two changes of order give the same result for less work:
windows are padded after the projection to queries, keys and values, and cropped before the output projection.
Parameters have the names of timm's ``HieraDet``, which are SAM 2's but for the MLPs.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.errors import ConfigError
from sam_spl.foreign import brief

#: Where a SAM 2 checkpoint has this trunk, and (ours, SAM 2's) beginnings of names that differ.
SAM2_PREFIX = "image_encoder.trunk."
SAM2_NAMES = (("blocks.#.mlp.fc1", "blocks.#.mlp.layers.0"), ("blocks.#.mlp.fc2", "blocks.#.mlp.layers.1"))


class Hiera(nn.Module):
    """Token pyramid of SAM 2 (Ravi et al., 2024, arXiv 2408.00714), run one block at a time.

    Weights start as truncated normals of 0.02, residual branches scaled down with depth, as timm's do: SAM
    2's are meant to replace them, and training starts from them where there are none.

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
        super().__init__()
        _check(embed_dim, num_heads, stages, window_spec, global_att_blocks, pos_size)
        self.stage_ends = [sum(stages[: stage + 1]) - 1 for stage in range(len(stages))]
        #: Channels at the end of each stage.
        self.stage_dims = [embed_dim * 2**stage for stage in range(len(stages))]

        self.patch_embed = nn.Sequential(
            OrderedDict(proj=nn.Conv2d(3, embed_dim, kernel_size=7, stride=4, padding=3))
        )
        self.blocks = nn.ModuleList()
        for stage, (dim, depth) in enumerate(zip(self.stage_dims, stages, strict=True)):
            for first in [True] + [False] * (depth - 1):
                # The first block of a stage halves the grid, and attends in the windows of the stage before.
                enters = first and stage > 0
                window = None if len(self.blocks) in global_att_blocks else window_spec[stage - enters]
                self.blocks.append(Block(dim // 2 if enters else dim, dim, num_heads * 2**stage, window))
        self.pos_embed = nn.Parameter(torch.zeros(1, embed_dim, *pos_size))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, embed_dim, window_spec[0], window_spec[0]))
        self._init_weights()

    def _init_weights(self) -> None:
        for position in (self.pos_embed, self.pos_embed_window):
            nn.init.trunc_normal_(position, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.constant_(module.bias, 0.02)
        with torch.no_grad():
            for depth, block in enumerate(self.blocks, 1):
                for last in ("attn.proj.weight", "mlp.fc2.weight"):
                    block.get_parameter(last).div_(math.sqrt(2 * depth))

    def embed(self, image: Tensor) -> Tensor:
        """Patch embedding plus position embedding, the tokens that enter block 0.

        Positions are a coarse grid, resized to the image's, plus one window repeated over it.
        """
        tokens = self.patch_embed(image)  # (B, C, h, w)
        height, width = tokens.shape[-2:]
        side = self.pos_embed_window.shape[-1]
        grid = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        window = self.pos_embed_window.tile((-(-height // side), -(-width // side)))[..., :height, :width]
        return (tokens + (grid + window)).permute(0, 2, 3, 1)

    def forward_block(self, index: int, tokens: Tensor) -> Tensor:
        """Run block ``index``; (B, h, w, C) to (B, h', w', C')."""
        return self.blocks[index](tokens)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Tokens at the end of every stage, as SAM 2's own trunk returns them (but NHWC)."""
        tokens = self.embed(image)
        ends = []
        for index in range(len(self.blocks)):
            tokens = self.forward_block(index, tokens)
            if index in self.stage_ends:
                ends.append(tokens)
        return ends


class Block(nn.Module):
    """One block of Hiera: multi-head attention in windows and an MLP, each with a residual.

    Args:
        dim: channels in.
        dim_out: channels out; where they differ, the grid is halved (queries and shortcut are max-pooled).
        num_heads: of the attention.
        window: its side in tokens; None attends globally.

    Shape:
        - tokens: (B, h, w, dim)
        - returns: (B, h, w, dim_out), or half of h and w
    """

    def __init__(self, dim: int, dim_out: int, num_heads: int, window: int | None) -> None:
        super().__init__()
        self.window, self.halves = window, dim != dim_out
        if self.halves:
            self.proj = nn.Linear(dim, dim_out)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, dim_out, num_heads)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(dim_out, 4 * dim_out), act=nn.GELU(), fc2=nn.Linear(4 * dim_out, dim_out)
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm1(tokens)
        shortcut = _halve(self.proj(x)) if self.halves else tokens
        x = shortcut + self.attn(x, self.window, halves=self.halves)
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    """Multi-head attention in windows of a side in tokens, or over all tokens.

    SAM 2 pads with zeros before the projection, so padding attends through the projection's bias. Projecting
    first and padding with that bias is the same for less work: at 256 x 256 a stage of 16 x 16 tokens in
    windows of 14 has 784 padded positions for 256 real ones.

    Shape:
        - tokens: (B, h, w, dim)
        - returns: (B, h, w, dim_out), with ``halves`` half of h and w
    """

    def __init__(self, dim: int, dim_out: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, tokens: Tensor, window: int | None, *, halves: bool) -> Tensor:
        batch, height, width, _ = tokens.shape
        window_h, window_w = (window, window) if window else (height, width)
        pad_h, pad_w = -height % window_h, -width % window_w
        rows, columns = (height + pad_h) // window_h, (width + pad_w) // window_w
        qkv = pad_with(self.qkv(tokens), self.qkv.bias, pad_h, pad_w)

        # (B, rows, window_h, columns, window_w, 3C) -> (B * windows, window_h, window_w, 3C)
        channels = self.proj.in_features  # as a number: an exported graph would compute a -1 of reshape
        qkv = qkv.reshape(batch, rows, window_h, columns, window_w, 3 * channels).transpose(2, 3)
        q, k, v = qkv.reshape(batch * rows * columns, window_h, window_w, 3 * channels).chunk(3, dim=-1)
        if halves:
            q = _halve(q)
            height, width = height // 2, width // 2
        window_h, window_w = q.shape[1:3]

        q, k, v = (
            part.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v)
        )
        x = F.scaled_dot_product_attention(q, k, v)  # (B * windows, heads, positions, C / heads)

        x = x.transpose(1, 2).reshape(batch, rows, columns, window_h, window_w, channels).transpose(2, 3)
        x = x.reshape(batch, rows * window_h, columns * window_w, channels)
        # A linear layer multiplies the weights once for each row of tokens that do not lie together.
        return self.proj(x[:, :height, :width].contiguous())


def _check(
    embed_dim: int,
    num_heads: int,
    stages: tuple[int, ...],
    window_spec: tuple[int, ...],
    global_att_blocks: tuple[int, ...],
    pos_size: tuple[int, int],
) -> None:
    """Refuse sizes that no trunk has: files may state any."""
    for key, value, holds, rule in (
        (
            "stages",
            stages,
            0 < len(stages) <= 4 and min(stages) > 0 and sum(stages) <= 200,
            "1 to 200 blocks",
        ),
        ("embed_dim", embed_dim, 0 < embed_dim <= 2048, "a width from 1 to 2048"),
        ("num_heads", num_heads, num_heads > 0 and embed_dim % num_heads == 0, "a divisor of embed_dim"),
        ("window_spec", window_spec, len(window_spec) == len(stages), "one side for each stage"),
        ("window_spec", window_spec, all(0 < side <= 64 for side in window_spec), "sides from 1 to 64"),
        (
            "global_att_blocks",
            global_att_blocks,
            all(0 <= k < 200 for k in global_att_blocks),
            "blocks from 0",
        ),
        ("pos_size", pos_size, all(0 < side <= 256 for side in pos_size), "sides from 1 to 256"),
    ):
        if not holds:
            raise ConfigError(f"model.{key}: {brief(value)} is not valid, give {rule}.")


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


def _halve(tokens: Tensor) -> Tensor:
    return F.max_pool2d(tokens.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
