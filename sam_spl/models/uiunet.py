"""UIU-Net (Wu et al., IEEE TIP 2023, doi 10.1109/TIP.2022.3228497)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.errors import ConfigError, InputError
from sam_spl.models.uiunet_published import UIUNET

#: Of each stage: name, depth (0: dilated, without pools), channels in (None: the image's), inside and out.
_ENCODERS = (
    ("1", 7, None, 32, 64),
    ("2", 6, 64, 32, 128),
    ("3", 5, 128, 64, 256),
    ("4", 4, 256, 128, 512),
    ("5", 0, 512, 256, 512),
    ("6", 0, 512, 256, 512),
)
_DECODERS = (
    ("5d", 0, 1024, 256, 512),
    ("4d", 4, 1024, 128, 256),
    ("3d", 5, 512, 64, 128),
    ("2d", 6, 256, 32, 64),
    ("1d", 7, 128, 16, 64),
)
_FUSED = {"5": 512, "4": 512, "3": 256, "2": 128}  # width of the fusion before each decoder but the last
_SIDES = (64, 64, 128, 256, 512, 512)  # channels of what the heads see: g1 ... g5, h6


class UIUNet(nn.Module):
    """Segment small infrared targets by a U-Net whose stages are U-Nets; trained from scratch.

    Args:
        in_channels: 3 as the authors have it, grey images copied; 1 as BasicIRSTD has it.
        head_bias: start value of all maps; None keeps PyTorch's initialisation. Targets cover one pixel in a
            thousand.

    Shape:
        - image: (B, in_channels, H, W), normalised; any H and W (padded with zeros, right and bottom, to
          multiples of 32, as BasicIRSTD tests); in training two images at least
        - returns: seven logit maps (B, 1, H, W): the fused one, then those of g1 ... g5 and h6

    Raises:
        InputError: in training, one image: two BatchNorms of each fusion see one value of an image.
    """

    in_channels = 3
    smallest_batch = 2  # images of a training step; the trainer leaves a single one at an epoch's end out
    zero_padding = True
    published = UIUNET

    def __init__(self, *, in_channels: int = 3, head_bias: float | None = None) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise ConfigError(f"model.in_channels: {in_channels} is neither 1 nor 3")
        self.in_channels = in_channels
        self.stages = nn.ModuleDict(
            {
                name: _stage(depth, channels or in_channels, inside, out)
                for name, depth, channels, inside, out in _ENCODERS + _DECODERS
            }
        )
        self.fusions = nn.ModuleDict({level: Fusion(width) for level, width in _FUSED.items()})
        self.sides = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=1) for channels in _SIDES)
        self.out = nn.Conv2d(len(_SIDES), 1, 1)
        if head_bias is not None:
            for side in self.sides:
                nn.init.constant_(side.get_parameter("bias"), head_bias)
            # The fused map weighs the others: where they are all head_bias, so is it.
            with torch.no_grad():
                self.out.get_parameter("bias").copy_(head_bias * (1 - self.out.weight.sum()))

    def forward(self, image: Tensor) -> list[Tensor]:
        if self.training and len(image) < self.smallest_batch:
            raise InputError(
                "uiunet: a training step needs two images at least, this one has one. Give two or more."
            )
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 32, 0, -height % 32))
        return [one[..., :height, :width] for one in self.maps_of(image)]

    def maps_of(self, image: Tensor) -> list[Tensor]:
        """The maps of an image of any size, as it is: padding changes them."""
        h = [self.stages["1"](image)]
        for level in "23456":
            h.append(self.stages[level](pool(h[-1])))
        *h, deep = h  # h1 ... h5 at strides 1 ... 16, and h6 at stride 32

        features = [deep]  # then g5 ... g1
        for level in "5432":
            shallow = h.pop()
            both = self.fusions[level](enlarge(features[-1], shallow), shallow)
            features.append(self.stages[f"{level}d"](both))
        features.append(self.stages["1d"](torch.cat([enlarge(features[-1], h[0]), h[0]], dim=1)))

        sides = [side(g) for side, g in zip(self.sides, reversed(features), strict=True)]
        maps = [sides[0], *(enlarge(side, sides[0]) for side in sides[1:])]
        return [self.out(torch.cat(maps, dim=1)), *maps]


class RSU(nn.Module):
    """A small U-Net of ``depth`` levels and ``depth - 2`` pools, with a residual (RSU-L of U2-Net).

    Shape:
        - x: (B, in_channels, H, W)
        - returns: (B, out_channels, H, W)
    """

    def __init__(self, in_channels: int, inside: int, out_channels: int, depth: int) -> None:
        super().__init__()
        self.entry = conv_bn_relu(in_channels, out_channels)
        self.encoders = nn.ModuleList(
            conv_bn_relu(inside if level else out_channels, inside, dilation=1 + (level == depth - 1))
            for level in range(depth)
        )
        self.decoders = nn.ModuleList(
            conv_bn_relu(2 * inside, inside if level else out_channels) for level in range(depth - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)

        e = [self.encoders[0](x)]
        for encoder in self.encoders[1:-1]:
            e.append(encoder(pool(e[-1])))
        d = self.encoders[-1](e[-1])  # dilated, at the last one's size

        for decoder in reversed(self.decoders):
            skip = e.pop()
            d = decoder(torch.cat([enlarge(d, skip), skip], dim=1))
        return d + x


class DilatedRSU(nn.Module):
    """The same of four levels with growing dilations in place of pools (RSU-4F)."""

    def __init__(self, in_channels: int, inside: int, out_channels: int) -> None:
        super().__init__()
        self.entry = conv_bn_relu(in_channels, out_channels)
        self.encoders = nn.ModuleList(
            conv_bn_relu(inside if level else out_channels, inside, dilation=2**level) for level in range(4)
        )
        self.decoders = nn.ModuleList(
            conv_bn_relu(2 * inside, inside if level else out_channels, dilation=2**level)
            for level in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        e = [x]
        for encoder in self.encoders:
            e.append(encoder(e[-1]))
        d = e.pop()
        for decoder in reversed(self.decoders):
            d = decoder(torch.cat([d, e.pop()], dim=1))
        return d + x


class Fusion(nn.Module):
    """Interactive cross attention: a deep feature weighs channels, a shallow one pixels (IC-A).

    Shape:
        - deep, shallow: (B, C, H, W), the deep one enlarged
        - returns: (B, 2C, H, W), the shallow side first
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.deep = nn.Sequential(*conv1_bn(channels, channels), nn.ReLU(inplace=True))
        self.channel_gate = nn.Sequential(
            *conv1_bn(channels, quarter), nn.ReLU(inplace=True), *conv1_bn(quarter, channels), nn.Sigmoid()
        )
        self.squeeze = nn.Sequential(*conv1_bn(channels, quarter), nn.ReLU(inplace=True))
        self.pixel_gate = nn.Conv2d(2, 1, 3, padding=1, bias=False)
        self.out = conv_bn_relu(channels, channels)

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        deep = self.deep(deep)
        shallow = shallow * self.channel_gate(deep.mean((2, 3), keepdim=True))  # one weight a channel
        z = self.squeeze(shallow)
        summary = torch.cat([z.mean(1, keepdim=True), z.amax(1, keepdim=True)], dim=1)
        weight = self.pixel_gate(summary).sigmoid()  # one a pixel

        # One convolution for both, the shallow side first: in training its BatchNorm sees them in turn.
        a = self.out(2 * shallow)
        b = self.out(deep * (2 * weight))
        return torch.cat([a, b], dim=1)


def _stage(depth: int, in_channels: int, inside: int, out_channels: int) -> nn.Module:
    if depth:
        return RSU(in_channels, inside, out_channels, depth)
    return DilatedRSU(in_channels, inside, out_channels)


def conv_bn_relu(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """A 3x3 convolution with BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def conv1_bn(in_channels: int, out_channels: int) -> list[nn.Module]:
    """A 1x1 convolution with BatchNorm, as a list to unpack into a Sequential."""
    return [nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels)]


def pool(x: Tensor) -> Tensor:
    """The maxima of 2x2 pixels; an odd side is rounded up."""
    return F.max_pool2d(x, 2, ceil_mode=True)


def enlarge(x: Tensor, partner: Tensor) -> Tensor:
    """To the size of the map that it meets, bilinear."""
    if x.shape[-2:] == partner.shape[-2:]:
        return x
    return F.interpolate(x, size=partner.shape[-2:], mode="bilinear", align_corners=False)
