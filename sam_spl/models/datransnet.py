"""DATransNet (Hu et al., IEEE GRSL 2025, doi 10.1109/LGRS.2025.3557021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.config import require_side
from sam_spl.models.datransnet_maps import MAPS
from sam_spl.models.datransnet_published import DATRANSNET
from sam_spl.models.gradformer import GradFormer
from sam_spl.models.layers import conv_bn_relu

_WIDTHS = (16, 32, 64, 128)  # of x1 ... x4
_ATTENTION_WIDTHS = (16, 32, 32, 32)
_SHIFTS = ((1, 3), (1, 3), (1, 3), (1,))


class DATransNet(nn.Module):
    """Segment small infrared targets by attention over central differences; trained from scratch.

    Args:
        train_size: side of the training images in pixels. It scales the attention scores for good, is in no
            published weights file (256, for IRSTD-1k 512), and changes probabilities by hundredths.
        head_bias: start value of the head's bias; None keeps PyTorch's. Targets cover one pixel in a
            thousand, and from a probability of one half it takes the first hundred steps to learn that.

    Shape:
        - image: (B, 1, H, W) in [0, 1]; any H and W (padded to multiples of 32 by repeating the edge)
        - returns: one logit map (B, 1, H, W), in a list
    """

    in_channels = 1
    #: Arguments that change what weights mean and no tensor's shape. Each is an attribute too.
    not_in_shapes = ("train_size",)
    published = DATRANSNET
    maps = MAPS

    def __init__(self, *, train_size: int = 256, head_bias: float | None = None) -> None:
        super().__init__()
        require_side(train_size, "model.train_size", least=1)
        self.train_size = train_size
        self.stem = Res(1, _WIDTHS[0])
        widths = (*_WIDTHS, _WIDTHS[-1])
        self.encoders = nn.ModuleList(Res(widths[k], widths[k + 1]) for k in range(4))
        self.gradformers = nn.ModuleList(
            GradFormer(width, attention, shifts, scale=train_size / 2**level)
            for level, (width, attention, shifts) in enumerate(
                zip(_WIDTHS, _ATTENTION_WIDTHS, _SHIFTS, strict=True)
            )
        )
        self.gfem = GFEM(_WIDTHS[-1])
        self.decoders = nn.ModuleList(
            GatedUp(width, 2 * width, out) for width, out in zip(_WIDTHS, (16, *_WIDTHS[:3]), strict=True)
        )
        self.head = nn.Sequential(InceptionDepthwise(_WIDTHS[0]), nn.Conv2d(_WIDTHS[0], 1, 1))
        if head_bias is not None:
            nn.init.constant_(self.head[-1].get_parameter("bias"), head_bias)

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")

        x = [self.stem(image)]
        for encoder in self.encoders:
            x.append(encoder(F.max_pool2d(x[-1], 2)))
        *x, d = x  # x1 ... x4 at strides 1, 2, 4, 8, and d5 at stride 16

        c = [gradformer(feature) for gradformer, feature in zip(self.gradformers, x, strict=True)]
        d = self.gfem(d)

        for level in (3, 2, 1, 0):
            d = self.decoders[level](d, c[level], x[level])
        return [self.head(d)[..., :height, :width]]


class Res(nn.Module):
    """Residual block of two 3x3 convolutions with LeakyReLU(0.01)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = F.leaky_relu(self.bn1(self.conv1(x)), 0.01)
        return F.leaky_relu(self.bn2(self.conv2(x)) + shortcut, 0.01)


class GFEM(nn.Module):
    """Global features of the deepest level: non-local in space, gated in channels (section II-C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.non_local = NonLocal(channels, channels // 8)
        self.gate = nn.Conv2d(channels, channels, 1, bias=False)
        self.from_non_local = nn.Conv2d(channels, channels, 1)
        self.from_pooled = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        spatial = self.non_local(x)
        pooled = F.max_pool2d(x, 2) * self.gate(spatial.mean((2, 3), keepdim=True)).sigmoid()
        pooled = F.interpolate(pooled, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out(self.from_non_local(spatial) + self.from_pooled(pooled))


class NonLocal(nn.Module):
    """Non-local block (Wang et al., CVPR 2018) over pooled keys, unscaled and without residual."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.back = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels))
        nn.init.zeros_(self.back[1].get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        # One head: with four dimensions attention takes the kernels that never hold the HW x HW / 4 scores.
        q = self.theta(x).flatten(2).mT[:, None]  # (B, 1, HW, inner)
        k = F.max_pool2d(self.phi(x), 2).flatten(2).mT[:, None]  # (B, 1, HW / 4, inner)
        v = F.max_pool2d(self.g(x), 2).flatten(2).mT[:, None]
        attended = F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0]
        return self.back(attended.mT.unflatten(2, x.shape[-2:]))


class GatedUp(nn.Module):
    """Upsample by 2, gate by the encoder's feature, fuse with the GradFormer's (section II-A).

    Shape:
        - d: (B, width, h, w), from the level below
        - c, x: (B, width, 2h, 2w), GradFormer output and encoder feature
        - returns: (B, out_channels, 2h, 2w)
    """

    def __init__(self, width: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(width, width, 1)
        self.fuse = nn.Sequential(
            *conv_bn_relu(in_channels, out_channels), *conv_bn_relu(out_channels, out_channels)
        )

    def forward(self, d: Tensor, c: Tensor, x: Tensor) -> Tensor:
        d = F.interpolate(d, scale_factor=2, mode="bilinear", align_corners=False)
        d = d * self.gate(x).sigmoid()
        return self.fuse(torch.cat([c, d], dim=1))


class InceptionDepthwise(nn.Module):
    """A quarter of the channels each: untouched, 3x3, 1x11, 11x1 (InceptionNeXt, Yu et al., 2024)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.square = nn.Conv2d(quarter, quarter, 3, padding=1, groups=quarter)
        self.wide = nn.Conv2d(quarter, quarter, (1, 11), padding=(0, 5), groups=quarter)
        self.high = nn.Conv2d(quarter, quarter, (11, 1), padding=(5, 0), groups=quarter)

    def forward(self, x: Tensor) -> Tensor:
        untouched, a, b, c = x.chunk(4, dim=1)
        return torch.cat([untouched, self.square(a), self.wide(b), self.high(c)], dim=1)
