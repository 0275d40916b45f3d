"""SAM-SPL's encoder: a convolutional branch that consults the Hiera trunk and is guided by it."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.models.hiera import Hiera
from sam_spl.models.layers import BLOCKS, init_weights


class Encoder(nn.Module):
    """Consult and guide (SAM-SPL, section III-B).

    The convolutional features ``e`` of each trunk stage receive the trunk's tokens (the guide), and send a
    prompt that is added to the input of the next stage's last block (the consult).

    Args:
        trunk: SAM 2's Hiera.
        block: ``res`` as published, or an ablation of :data:`~sam_spl.models.layers.BLOCKS`.

    Shape:
        - image: (B, 3, H, W), H and W multiples of 32
        - returns: features at strides 1, 2, 4, 8, ... with channels C/4, C/2, C, 2C, ...
    """

    def __init__(self, trunk: Hiera, block: str = "res") -> None:
        super().__init__()
        make = BLOCKS[block]
        dims = trunk.stage_dims
        self.channels = [dims[0] // 4, dims[0] // 2, *dims]

        widths = [3, *self.channels[:3]]
        self.stem = nn.ModuleList(
            nn.Sequential(make(cin, cout), make(cout, cout)) for cin, cout in pairwise(widths)
        )
        self.guides = nn.ModuleList(make(dim // 2, dim) for dim in dims[1:])
        self.prompts = nn.ModuleList(PromptBlock(dim) for dim in dims[:-1])
        self.apply(init_weights)
        self.trunk = trunk

    def forward(self, image: Tensor) -> list[Tensor]:
        e = self.stem[0](image)
        features = [e]
        for level in list(self.stem)[1:]:
            e = level(F.max_pool2d(e, 2))
            features.append(e)

        tokens = self.trunk.embed(image)  # (B, H / 4, W / 4, C)
        prompt = None
        last_stage = len(self.trunk.stage_ends) - 1
        for index in range(len(self.trunk.blocks)):
            ends = index in self.trunk.stage_ends
            if ends and prompt is not None:
                tokens = tokens + prompt
            tokens = self.trunk.forward_block(index, tokens)
            if not ends:
                continue

            stage = self.trunk.stage_ends.index(index)
            t = tokens.permute(0, 3, 1, 2)  # (B, C, h, w)
            if stage > 0:
                e = self.guides[stage - 1](F.max_pool2d(e, 2)) + t
                features.append(e)
            if stage < last_stage:
                prompt = self.prompts[stage](t + e).permute(0, 2, 3, 1)
        return features


class PromptBlock(nn.Sequential):
    """The consult: from the features of one stage to a prompt at the next one's resolution and width.

    Shape:
        - x: (B, C, h, w)
        - returns: (B, 2C, ceil(h / 2), ceil(w / 2))
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, 2 * channels, 7, stride=2, padding=3),
            nn.BatchNorm2d(2 * channels),
            nn.GELU(),
        )
