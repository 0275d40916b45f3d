"""What ``auto`` stands for: the trunk weights that are there, and the recipe that fits them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sam_spl.config import config_folder
from sam_spl.engine.config import TrainConfig
from sam_spl.models.registry import ModelConfig, model_file
from sam_spl.registry import is_reference


def trunk_weights(model: ModelConfig, weights: str | None) -> str | None:
    """The value that ``model.trunk_weights`` stands for: a file, ``hub`` or None.

    ``auto`` is the variant's SAM 2.1 file in ``checkpoints/``, of the current folder first, then of the
    repository, where ``scripts/download_ckpts.sh`` puts it. Weights of a whole network (``weights``) bring
    their own trunk, so beside them it is none.
    """
    file = _of_file(model).get("trunk_file")
    if model.trunk_weights != "auto" or weights is not None or file is None:
        return None if model.trunk_weights == "auto" else model.trunk_weights
    places = (Path("checkpoints"), config_folder().parent / "checkpoints")
    return next((str(place / file) for place in places if (place / file).is_file()), None)


def recipe(model: ModelConfig, weights: str | None) -> str:
    """The recipe that ``recipe=auto`` stands for: a network's file names one with trunk weights, one without.

    Args:
        model: with its trunk's weights settled.
        weights: of the whole network, that training starts from.
    """
    of = _of_file(model)
    without = of.get("recipe_without_trunk_weights")
    if without is None or model.trunk_weights or _brings_a_trunk(weights):
        return str(of.get("recipe", "scratch"))
    return str(without)


def announcement(config: TrainConfig) -> tuple[bool, str]:
    """What a run starts with, and how to have the other: whether it is a warning, and its text."""
    of, trunk = _of_file(config.model), config.model.trunk_weights
    start = f"recipe {config.recipe}" if config.recipe else "settings from Python, no recipe"
    without = of.get("recipe_without_trunk_weights")
    if without is None:
        return False, start
    if trunk:
        source = f"timm's {of['hub']}" if trunk == "hub" else trunk
        return (
            False,
            f"{start}, SAM 2 weights in the trunk from {source} (recipe={without} is the one without)",
        )
    if config.weights is not None:
        return False, f"{start}, all weights from {config.weights}"
    name = Path(of["trunk_file"]).stem.rpartition("hiera_")[2]
    fetch = f"bash scripts/download_ckpts.sh {name}"
    if config.recipe == of["recipe"]:
        return True, (
            f"{start} without SAM 2 weights in the trunk learns nothing: its output stays at background. "
            f"Fetch them ({fetch}) and start again, or use recipe={without}"
        )
    return True, (
        f"{start}: no SAM 2 weights in the trunk, which starts from random ones. For the published recipe "
        f"fetch them ({fetch}) and start again with recipe={of['recipe']}"
    )


def _of_file(model: ModelConfig) -> dict[str, Any]:
    return {} if is_reference(model.name) else model_file(model.name)


def _brings_a_trunk(file: str | None) -> bool:
    """Whether a network's weights hold a trunk of SAM 2, which training left as it was."""
    if file is None:
        return False
    from sam_spl.weights.formats import read_weights  # imports PyTorch, which takes seconds

    return read_weights(file).frozen_trunk
