"""The self-derived prompt: shallow features as position encoding of the deepest one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam_spl.models.layers import conv_bn_relu


class SelfPrompt(nn.Module):
    """Bring e1, e2, e3 down to the deepest grid and fuse them channel by channel (SAM-SPL, section III-C).

    Args:
        channels: channels of e1, e2, e3.
        steps: halvings from e1 to the deepest grid.
        width: channels of the prompt.

    Shape:
        - features: three of (B, channels[i], H / 2^i, W / 2^i)
        - returns: (B, width, H / 2^steps, W / 2^steps)
    """

    def __init__(self, channels: list[int], steps: int, width: int) -> None:
        super().__init__()
        self.downs = nn.ModuleList(
            nn.Sequential(
                *(nn.Sequential(*conv_bn_relu(channel, channel, stride=2)) for _ in range(steps - level)),
                nn.Conv2d(channel, width, 1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for level, channel in enumerate(channels)
        )
        # The scales are concatenated, so group g reads channels 3g, 3g + 1, 3g + 2 and mixes, for most g,
        # neighbours of one scale. That is the published order, and its weights need it.
        self.fuse = nn.Conv2d(len(channels) * width, width, 1, groups=width)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.fuse(
            torch.cat([down(feature) for down, feature in zip(self.downs, features, strict=True)], dim=1)
        )
