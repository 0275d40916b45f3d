"""Convolutional building blocks that the encoder and the decoder share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResCBAM(nn.Module):
    """Residual block with channel, then spatial attention (CBAM, Woo et al., ECCV 2018) before the sum.

    Args:
        in_channels: of the input.
        out_channels: of the output; where they differ, the shortcut is a 1x1 convolution with BatchNorm.
        reduction: of the channel attention: 4 in SAM-SPL, 16 in DNANet and MSHNet.

    Shape:
        - x: (B, in_channels, H, W)
        - returns: (B, out_channels, H, W)
    """

    def __init__(self, in_channels: int, out_channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.channel_attention = ChannelAttention(out_channels, reduction)
        self.spatial_attention = SpatialAttention()
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x))
        x = self.channel_attention(x)
        x = self.spatial_attention(x)
        return (x + shortcut).relu()


class ChannelAttention(nn.Module):
    """Scale channels by what their global mean and maximum say, through one shared two-layer map."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu())
        # amax takes six times as long on a CPU, and ONNX has no adaptive pooling.
        peak = x.amax((2, 3), keepdim=True) if torch.compiler.is_exporting() else F.adaptive_max_pool2d(x, 1)
        peak = self.fc2(self.fc1(peak).relu())
        return x * (mean + peak).sigmoid()


class SpatialAttention(nn.Module):
    """Scale pixels by what the mean and the maximum over channels say in a 7x7 neighbourhood."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * self.conv(summary).sigmoid()


class VGGBlock(nn.Sequential):
    """Ablation: two plain 3x3 convolutions through half the width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            *conv_bn_relu(in_channels, out_channels // 2), *conv_bn_relu(out_channels // 2, out_channels)
        )


class DenseBlock(nn.Module):
    """Ablation: new channels behind the input's. With nothing to add (equal widths) it is the identity."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.grow: nn.Module | None = None
        if out_channels > in_channels:
            new = out_channels - in_channels
            self.grow = nn.Sequential(
                *conv_bn_relu(in_channels, out_channels), *conv_bn_relu(out_channels, new)
            )

    def forward(self, x: Tensor) -> Tensor:
        return x if self.grow is None else torch.cat([x, self.grow(x)], dim=1)


#: The convolutional blocks that ``block=`` of the networks chooses from.
BLOCKS: dict[str, Callable[[int, int], nn.Module]] = {"res": ResCBAM, "vgg": VGGBlock, "dense": DenseBlock}


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each pixel of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    """Scale channels by their global means (Hu et al., CVPR 2018), without biases."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = self.fc(x.mean((2, 3))).sigmoid()  # (B, C)
        return x * weight[:, :, None, None]


def stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    """Blocks of DNANet and MSHNet, of which the first changes the width."""
    widths = (in_channels, *[out_channels] * blocks)
    return nn.Sequential(*(ResCBAM(widths[k], out_channels, reduction=16) for k in range(blocks)))


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Bilinear with ``align_corners=True``, as DNANet and MSHNet do it: a pixel depends on the whole size."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True) if factor > 1 else x


def conv_bn_relu(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    """A 3x3 convolution with BatchNorm and ReLU, as a list to unpack into a Sequential."""
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def init_weights(module: nn.Module) -> None:
    """SAM-SPL's initialisation of one module, for ``Module.apply``; biases and LayerNorms stay PyTorch's.

    Convolutions and linear layers Kaiming-normal (fan_in, a=0), BatchNorm N(1, 0.02) and 0.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
