"""Published weights: the mechanism. What is peculiar to a network is declared beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from sam_spl.errors import InputError
from sam_spl.models.published import Published
from sam_spl.models.registry import as_lists, model_file, model_names, network_class
from sam_spl.registry import is_reference

T = TypeVar("T")
Names = tuple[tuple[str, str], ...]

#: What published files hold and no network uses: kept in converted files under this prefix, ignored on
#: loading.
UNUSED = "unused."


def to_published(state: Mapping[str, T], published: Published) -> dict[str, T]:
    """Rename a state dict of ours to the published names."""
    return rename(state, tuple(published.names))


def from_published(state: Mapping[str, T], published: Published) -> dict[str, T]:
    """Rename a published state dict to our names."""
    return rename(state, tuple((theirs, ours) for ours, theirs in published.names))


def rename(state: Mapping[str, T], names: Names) -> dict[str, T]:
    """Rename by a table of (from, to) beginnings of names, where ``#`` stands for one number."""
    rules = _compile(names)
    return {_rename(name, rules): value for name, value in state.items()}


def declared(network: Any = None) -> list[Published]:
    """What networks declare: ``network`` (a class or a model) first, then those of ``configs/model/``."""
    networks = [network, *map(network_class, model_names())]
    return list(dict.fromkeys(one for of in networks if (one := getattr(of, "published", None)) is not None))


def identify(state: Mapping[str, Tensor], network: Any = None) -> tuple[dict[str, Tensor], Published | None]:
    """A plain state dict under our names, and whose published weights it is; None where it is not published.

    Args:
        state: as a file holds it; ``module.`` (parallel training) and ``model.`` (a module that wraps the
            network) before all names are dropped.
        network: a class or a model whose own declaration is tried first.
    """
    state = _without("module.", state)
    for published in declared(network):
        named = state
        for prefix in ("model.", "module.", published.prefix):
            named = _without(prefix, named)
        if all(any(name.startswith(mark) for name in named) for mark in published.marks):
            return from_published(named, published), published
    return state, None


def stated_arguments(state: Mapping[str, Tensor], published: Published) -> dict[str, Any]:
    """The arguments that the published code built this network with, as far as they are known."""
    described = published.describe(state) or {}
    variant = model_file(described["model"]).get("arguments", {}) if described else {}
    known = {key: value for key, value in variant.items() if key not in published.unstated}
    return {**known, **published.arguments, **described.get("arguments", {})}


def published_file(state: Mapping[str, Tensor], description: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What the published code loads; tensors that nothing uses are zeros, if the weights did not bring them.

    Args:
        state: tensors under our names.
        description: of the weights, as far as there is one.
        path: of the file, for messages.

    Raises:
        InputError: no published code for this network, or it would compute something else with these weights.
    """
    name = description.get("model")
    network = None if name is None or is_reference(name) else network_class(name)
    published = next((one for one in declared(network) if one.own_mark in state), None)
    if published is None:
        raise InputError(
            f"{path}: {name or 'this network'} declares no published names. Write a file of this toolkit "
            "(--to ours)."
        )
    trained = description.get("arguments", {})
    decisive = getattr(network, "not_in_shapes", ())
    for key, value in stated_arguments(state, published).items():
        if key in decisive and as_lists(trained.get(key, value)) != value:
            raise InputError(
                f"{path}: the published code has {key} {value}, these weights have {trained[key]} and "
                f"would give other results there. Train with model.{key}={value} for weights of that code."
            )
    complete = {**published.unused(state), **state}
    named = to_published(complete, published).items()
    return published.wrap({published.prefix + name: value for name, value in named})


def _without(prefix: str, state: Mapping[str, T]) -> dict[str, T]:
    if not all(name.startswith(prefix) for name in state):
        return dict(state)
    return {name.removeprefix(prefix): value for name, value in state.items()}


@cache
def _compile(names: Names) -> list[tuple[re.Pattern[str], str]]:
    rules = []
    for source, target in names:
        pattern = re.escape(source).replace(r"\#", r"(\d+)") + r"(?=\.|$)"
        first, *parts = target.split("#")
        numbered = first + "".join(rf"\g<{k}>{part}" for k, part in enumerate(parts, 1))
        rules.append((re.compile(pattern), numbered))
    return rules


def _rename(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in rules:
        if match := pattern.match(name):
            return match.expand(target) + name[match.end() :]
    return name
