"""DNANet (Li et al., IEEE TIP 32, 2023, arXiv 2106.00487): a grid of nested U-Nets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.errors import ConfigError
from sam_spl.models.layers import enlarge, stage
from sam_spl.models.published import BASICIRSTD, IMAGENET_256, Published, State

_WIDTHS = (16, 32, 64, 128, 256)  # of the levels, at strides 1, 2, 4, 8, 16


def _describe(state: State) -> dict[str, Any]:
    channels = state["nodes.0_0.0.conv1.weight"].shape[1]
    blocks = [
        sum(name.startswith(f"nodes.{level}_0.") and name.endswith("conv1.weight") for name in state)
        for level in range(1, 5)
    ]
    arguments = {"in_channels": channels, "blocks": blocks}
    # BasicIRSTD's normalisation is the data set's, and it never resizes.
    seen = IMAGENET_256 if channels == 3 else {"image_size": None, "resize": "pillow"}
    return {"model": "dnanet", "arguments": arguments, **seen}


def _wrap(named: dict[str, Tensor]) -> dict[str, Any]:
    if named["conv0_0.0.conv1.weight"].shape[1] == 3:
        return {"epoch": 0, "state_dict": named, "loss": 0.0, "mean_IOU": 0.0}
    return {
        "epoch": 0,
        "state_dict": {f"model.{name}": value for name, value in named.items()},
        "total_loss": 0.0,
    }


class DNANet(nn.Module):
    """Segment small infrared targets on a grid of nested U-Nets, with deep supervision; trained from scratch.

    Node x_{i,j}, on level i at stride 2^i in column j, sees all nodes before it on its level, the one before
    it a level below, enlarged, and the one of its column a level above, halved.

    Args:
        blocks: residual blocks of a node on levels 1 to 4: (2, 2, 2, 2) is the published "ResNet-18",
            (1, 1, 1, 1) its "ResNet-10", (3, 4, 6, 3) its "ResNet-34".
        in_channels: 3 as published; 1 as BasicIRSTD has it.
        head_bias: start value of the heads' biases; None keeps PyTorch's. Targets cover one pixel in a
            thousand, and training from random weights gains from a start near that (-4: 0.018).

    Shape:
        - image: (B, in_channels, H, W), normalised; any H and W (padded to multiples of 16 by repeating the
          edge)
        - returns: four logit maps (B, 1, H, W): of the fused levels, then of x_{0,3}, x_{0,2}, x_{0,1}
    """

    in_channels = 3
    published = Published(
        names=(
            ("nodes.#_#.#.channel_attention", "conv#_#.#.ca"),
            ("nodes.#_#.#.spatial_attention.conv", "conv#_#.#.sa.conv1"),
            ("nodes.#_#", "conv#_#"),
            ("fuse.channel_attention", "conv0_4_final.0.ca"),
            ("fuse.spatial_attention.conv", "conv0_4_final.0.sa.conv1"),
            ("fuse", "conv0_4_final.0"),
            *((f"laterals.{level - 1}", f"conv0_{level}_1x1") for level in range(1, 5)),
            *((f"heads.{k}", f"final{k + 1}") for k in range(4)),
        ),
        marks=("conv0_0.", "conv0_4_final.", "final4."),
        own_mark="nodes.4_0.0.conv1.weight",
        describe=_describe,
        normalisation=BASICIRSTD,
        wrap=_wrap,
    )

    def __init__(
        self,
        *,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        in_channels: int = 3,
        head_bias: float | None = None,
    ) -> None:
        super().__init__()
        if len(blocks) != 4 or min(blocks) < 1:
            raise ConfigError(f"model.blocks: {tuple(blocks)} needs four numbers above 0, of levels 1 to 4")
        if in_channels not in (1, 3):
            raise ConfigError(f"model.in_channels: {in_channels} needs to be 1 or 3")
        self.in_channels = in_channels
        of_level = (1, *blocks)
        self.nodes = nn.ModuleDict(
            {
                f"{i}_{j}": stage(_width_into(i, j) or in_channels, _WIDTHS[i], of_level[i])
                for i in range(5)
                for j in range(5 - i)
            }
        )
        self.laterals = nn.ModuleList(nn.Conv2d(width, _WIDTHS[0], 1) for width in _WIDTHS[1:])
        (self.fuse,) = stage(5 * _WIDTHS[0], _WIDTHS[0], 1)
        self.heads = nn.ModuleList(nn.Conv2d(_WIDTHS[0], 1, 1) for _ in range(4))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.xavier_normal_(part.weight)
        if head_bias is not None:
            for head in self.heads:
                nn.init.constant_(head.get_parameter("bias"), head_bias)

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 16, 0, -height % 16), mode="replicate")

        x: list[list[Tensor]] = [[] for _ in _WIDTHS]  # x[i][j]: level i, column j
        for j in range(5):
            for i in range(5 - j):
                if j == 0:
                    source = F.max_pool2d(x[i - 1][0], 2) if i else image
                else:
                    shared = [*x[i], enlarge(x[i + 1][j - 1], 2)]
                    source = torch.cat([*shared, _halve(x[i - 1][j])] if i else shared, dim=1)
                x[i].append(self.nodes[f"{i}_{j}"](source))

        deepest = [enlarge(self.laterals[i - 1](x[i][4 - i]), 2**i) for i in (4, 3, 2, 1)]
        fused = self.fuse(torch.cat([*deepest, x[0][4]], dim=1))
        features = (x[0][1], x[0][2], x[0][3], fused)
        logits = [head(feature) for head, feature in zip(self.heads, features, strict=True)]
        return [one[..., :height, :width] for one in reversed(logits)]


def _width_into(i: int, j: int) -> int:
    """Channels of the input of x_{i,j}; 0 of the image's."""
    above = _WIDTHS[i - 1] if i else 0
    return j * _WIDTHS[i] + _WIDTHS[i + 1] + above if j else above


def _halve(x: Tensor) -> Tensor:
    """Plain sampling between pixels with ``align_corners=True``, as published: no averaging, no pooling."""
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True)
