"""Networks by name: the files of ``configs/model/`` are the list."""

from __future__ import annotations

from typing import Any

import hydra
from omegaconf import OmegaConf
from torch import nn

from sam_spl.errors import ConfigError, nearest
from sam_spl.files import config_folder

#: Keys of a model file that are no arguments of its class: which recipe it wants, and where its trunk's weights are.
NOT_ARGUMENTS = ("name", "recipe", "recipe_without_trunk_weights", "trunk_weights", "trunk_file", "hub")


def model_names() -> list[str]:
    """The names that :func:`build_model` knows."""
    return sorted(path.stem for path in (config_folder() / "model").glob("*.yaml"))


def model_config(name: str) -> dict[str, Any]:
    """The content of ``configs/model/<name>.yaml``.

    Raises:
        ConfigError: no such file.
    """
    if name not in model_names():
        raise ConfigError(f"model: {name!r} is unknown. Nearest: {nearest(name, model_names())}")
    config = OmegaConf.to_container(OmegaConf.load(config_folder() / "model" / f"{name}.yaml"), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def build_model(name: str, **arguments: Any) -> nn.Module:
    """Build a network with random weights.

    Args:
        name: one of :func:`model_names`, as in ``configs/model/``.
        **arguments: override the arguments of that file.

    Returns:
        The network, which remembers ``name`` and all its arguments in ``model.built_from`` for
        :func:`sam_spl.models.checkpoints.save_weights`.

    Raises:
        ConfigError: unknown name or argument.
    """
    config = model_config(name)
    target = config.pop("_target_")
    for key in NOT_ARGUMENTS:
        config.pop(key, None)
    for key in arguments:
        if key not in config:
            raise ConfigError(f"model.{key}: {name} has no such argument. Nearest: {nearest(key, config)}")
    config.update(arguments)

    try:
        model = hydra.utils.get_class(target)(**config)
    except TypeError as error:
        raise ConfigError(f"model {name}: {error}") from error
    model.built_from = {"model": name, "arguments": config}
    return model
