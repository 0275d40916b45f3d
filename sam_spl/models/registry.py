"""Networks by name: the files of ``configs/model/`` are the list."""

from __future__ import annotations

import inspect
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import hydra
from omegaconf import ListConfig, OmegaConf
from torch import nn

from sam_spl.config import config_folder
from sam_spl.errors import ConfigError, nearest

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
        :func:`sam_spl.weights.loading.save_weights`.

    Raises:
        ConfigError: unknown name or argument, or a value that the network does not take.
    """
    config = model_config(name)
    target = config.pop("_target_")
    for key in NOT_ARGUMENTS:
        config.pop(key, None)
    for key in arguments:
        if key not in config:
            raise ConfigError(f"model.{key}: {name} has no such argument. Nearest: {nearest(key, config)}")
    # Lists, as JSON will give them back.
    config |= {k: list(v) if isinstance(v, tuple | ListConfig) else v for k, v in arguments.items()}

    network = hydra.utils.get_class(target)
    _check(name, network, config)
    model = network(**config)
    model.built_from = {"model": name, "arguments": config}
    return model


def _check(name: str, network: type[nn.Module], arguments: dict[str, Any]) -> None:
    """Every argument is there and of the kind that the constructor declares."""
    try:
        inspect.signature(network).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"model {name}: {error}. Correct configs/model/{name}.yaml.") from error
    kinds = get_type_hints(network.__init__)
    for key, value in arguments.items():
        if not _fits(value, kinds.get(key, Any)):
            declared = inspect.signature(network).parameters[key].annotation
            raise ConfigError(f"model.{key}: {value!r} is not of the kind {declared}.")


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        of = get_args(kind)
        long_enough = isinstance(value, list | tuple) and (of[-1] is Ellipsis or len(value) == len(of))
        return long_enough and all(_fits(one, of[0]) for one in value)
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind if isinstance(kind, type) else object)
