"""What ``auto`` stands for: the weights that there are for the trunk, and the recipe that learns with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sam_spl.config import config_folder


def trunk_weights(config: Any) -> str | None:
    """The value that ``model.trunk_weights`` stands for: a file, ``hub`` or None.

    ``auto`` is the variant's SAM 2.1 file in ``checkpoints/``, of the current folder first, then of the
    repository, where ``scripts/download_ckpts.sh`` puts it. Weights of a whole network (``weights=``) bring
    their own trunk, so beside them it is none.
    """
    chosen = config.model.get("trunk_weights")
    if chosen != "auto" or config.weights is not None:
        return None if chosen == "auto" else chosen
    places = (Path("checkpoints"), config_folder().parent / "checkpoints")
    files = (place / config.model.trunk_file for place in places)
    return next((str(file) for file in files if file.is_file()), None)


def recipe(config: Any) -> str:
    """The recipe that ``recipe=auto`` stands for, as the network's file has it with and without trunk weights."""
    model = config.model
    if "recipe_without_trunk_weights" not in model or model.trunk_weights or _brings_a_trunk(config.weights):
        return str(model.get("recipe", "scratch"))
    return str(model.recipe_without_trunk_weights)


def chosen(config: Any) -> tuple[bool, str]:
    """What a run starts with, and how to have the other: whether it is a warning, and its text."""
    model, start = config.model, f"recipe {config.recipe}"
    if "recipe_without_trunk_weights" not in model:
        return False, start
    if model.trunk_weights:
        source = f"timm's {model.hub}" if model.trunk_weights == "hub" else model.trunk_weights
        return False, f"{start}, SAM 2 weights in the trunk from {source} (recipe=scratch is the one without)"
    if config.weights is not None:
        return False, f"{start}, all weights from {config.weights}"
    name = Path(model.trunk_file).stem.rpartition("hiera_")[2]
    fetch = f"bash scripts/download_ckpts.sh {name}"
    if config.recipe == model.recipe:
        return True, (
            f"{start} without SAM 2 weights in the trunk learns nothing: its output stays at background. Fetch them "
            f"({fetch}) and start again, or take recipe={model.recipe_without_trunk_weights}"
        )
    return True, (
        f"{start}: no SAM 2 weights in the trunk, which starts from random ones. For the published recipe fetch them "
        f"({fetch}) and start again with recipe={model.recipe}"
    )


def _brings_a_trunk(file: str | None) -> bool:
    """Whether a network's weights hold a trunk of SAM 2, which training left as it was."""
    if file is None:
        return False
    from sam_spl.weights.formats import (
        read_weights,  # PyTorch takes seconds, and most commands do without here
    )

    return read_weights(file).frozen_trunk
