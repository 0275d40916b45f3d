"""SCTransNet (Yuan et al., IEEE TGRS 2024, doi 10.1109/TGRS.2024.3383649)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.models.datransnet import Res
from sam_spl.models.layers import LayerNorm2d, conv_bn_relu, init_weights
from sam_spl.models.sctransnet_published import SCTRANSNET

_WIDTHS = (32, 64, 128, 256)  # of x1 ... x4, their tokens and what comes back
_ALL = sum(_WIDTHS)
_PATCHES = (16, 8, 4, 2)  # pixels of a token's side, at strides 1, 2, 4, 8
_BLOCKS = 4
_DECODED = (32, 32, 64, 128)  # of d1 ... d4


class SCTransNet(nn.Module):
    """Segment small infrared targets by attention between the channels of all levels; trained from scratch.

    Args:
        head_bias: start value of all maps; None keeps PyTorch's initialisation. Targets cover one pixel in a
            thousand.

    Shape:
        - image: (B, 1, H, W), normalised; any H and W (padded with zeros, right and bottom, to multiples of
          32)
        - returns: six logit maps (B, 1, H, W): the answer, the fused one, then those of d2 ... d5, which only
          teach
    """

    in_channels = 1
    zero_padding = True
    published = SCTRANSNET

    def __init__(self, *, head_bias: float | None = None) -> None:
        super().__init__()
        self.stem = Res(1, _WIDTHS[0])
        widths = (*_WIDTHS, _WIDTHS[-1])
        self.encoders = nn.ModuleList(Res(widths[k], widths[k + 1]) for k in range(4))
        self.transformer = Transformer()
        self.decoders = nn.ModuleList(
            GatedUp(width, out) for width, out in zip(_WIDTHS, _DECODED, strict=True)
        )
        self.head = nn.Conv2d(_DECODED[0], 1, 1)
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in (*_DECODED[1:], _WIDTHS[-1]))
        self.fuse = nn.Conv2d(5, 1, 1)

        self.apply(init_weights)
        if head_bias is not None:
            for head in (self.head, *self.sides):
                nn.init.constant_(head.get_parameter("bias"), head_bias)
            # The fused map weighs the others: where they are all head_bias, so is it.
            with torch.no_grad():
                self.fuse.get_parameter("bias").copy_(head_bias * (1 - self.fuse.weight.sum()))

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 32, 0, -height % 32))

        x = [self.stem(image)]
        for encoder in self.encoders:
            x.append(encoder(F.max_pool2d(x[-1], 2)))
        *x, d = x  # x1 ... x4 at strides 1, 2, 4, 8, and d5 at stride 16

        # The published code adds the residual twice, in the transformer and after it.
        c = [torch.add(r, feature, alpha=2) for r, feature in zip(self.transformer(x), x, strict=True)]

        features = [d]  # then d4 ... d1
        for level in (3, 2, 1, 0):
            features.append(self.decoders[level](features[-1], c[level]))
        *deep, d = features

        out = self.head(d)
        sides = [
            enlarge_aligned(side(feature), out)
            for side, feature in zip(self.sides, reversed(deep), strict=True)
        ]
        fused = self.fuse(torch.cat([*sides, out], dim=1))
        return [one[..., :height, :width] for one in (out, fused, *sides)]


class Transformer(nn.Module):
    """The spatial-channel cross transformer: four maps to as many tokens, four blocks, and back.

    Shape:
        - features: x1 ... x4, (B, 32, H, W) ... (B, 256, H / 8, W / 8)
        - returns: as many of the same shapes
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.ModuleList(
            nn.Conv2d(width, width, patch, stride=patch)
            for width, patch in zip(_WIDTHS, _PATCHES, strict=True)
        )
        self.blocks = nn.ModuleList(Block() for _ in range(_BLOCKS))
        self.back = nn.ModuleList(Restore(width) for width in _WIDTHS)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        t = [token(x) for token, x in zip(self.tokens, features, strict=True)]  # (B, C, H / 16, W / 16)
        for block in self.blocks:
            t = block(t)
        return [back(one, x) for back, one, x in zip(self.back, t, features, strict=True)]


class Restore(nn.Module):
    """Tokens to the size of their level's feature."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, token: Tensor, feature: Tensor) -> Tensor:
        # Published after the enlargement, whose weights add up to 1: both orders are the same.
        x = self.conv(self.norm(token))
        x = F.interpolate(x, size=feature.shape[-2:], mode="bilinear", align_corners=False)
        return self.bn(x).relu()


class Block(nn.Module):
    """Channel attention of each level to the channels of all, then a feed-forward network of each.

    Shape:
        - t: four of (B, C, h, w), C = 32, 64, 128, 256
        - returns: the same
    """

    def __init__(self) -> None:
        super().__init__()
        self.query_norms = nn.ModuleList(LayerNorm2d(width) for width in _WIDTHS)
        self.norm = LayerNorm2d(_ALL)
        self.queries = nn.ModuleList(spread(width, groups=width // 2) for width in _WIDTHS)
        self.key = spread(_ALL, groups=_ALL)
        self.value = spread(_ALL, groups=_ALL)
        self.out = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for width in _WIDTHS)
        self.feed_norms = nn.ModuleList(LayerNorm2d(width) for width in _WIDTHS)
        self.feeds = nn.ModuleList(FeedForward(width) for width in _WIDTHS)

    def forward(self, t: list[Tensor]) -> list[Tensor]:
        u = self.norm(torch.cat(t, dim=1))
        parts = zip(self.query_norms, self.queries, t, strict=True)
        queries = torch.cat([query(norm(one)) for norm, query, one in parts], dim=1)
        attended = attend(queries, self.key(u), self.value(u))

        levels = zip(self.out, self.feed_norms, self.feeds, t, attended, strict=True)
        after = []
        for out, norm, feed, one, change in levels:
            one = one + out(change)
            after.append(one + feed(norm(one)))
        return after


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
    """Channels of each level over the channels of all, whose cost is linear in the pixels.

    Scores are cosines over the image, divided by sqrt(480); those of a level are normalised as one matrix.
    They are small: at 256x256 their variance is near the normalisation's 1e-5, so both scales count.

    Args:
        queries: (B, 480, h, w), the levels' 32, 64, 128 and 256 channels.
        keys: (B, 480, h, w).
        values: the same.

    Returns:
        Of each level (B, C, h, w).
    """
    q, k, v = (x.flatten(2) for x in (queries, keys, values))  # (B, 480, h w)
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT / math.sqrt(_ALL)  # (B, 480, 480)
    normal = [F.layer_norm(one, one.shape[1:]) for one in scores.split(_WIDTHS, dim=1)]
    attended = torch.cat(normal, dim=1).softmax(-1) @ v
    return attended.unflatten(2, queries.shape[-2:]).split(_WIDTHS, dim=1)


class FeedForward(nn.Module):
    """Complementary feed-forward network: two neighbourhoods of each pixel, then a gate of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(2.66 * channels)
        self.expand = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.far = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False)
        self.project = nn.Conv2d(2 * hidden, channels, 1, bias=False)
        self.gate = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.gate.weight)

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.expand(x).chunk(2, dim=1)
        x = self.project(torch.cat([self.near(near), self.far(far)], dim=1).relu())
        weight = self.gate(x.mean((2, 3))[:, None])[:, 0].sigmoid()  # (B, C), from neighbouring channels
        return x * weight[:, :, None, None]


class GatedUp(nn.Module):
    """Enlarge by 2, gate the skip's channels by what both hold, fuse.

    Shape:
        - d: (B, width, h, w), from the level below
        - c: (B, width, 2h, 2w)
        - returns: (B, out_channels, 2h, 2w)
    """

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.of_skip = nn.Linear(width, width)
        self.of_deep = nn.Linear(width, width)
        self.fuse = nn.Sequential(
            *conv_bn_relu(2 * width, out_channels), *conv_bn_relu(out_channels, out_channels)
        )

    def forward(self, d: Tensor, c: Tensor) -> Tensor:
        gate = ((self.of_skip(c.mean((2, 3))) + self.of_deep(d.mean((2, 3)))) / 2).sigmoid()
        c = (c * gate[:, :, None, None]).relu()
        d = F.interpolate(d, scale_factor=2, mode="nearest")
        return self.fuse(torch.cat([c, d], dim=1))


def spread(channels: int, groups: int) -> nn.Sequential:
    """A 1x1 convolution and a grouped 3x3 one, without biases."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False),
    )


def enlarge_aligned(x: Tensor, partner: Tensor) -> Tensor:
    """To the partner's size, bilinear between the centres of corner pixels."""
    return F.interpolate(x, size=partner.shape[-2:], mode="bilinear", align_corners=True)
