"""Weights into networks. Strict: all of a file is loaded or nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sam_spl.errors import ConfigError, InputError, UserError, nearest
from sam_spl.foreign import brief
from sam_spl.models.hiera import SAM2_PREFIX
from sam_spl.models.registry import (
    as_lists,
    build_model,
    built_from,
    channels_of,
    freeze_trunk,
    model_names,
    network_class,
)
from sam_spl.registry import is_reference
from sam_spl.weights.formats import Weights, read_weights
from sam_spl.weights.published import UNUSED, declared, stated_arguments

log = logging.getLogger(__name__)

_FEW = 4  # misfits that a message lists
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_weights(model: nn.Module, file: str | Path) -> nn.Module:
    """Load a file of any kind but SAM 2's into ``model``; all of it or an error.

    Some arguments change what weights mean and no tensor's shape (a network names them in ``not_in_shapes``).
    A file that was trained with other ones is refused. Where a file does not state one (of DATransNet's,
    published weights do not state ``train_size``), the model's own is taken and a warning says so.

    A trunk that was frozen when these weights were trained is frozen, unless the model was built with
    ``freeze_trunk=False``.

    Raises:
        InputError: names are missing, unexpected, misshapen or mistyped, or the weights are another
            variant's.
    """
    weights = _whole_network(read_weights(file, model))
    published = weights.published
    stated = (
        stated_arguments(weights.state, published) if published else weights.description.get("arguments", {})
    )
    decisive = getattr(model, "not_in_shapes", ())
    for key in decisive:
        theirs, own = (as_lists(value) for value in (stated.get(key), getattr(model, key)))
        if key in stated and theirs != own:
            raise InputError(
                f"{weights.path}: was trained with {key} {theirs}, the model has {own}. "
                f"Build the model with {key}={theirs} (model.{key}={theirs} on the command line)."
            )
    try:
        load_strict(model, weights.state, weights.path)
    except InputError as error:
        name, own = weights.description.get("model"), getattr(model, "built_from", {}).get("model")
        if name in (None, own):
            raise
        raise InputError(
            f"{weights.path}: these are weights of {name}, which do not fit {own}. Add model={name}, or give "
            f"weights of {own}."
        ) from error
    if weights.frozen_trunk:
        freeze_unless_told(model)
    unstated = [f"{key} ({as_lists(getattr(model, key))})" for key in decisive if key not in stated]
    if unstated:
        log.warning("%s does not state its %s: the model's own is taken", weights.path, ", ".join(unstated))
    return model


def load_model(
    file: str | Path, *, network: str | type[nn.Module] | None = None, **given: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model that a weights file describes and load it.

    Args:
        file: a file of ours, a run folder, or published weights, whose network and variant their shapes tell.
        network: the class of the file's network, or a reference to it (``module:Class``, ``file.py:Class``),
            built with the file's arguments. Needed where the network is not in ``configs/model/``: a file
            names such code, and only you can say that it is to be imported.
        **given: arguments that change no shape, where the file does not state them: ``train_size=256`` of
            published DATransNet weights. None, and those that belong to other networks, are ignored.

    Returns:
        The model in evaluation mode and what the file says of itself, the model's name and arguments always.

    Raises:
        InputError: as :func:`~sam_spl.weights.formats.read_weights` and :func:`load_weights`; a network that
            only ``network`` can name; an argument that is unknown, or not the file's.
        ConfigError: ``network`` or an argument's name is unknown.
    """
    cls = network_class(network) if isinstance(network, str) else network
    weights = _whole_network(read_weights(file, cls))
    description = dict(weights.description)
    if "model" not in description:
        description = {**_recognise(weights, cls), **description}
    name = description["model"]
    if cls is None and is_reference(name):
        raise InputError(
            f"{weights.path}: its network is {name}, code that is not imported because a file says so. Name "
            f"it yourself: model={name} on the command line, load_model(file, network=...) in Python."
        )
    try:
        cls = cls or network_class(name)
        arguments = _complete(weights, cls, description["arguments"], given)
        model = _built(weights, name, arguments) if network is None else build_model(network, **arguments)
    except ConfigError as error:
        raise InputError(
            f"{weights.path}: its description does not fit this version ({error}). Is its "
            "network in YAML files of your own? Add --config_dir DIR."
        ) from error
    _check_channels(weights.path, description, channels_of(model))
    load_strict(model, weights.state, weights.path)
    description["arguments"] = built_from(model)["arguments"]
    return model.eval(), description


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """``load_state_dict`` that changes nothing unless every name, shape and type fits, and lists what does
    not.

    Floating values may have 16, 32 or 64 bits, and are finite in the model's own.
    """
    own = module.state_dict()
    mistyped = _mistypes(own, state)
    state = {name: value for name, value in state.items() if not name.startswith(UNUSED)}
    _refuse([*_misfits(own, state), *mistyped], source)
    module.load_state_dict(state)


def _misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """The names that one side lacks, and those of another shape."""
    return [
        *(f"missing {name} {tuple(own[name].shape)}" for name in own if name not in state),
        *(f"unexpected {name} {tuple(state[name].shape)}" for name in state if name not in own),
        *(
            f"misshapen {name} {tuple(state[name].shape)}, the model has {tuple(own[name].shape)}"
            for name in own
            if name in state and own[name].shape != state[name].shape
        ),
    ]


def _refuse(problems: list[str], source: str | Path) -> None:
    if problems:
        more = f"; and {len(problems) - _FEW} more" if len(problems) > _FEW else ""
        shown = "; ".join(brief(problem, 100, quoted=False) for problem in problems[:_FEW])
        raise InputError(
            f"{source}: these weights do not fit this model (another variant? other switches? damaged?), "
            f"nothing was loaded: {shown}{more}"
        )


def _built(weights: Weights, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network that a file states; whether its weights fit is looked at before that takes any memory.

    Raises:
        InputError: they do not, or the network cannot be built from what the file states.
        ConfigError: as :func:`~sam_spl.models.registry.build_model`.
    """
    state = {key: value for key, value in weights.state.items() if not key.startswith(UNUSED)}
    try:
        with torch.device("meta"):
            own = build_model(name, **arguments).state_dict()
        if problems := _misfits(own, state):
            _refuse([*problems, *_mistypes(own, weights.state)], weights.path)
        return build_model(name, **arguments)
    except UserError:
        raise
    except Exception as error:  # whatever arguments of any value raise
        raise InputError(
            f"{weights.path}: its description is malformed: {name} cannot be built from its arguments "
            f"({brief(error, 120, quoted=False)}). Save or fetch the file again."
        ) from error


def freeze_unless_told(model: nn.Module) -> None:
    """Freeze the trunk, and remember that, where ``freeze_trunk`` was left open when the model was built."""
    arguments = getattr(model, "built_from", {}).get("arguments", {})
    if arguments.get("freeze_trunk", False) is None:
        freeze_trunk(model)


def _mistypes(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """The tensors that cannot be copied as they are, and why."""
    found = ((name, _mistyped(value, own.get(name))) for name, value in state.items())
    return [f"mistyped {name} {why}" for name, why in found if why]


def _mistyped(value: Tensor, own: Tensor | None) -> str | None:
    """What keeps a tensor of a file from being copied as it is; None where nothing does."""
    kind = str(value.dtype).removeprefix("torch.")
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return f"is not dense ({kind}, {value.layout}, {value.device})".replace("torch.", "")
    if own is None or not (own.is_floating_point() or value.is_complex()):
        return None
    if value.dtype not in _FLOATS:
        return f"is {kind}, the model has {own.dtype}".replace("torch.", "")
    return None if value.to(own.dtype).isfinite().all() else "has values that are not finite"


def _whole_network(weights: Weights) -> Weights:
    if weights.published is None and any(name.startswith(SAM2_PREFIX) for name in weights.state):
        raise InputError(
            f"{weights.path}: SAM 2 weights hold the trunk only. "
            f"Train with model.trunk_weights={weights.path}"
        )
    return weights


def _recognise(weights: Weights, network: type[nn.Module] | None) -> dict[str, Any]:
    """Which network weights without a description are of, by their names and shapes."""
    published = weights.published
    owners = [published] if published else [one for one in declared(network) if one.own_mark in weights.state]
    described = owners[0].describe(weights.state) if owners else None
    if described is None and network is not None:
        described = {"model": f"{network.__module__}:{network.__qualname__}"}
    if described is None:
        raise InputError(
            f"{weights.path}: does not state its network, and no known variant fits its shapes. "
            "Give weights of this toolkit or published weights."
        )
    fixed = published.arguments if published else {}
    return {**described, "arguments": {**fixed, **described.get("arguments", {})}}


def _complete(
    weights: Weights, network: type[nn.Module], stated: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments that a file states, with those that it leaves to the user."""
    decisive = getattr(network, "not_in_shapes", ())
    arguments = dict(stated)
    networks = [network, *map(network_class, model_names())]
    known = {key for one in networks for key in getattr(one, "not_in_shapes", ())}
    for key, value in given.items():
        if key not in known:
            raise TypeError(f"load_model: no argument {key!r}. Nearest: {nearest(key, known)}")
        if value is None or key not in decisive:
            continue
        own = as_lists(arguments.get(key))
        if own is not None and own != as_lists(value):
            raise InputError(f"{weights.path}: was trained with {key} {own}, not {value}. Leave {key}= out.")
        arguments[key] = value
    for key, why in getattr(getattr(network, "published", None), "unstated", {}).items():
        if arguments.get(key) is None:
            raise InputError(f"{weights.path}: {why}")
    return arguments


def _check_channels(path: Path, description: Mapping[str, Any], channels: int) -> None:
    contradiction = None
    if description.get("in_channels", channels) != channels:
        contradiction = f"in_channels is {description['in_channels']}"
    elif "mean" in description and len(description["mean"]) not in (1, channels):
        contradiction = f"mean and std have {len(description['mean'])} values"
    if contradiction:
        raise InputError(
            f"{path}: its description is malformed: {contradiction}, the network has {channels} channel(s). "
            "Save or fetch the file again."
        )
