"""Networks of segmentation-models-pytorch (Iakubovskii, 2019), as baselines."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sam_spl.errors import ConfigError, InputError, nearest


class SMP(nn.Module):
    """One network of segmentation-models-pytorch, with one class.

    Args:
        arch: its name there: ``unet``, ``unetplusplus``, ``fpn``, ``deeplabv3plus``, ``segformer``, ...
        encoder: its name there, ``resnet18``, or ``tu-NAME`` for one of timm's.
        encoder_weights: weights that the encoder starts from (``imagenet``), fetched; None: random.
        head_bias: start value of the head's bias; None keeps PyTorch's.

    Shape:
        - image: (B, 3, H, W), normalised; any H and W (padded to multiples of 32 by repeating the edge)
        - returns: one logit map (B, 1, H, W), in a list
    """

    in_channels = 3
    #: Arguments that only decide what training starts from: weights files do not repeat them.
    only_at_start = ("encoder_weights",)

    def __init__(
        self,
        *,
        arch: str = "unet",
        encoder: str = "resnet18",
        encoder_weights: str | None = None,
        head_bias: float | None = None,
    ) -> None:
        super().__init__()
        self.title = f"{arch} {encoder}"  # in tables, which name all of these smp otherwise
        self.network = _create(arch, encoder, encoder_weights)
        self.smallest = 128 if arch == "pan" else 32  # PAN halves the deepest feature three times more
        if head_bias is not None:
            *_, head = (
                part for part in self.network.segmentation_head.modules() if isinstance(part, nn.Conv2d)
            )
            nn.init.constant_(head.get_parameter("bias"), head_bias)

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        down, right = (max(-side % 32, self.smallest - side) for side in (height, width))
        image = F.pad(image, (0, right, 0, down), mode="replicate")
        return [self.network(image)[..., :height, :width]]


def _create(arch: str, encoder: str, weights: str | None) -> Any:
    try:
        import segmentation_models_pytorch as smp
    except ModuleNotFoundError as error:
        raise ConfigError(
            'model=smp: segmentation-models-pytorch is not installed. Run: pip install "sam-spl[baselines]"'
        ) from error

    for key, name, known in (
        ("arch", arch, list(smp.MODEL_ARCHITECTURES_MAPPING)),
        ("encoder", encoder, smp.encoders.get_encoder_names()),
    ):
        if name not in known and not name.startswith("tu-"):
            raise ConfigError(f"model.{key}: {name!r} is unknown. Nearest: {nearest(name, known)}")
    options = {"dynamic_img_size": True} if arch == "dpt" else {}  # or it takes images of one size
    try:
        return smp.create_model(
            arch, encoder_name=encoder, encoder_weights=weights, in_channels=3, classes=1, **options
        )
    except OSError as error:  # of the hub and the network
        raise InputError(
            f"model.encoder_weights: {weights} of {encoder} could not be fetched "
            f"({str(error).splitlines()[0]}). Set model.encoder_weights=null to start from random weights."
        ) from error
    except (KeyError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"model.arch: {arch} with encoder {encoder} and encoder_weights {weights} cannot be built "
            f"({error})."
        ) from error
