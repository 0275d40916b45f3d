"""SAM-SPL's decoder: self-prompted mask features, then skips that calibrate each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.models.layers import LayerNorm2d, SqueezeExcite, conv_bn_relu
from sam_spl.models.prompt import SelfPrompt
from sam_spl.models.two_way import TwoWayTransformer

WIDTH = 256  # of SAM's decoder


class SelfPromptedSource(nn.Module):
    """The deepest feature through SAM's mask decoder, prompted by the shallow ones (SAM-SPL, section III-C).

    Args:
        channels: channels of the encoder's features, shallow to deep.

    Shape:
        - features: the encoder's, shallow to deep
        - returns: (B, C, H / 8, W / 8), C the channels of the stride-4 feature
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        out = channels[2]
        steps = len(channels) - 1
        self.project_in = nn.Sequential(
            nn.Conv2d(channels[-1], WIDTH, 1),
            LayerNorm2d(WIDTH, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(WIDTH, WIDTH, 1),
            nn.GELU(),
        )
        self.self_prompt = SelfPrompt(channels[:3], steps, WIDTH)
        self.mask_token = nn.Parameter(torch.randn(1, WIDTH))
        self.transformer = TwoWayTransformer(WIDTH)
        self.upscale = nn.Sequential(
            nn.ConvTranspose2d(WIDTH, WIDTH // 4, 2, stride=2),
            nn.BatchNorm2d(WIDTH // 4),
            nn.GELU(),
            nn.ConvTranspose2d(WIDTH // 4, out, 2, stride=2),
            nn.GELU(),
        )
        self.token_mlp = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, out)
        )
        project_out: list[nn.Module] = [nn.Conv2d(out, out, 1), nn.BatchNorm2d(out), nn.GELU()]
        # Upscaled by 4 from stride 2^steps; the first skip is wanted from stride 8.
        for _ in range(5 - steps):
            project_out += [nn.Conv2d(out, out, 2, stride=2), nn.GELU()]
        self.project_out = nn.Sequential(*project_out)

    def forward(self, features: list[Tensor]) -> Tensor:
        source = self.project_in(features[-1])  # (B, 256, h, w)
        prompt = self.self_prompt(features[:3])  # (B, 256, h, w)
        token = self.mask_token.expand(source.shape[0], 1, -1)  # (B, 1, 256)

        grid = source.shape[-2:]
        token, image = self.transformer(
            source.flatten(2).transpose(1, 2), prompt.flatten(2).transpose(1, 2), token
        )

        image = self.upscale(image.transpose(1, 2).unflatten(2, grid))  # (B, C, 4h, 4w)
        image = image * self.token_mlp(token[:, 0])[:, :, None, None]
        return self.project_out(image)


class PlainSource(nn.Sequential):
    """Ablation ``use_sam_decoder=False``: the deepest of the encoder's features alone, at half its width."""

    def __init__(self, channels: int) -> None:
        half = channels // 2
        super().__init__(
            nn.Conv2d(channels, half, 1), nn.BatchNorm2d(half), nn.GELU(), nn.Conv2d(half, half, 1), nn.GELU()
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        return super().forward(features[-1])


class CalibratedUp(nn.Module):
    """Upsample by 2 and fuse with a skip, each calibrated by the other first (SAM-SPL, section III-D).

    Args:
        channels: channels of both inputs.
        mutual_calibration: off for the ablation, which concatenates only.

    Shape:
        - x: (B, C, h, w)
        - feature: (B, C, 2h, 2w), the encoder's
        - returns: (B, C / 2, 2h, 2w)
    """

    def __init__(self, channels: int, *, mutual_calibration: bool = True) -> None:
        super().__init__()
        self.skip = nn.Sequential(
            SqueezeExcite(channels),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
            nn.GELU(),
        )
        self.calibrate_up: nn.Linear | None = None
        self.calibrate_skip: nn.Linear | None = None
        if mutual_calibration:
            self.calibrate_up = nn.Linear(channels, channels)
            self.calibrate_skip = nn.Linear(channels, channels)
        self.fuse = nn.Sequential(
            *conv_bn_relu(2 * channels, channels // 2), *conv_bn_relu(channels // 2, channels // 2)
        )

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        skip = self.skip(feature)
        up = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        if self.calibrate_up is not None and self.calibrate_skip is not None:
            up_shift = self.calibrate_up(skip.mean((2, 3)))  # (B, C), what the skip says of the upsampled
            skip_shift = self.calibrate_skip(x.mean((2, 3)))
            up, skip = up + up_shift[:, :, None, None], skip + skip_shift[:, :, None, None]
        return self.fuse(torch.cat([up, skip], dim=1))


class Decoder(nn.Module):
    """From the encoder's features to three logit maps.

    Args:
        channels: channels of the encoder's features, shallow to deep.
        use_sam_decoder: off for the ablation without transformer, prompt and token.
        mutual_calibration: off for the ablation with plain skips.

    Shape:
        - features: the encoder's, shallow to deep; the first at the image's size (H, W)
        - returns: three of (B, 1, H, W), from the finest head to the coarsest
    """

    def __init__(
        self, channels: list[int], *, use_sam_decoder: bool = True, mutual_calibration: bool = True
    ) -> None:
        super().__init__()
        self.source: SelfPromptedSource | PlainSource
        if use_sam_decoder:
            self.source, skips = SelfPromptedSource(channels), channels[:3]
        else:
            self.source, skips = PlainSource(channels[-1]), channels[:-1]
        self.ups = nn.ModuleList(
            CalibratedUp(channel, mutual_calibration=mutual_calibration) for channel in reversed(skips)
        )
        self.heads = nn.ModuleList(nn.Conv2d(channel // 2, 1, 1) for channel in reversed(channels[:3]))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        x = self.source(features)

        maps = []
        for up, feature in zip(self.ups, reversed(features[: len(self.ups)]), strict=True):
            x = up(x, feature)
            maps.append(x)

        # The published heads interpolate first. Interpolation weights sum to one, so a 1x1 convolution may
        # come before it, and one channel is cheaper to interpolate than C / 2.
        size = features[0].shape[-2:]
        logits = [
            F.interpolate(head(x), size=size, mode="bilinear", align_corners=False)
            for head, x in zip(self.heads, maps[-3:], strict=True)
        ]
        return logits[::-1]
