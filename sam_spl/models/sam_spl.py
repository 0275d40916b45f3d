"""SAM-SPL (Fu et al., IEEE TGRS 63, 2025, doi 10.1109/TGRS.2025.3610919)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.errors import ConfigError
from sam_spl.models.decoder import Decoder
from sam_spl.models.encoder import Encoder
from sam_spl.models.hiera import Hiera
from sam_spl.models.layers import BLOCKS, init_weights
from sam_spl.models.sam_spl_maps import MAPS
from sam_spl.models.sam_spl_published import SAM_SPL


class SAMSPL(nn.Module):
    """Segment small infrared targets under the guidance of SAM 2's trunk.

    Args:
        embed_dim: channels C of the trunk's first stage.
        num_heads: heads of the trunk's first stage. SAM 2's Hiera-L has 2, and the published SAM-SPL-L ran
            its weights with 1: give 1 to use weights of that code.
        stages: trunk blocks per stage, at least two in each stage but the first.
        window_spec: attention window per stage, in tokens.
        global_att_blocks: trunk blocks that attend globally.
        pos_size: (H, W) of the trunk's position grid.
        block: ``res`` (published), ``vgg`` or ``dense``.
        use_sam_decoder: False for the ablation without transformer, prompt and token.
        mutual_calibration: False for the ablation with plain skips.
        freeze_trunk: keep the trunk as it is, as published with SAM 2 weights. None leaves it free until
            :mod:`~sam_spl.weights.sam2` brings such weights: a frozen random trunk teaches nothing.
        head_bias: start value of the heads' bias; None keeps PyTorch's. Targets cover one pixel in a
            thousand, and training from random weights gains from a start near that (-4: 0.018).

    Shape:
        - image: (B, 3, H, W), normalised; any H and W (padded to multiples of 32 by repeating the edge)
        - returns: three logit maps (B, 1, H, W), the finest head first
    """

    in_channels = 3
    #: Arguments that change what weights mean and no tensor's shape. Each is an attribute too.
    not_in_shapes = ("num_heads", "window_spec", "global_att_blocks")
    published = SAM_SPL
    maps = MAPS
    #: Compiled for a CPU it takes two thirds of the time (docs/benchmarks.md).
    gains_by_compiling = True

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        stages: tuple[int, ...],
        window_spec: tuple[int, ...],
        global_att_blocks: tuple[int, ...],
        pos_size: tuple[int, int] = (7, 7),
        block: str = "res",
        use_sam_decoder: bool = True,
        mutual_calibration: bool = True,
        freeze_trunk: bool | None = None,
        head_bias: float | None = None,
    ) -> None:
        super().__init__()
        if block not in BLOCKS:
            raise ConfigError(f"model.block: {block!r} is not one of {', '.join(BLOCKS)}")
        if len(stages) not in (3, 4) or stages[0] < 1 or min(stages[1:]) < 2:
            raise ConfigError(
                f"model.stages: {tuple(stages)} needs 3 or 4 stages, two blocks in all but the first"
            )
        if len(window_spec) != len(stages) or min(window_spec) < 1:
            raise ConfigError(
                f"model.window_spec: {tuple(window_spec)} needs one window above 0 for each stage"
            )
        if embed_dim < 16 or num_heads < 1 or embed_dim % num_heads:
            raise ConfigError(
                f"model.embed_dim: {embed_dim} needs to be 16 or more and a multiple of num_heads"
            )
        if min(pos_size) < 1:
            raise ConfigError(f"model.pos_size: {tuple(pos_size)} needs two sides above 0")
        if not all(0 <= index < sum(stages) for index in global_att_blocks):
            raise ConfigError(
                f"model.global_att_blocks: {tuple(global_att_blocks)} needs blocks of the trunk, "
                f"0 to {sum(stages) - 1}"
            )
        self.num_heads = num_heads
        self.window_spec, self.global_att_blocks = tuple(window_spec), tuple(global_att_blocks)
        trunk = Hiera(
            embed_dim=embed_dim,
            num_heads=num_heads,
            stages=stages,
            window_spec=window_spec,
            global_att_blocks=global_att_blocks,
            pos_size=pos_size,
        )
        self.encoder = Encoder(trunk, block)
        self.decoder = Decoder(
            self.encoder.channels, use_sam_decoder=use_sam_decoder, mutual_calibration=mutual_calibration
        )
        self.decoder.apply(init_weights)
        if head_bias is not None:
            for head in self.decoder.heads:
                nn.init.constant_(head.get_parameter("bias"), head_bias)
        self.freeze_trunk(bool(freeze_trunk))

    @property
    def sam2_trunk(self) -> Hiera:
        """What SAM 2's weights fill (:func:`~sam_spl.weights.sam2.load_trunk`)."""
        return self.encoder.trunk

    def freeze_trunk(self, frozen: bool = True) -> None:
        """Freeze or free the trunk; gradients flow through it to the prompts either way."""
        self.encoder.trunk.requires_grad_(not frozen)

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")

        features = self.encoder(image)
        logits = self.decoder(features)

        return [x[..., :height, :width] for x in logits]
