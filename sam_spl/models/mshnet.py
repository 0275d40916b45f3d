"""MSHNet (Liu et al., CVPR 2024, arXiv 2403.19366): a U-Net with a head at every scale."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.errors import ConfigError
from sam_spl.models.layers import enlarge, stage
from sam_spl.models.published import IMAGENET_256, Published, State

_WIDTHS = (16, 32, 64, 128, 256)  # of e0 ... e3 and the middle, at strides 1, 2, 4, 8, 16
_BLOCKS = (1, 2, 2, 2)  # of e0 ... e3, and of d0 ... d3


def _describe(state: State) -> dict[str, Any]:
    kernel = state["mask_heads.0.weight"].shape[-1]
    return {"model": "mshnet", "arguments": {"head_kernel": kernel}, **IMAGENET_256}


class MSHNet(nn.Module):
    """Segment small infrared targets at four scales, and fuse the four answers; trained from scratch.

    Args:
        warm_epochs: how many of the first epochs train the finest mask head alone, 6 as published; None or 0:
            none. Weights that are built or loaded are past it: :meth:`set_epoch` alone begins it.
        head_kernel: side of the mask heads' kernels; published weights have 1, the paper draws 3.
        head_bias: start value of the logits; None keeps PyTorch's. Targets cover one pixel in a thousand,
            and training from random weights gains from a start near that (-4: 0.018).

    Shape:
        - image: (B, 3, H, W), normalised; any H and W (padded to multiples of 16 by repeating the edge)
        - returns: five logit maps (B, 1, h, w): the fused answer and mask0 at the image's size, mask1 to
          mask3 at a half, a quarter and an eighth of it, rounded up. In training during the warm-up mask0
          alone.
    """

    in_channels = 3
    #: Arguments that only decide how training starts: weights files do not repeat them.
    only_at_start = ("warm_epochs",)
    published = Published(
        names=(
            ("encoders.#.#.channel_attention", "encoder_#.#.ca"),
            ("encoders.#.#.spatial_attention.conv", "encoder_#.#.sa.conv1"),
            ("encoders.#", "encoder_#"),
            ("middle.#.channel_attention", "middle_layer.#.ca"),
            ("middle.#.spatial_attention.conv", "middle_layer.#.sa.conv1"),
            ("middle", "middle_layer"),
            ("decoders.#.#.channel_attention", "decoder_#.#.ca"),
            ("decoders.#.#.spatial_attention.conv", "decoder_#.#.sa.conv1"),
            ("decoders.#", "decoder_#"),
            ("stem", "conv_init"),
            ("mask_heads.#", "output_#"),
            ("fuse", "final"),
        ),
        marks=("conv_init.", "encoder_0.", "middle_layer.", "output_0."),
        own_mark="mask_heads.0.weight",
        describe=_describe,
        wrap=lambda named: {"state_dict": named},
    )

    def __init__(
        self, *, warm_epochs: int | None = None, head_kernel: int = 1, head_bias: float | None = None
    ) -> None:
        super().__init__()
        if head_kernel not in (1, 3):
            raise ConfigError(f"model.head_kernel: {head_kernel} needs to be 1 or 3")
        if warm_epochs is not None and warm_epochs < 0:
            raise ConfigError(f"model.warm_epochs: {warm_epochs} needs to be a number of epochs from 0 up")
        self.warm_epochs, self.warm = warm_epochs or 0, False
        self.stem = nn.Conv2d(3, _WIDTHS[0], 1)
        self.encoders = nn.ModuleList(
            stage(inner, out, blocks)
            for inner, out, blocks in zip((_WIDTHS[0], *_WIDTHS), _WIDTHS[:4], _BLOCKS, strict=False)
        )
        self.middle = stage(_WIDTHS[3], _WIDTHS[4], 2)
        self.decoders = nn.ModuleList(
            stage(_WIDTHS[k] + _WIDTHS[k + 1], _WIDTHS[k], _BLOCKS[k]) for k in range(4)
        )
        self.mask_heads = nn.ModuleList(
            nn.Conv2d(width, 1, head_kernel, padding=head_kernel // 2) for width in _WIDTHS[:4]
        )
        self.fuse = nn.Conv2d(4, 1, 3, padding=1)
        if head_bias is not None:
            for head in self.mask_heads:
                nn.init.constant_(head.get_parameter("bias"), head_bias)
            # So that the fusion of four maps of this value has it too.
            with torch.no_grad():
                self.fuse.get_parameter("bias").copy_(head_bias * (1 - self.fuse.weight.sum()))

    def set_epoch(self, epoch: int) -> None:
        """Begin or end the warm-up; ``epoch`` counts from 0."""
        self.warm = epoch < self.warm_epochs

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 16, 0, -height % 16), mode="replicate")

        e = [self.encoders[0](self.stem(image))]
        for encoder in self.encoders[1:]:
            e.append(encoder(F.max_pool2d(e[-1], 2)))
        d = self.middle(F.max_pool2d(e[-1], 2))

        masks: list[Tensor] = []
        for k in (3, 2, 1, 0):
            d = self.decoders[k](torch.cat([e[k], enlarge(d, 2)], dim=1))
            masks.insert(0, self.mask_heads[k](d))
        # Evaluation takes the whole path in the warm-up too: it scores what the saved weights will answer.
        if self.training and self.warm:
            return [masks[0][..., :height, :width]]

        answer = self.fuse(torch.cat([enlarge(mask, 2**k) for k, mask in enumerate(masks)], dim=1))
        logits = [answer[..., :height, :width]]
        for k, mask in enumerate(masks):
            logits.append(mask[..., : -(-height // 2**k), : -(-width // 2**k)])
        return logits
