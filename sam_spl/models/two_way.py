"""The two-way transformer of SAM's mask decoder (Kirillov et al., ICCV 2023), for one token and an image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class TwoWayTransformer(nn.Module):
    """Let a token read the image and the image read the token, ``depth`` times, then the token once more.

    Args:
        width: channels of tokens and image.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_width: hidden width of the token's MLP.

    Shape:
        - image: (B, N, width), the flattened grid
        - image_pe: (B, N, width), added to keys and to image queries, never to values
        - token: (B, T, width), which is its own position encoding too
        - returns: token (B, T, width), image (B, N, width)
    """

    def __init__(self, width: int = 256, depth: int = 2, num_heads: int = 8, mlp_width: int = 2048) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(width, num_heads, mlp_width, first=index == 0) for index in range(depth)
        )
        self.final_attention = Attention(width, num_heads, downsample=2)
        self.final_norm = nn.LayerNorm(width)

    def forward(self, image: Tensor, image_pe: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        token_pe = token
        for layer in self.layers:
            token, image = layer(token, image, token_pe, image_pe)
        read = self.final_attention(token + token_pe, image + image_pe, image)
        return self.final_norm(token + read), image


class TwoWayBlock(nn.Module):
    """Token self-attention, token to image, token MLP, image to token; LayerNorm after each sum.

    In the first block the self-attention's result replaces the token, and sees no position encoding.
    """

    def __init__(self, width: int, num_heads: int, mlp_width: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attention = Attention(width, num_heads)
        self.norm1 = nn.LayerNorm(width)
        self.token_to_image = Attention(width, num_heads, downsample=2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.ReLU(), nn.Linear(mlp_width, width))
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.image_to_token = Attention(width, num_heads, downsample=2)

    def forward(
        self, token: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            token = self.self_attention(token, token, token)
        else:
            query = token + token_pe
            token = token + self.self_attention(query, query, token)
        token = self.norm1(token)

        token = self.norm2(token + self.token_to_image(token + token_pe, image + image_pe, image))
        token = self.norm3(token + self.mlp(token))
        image = self.norm4(image + self.image_to_token(image + image_pe, token + token_pe, token))
        return token, image


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than its outer one."""

    def __init__(self, width: int, num_heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = width // downsample
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (
            projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projected in (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
