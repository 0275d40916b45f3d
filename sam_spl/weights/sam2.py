"""SAM 2's trunk: from its checkpoints, or from the hub by timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sam_spl.errors import InputError
from sam_spl.models.hiera import SAM2_NAMES, SAM2_PREFIX
from sam_spl.weights.formats import Weights, first_line, read_weights
from sam_spl.weights.loading import freeze_unless_told, load_strict
from sam_spl.weights.published import rename


def load_trunk(model: nn.Module, source: str, hub: str | None = None) -> None:
    """Put SAM 2 weights into the trunk and freeze it, unless the model was built with ``freeze_trunk=False``.

    Args:
        model: a network with a ``sam2_trunk``, from :func:`~sam_spl.models.registry.build_model`.
        source: a SAM 2 / 2.1 checkpoint, or ``hub`` to let timm fetch ``hub``.
        hub: timm's name of the weights.

    Raises:
        InputError: no such file, no network, another variant's weights, or a model without a trunk.
    """
    trunk: Any = getattr(model, "sam2_trunk", None)
    if trunk is None:
        raise InputError("model.trunk_weights: this model has no SAM 2 trunk. Set model.trunk_weights=null.")
    if source == "hub":
        state, where = _fetch(str(hub)), f"hub {hub}"
    else:
        weights = read_weights(source)
        state, where = _trunk_of(weights), str(weights.path)
    _check_depth(state, trunk, where)
    # A three-stage variant takes three stages; the file's deeper blocks are left out.
    depth = len(trunk.blocks)
    used = {
        name: value
        for name, value in state.items()
        if not name.startswith("blocks.") or int(name.split(".")[1]) < depth
    }
    load_strict(trunk, used, where)
    freeze_unless_told(model)


def _trunk_of(weights: Weights) -> dict[str, Tensor]:
    """The trunk's tensors under our names."""
    trunk = {
        name.removeprefix(SAM2_PREFIX): value
        for name, value in weights.state.items()
        if name.startswith(SAM2_PREFIX)
    }
    if not trunk:
        raise InputError(
            f"model.trunk_weights: {weights.path} is not a SAM 2 checkpoint (no {SAM2_PREFIX}* tensors)."
        )
    return rename(trunk, tuple((sam2, ours) for ours, sam2 in SAM2_NAMES))


def _fetch(name: str) -> dict[str, Tensor]:
    import timm

    try:
        state = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # a hub fails in more ways than can be listed
        raise InputError(
            f"model.trunk_weights=hub: {name} cannot be fetched ({first_line(error)}). On a machine without "
            "network, copy a SAM 2.1 checkpoint there (docs/weights.md lists them) and give its path."
        ) from error
    return {key: value for key, value in state.items() if not key.startswith("head.")}


def _check_depth(state: Mapping[str, Tensor], trunk: Any, where: str) -> None:
    """Hiera-T's first stages have the shapes of Hiera-S's: they differ only in where a stage ends."""
    depth = len(trunk.blocks)
    deeper = any(name.startswith(f"blocks.{depth}.") for name in state)
    if deeper and f"blocks.{depth}.proj.weight" not in state:
        raise InputError(
            f"{where}: these trunk weights are another variant's: the model's last stage ends after block "
            f"{depth - 1}, theirs continues. Give this variant's SAM 2 file (docs/weights.md lists them)."
        )
