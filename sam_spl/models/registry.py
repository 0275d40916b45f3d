"""Networks by name: the files of ``configs/model/``, or ``module:Class`` for a network of your own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING, ListConfig

from sam_spl.config import group_file, group_files
from sam_spl.errors import ConfigError, nearest
from sam_spl.foreign import brief
from sam_spl.registry import import_object, is_reference

if TYPE_CHECKING:
    from torch import nn  # which takes seconds to import, and the configuration does without


_LARGEST = 1e30  # of a network's arguments: float32 holds a little more


@dataclass
class ModelConfig:
    """Which network, and the arguments of its constructor."""

    name: str = MISSING  # a file of configs/model/, or a class of your own: module:Class, file.py:Class
    arguments: dict[str, Any] = field(
        default_factory=dict
    )  # of the constructor; the others come from its YAML file
    suggested: dict[str, Any] = field(default_factory=dict)  # from the recipe, for arguments that are null
    trunk_weights: str | None = None  # auto | hub | a SAM 2 file; null: random weights

    def __post_init__(self) -> None:
        # A reference is imported when the network is built, not here: this may be what a file says.
        if self.name != MISSING and not is_reference(self.name):
            _check_names(self.name, self.arguments)

    @classmethod
    def named(cls, name: str, **arguments: Any) -> ModelConfig:
        """The configuration of a name, as its file has it but for ``arguments``.

        Raises:
            ConfigError: unknown name or argument.
        """
        file = {} if is_reference(name) else model_file(name)
        return cls(
            name,
            arguments={**file.get("arguments", {}), **arguments},
            trunk_weights=file.get("trunk_weights"),
        )


def model_names() -> list[str]:
    """The names that :func:`build_model` knows."""
    return list(group_files("model"))


def model_file(name: str) -> dict[str, Any]:
    """The content of ``configs/model/<name>.yaml``.

    ``name``; ``network``, the class as ``module:Class`` (or ``file.py:Class``, beside the YAML file);
    ``arguments`` of its constructor; ``recipe``, the one that ``recipe=auto`` takes. With a SAM 2 trunk also
    ``recipe_without_trunk_weights``, ``trunk_weights``, ``trunk_file`` and ``hub``.

    Raises:
        ConfigError: no such file.
    """
    return group_file("model", name)


def network_class(name: str) -> type[nn.Module]:
    """The class of a name of ``configs/model/``, or of a reference, which is imported.

    A reference has to come from the command line or from Python, never from a weights file.

    Raises:
        ConfigError: unknown name, or no such class.
    """
    if is_reference(name):
        return _class(name, "model")
    file = model_file(name)
    if "network" not in file:
        raise ConfigError(f"configs/model/{name}.yaml: has no network. Add network: module:Class.")
    where, _, of = file["network"].rpartition(":")
    beside = group_files("model")[name].parent / Path(where).expanduser()
    return _class(f"{beside if beside.is_file() else where}:{of}", f"configs/model/{name}.yaml: network")


def build_model(network: str | type[nn.Module], **arguments: Any) -> nn.Module:
    """Build a network with random weights.

    Args:
        network: one of :func:`model_names`, as in ``configs/model/``; ``module:Class``; or a class.
        **arguments: of the constructor, beside or instead of those of the file.

    Returns:
        The network, which remembers its name and all its arguments (:func:`built_from`) for
        :func:`sam_spl.weights.formats.save_weights`; those that its class names in ``only_at_start`` as None.

    Raises:
        ConfigError: unknown name or argument, or a value that the network does not take.
    """
    if isinstance(network, str):
        name, cls = network, network_class(network)
    else:
        name, cls = f"{network.__module__}:{network.__qualname__}", network
    _check_names(name, arguments, cls)
    defaults = {} if is_reference(name) else model_file(name).get("arguments", {})
    complete = {key: as_lists(value) for key, value in {**defaults, **arguments}.items()}
    _check_kinds(name, cls, complete)
    model = cls(**complete)
    if not isinstance(getattr(model, "in_channels", None), int):
        raise ConfigError(
            f"model {name}: has no in_channels. Set it in the class to the channels of its input."
        )
    passed = getattr(cls, "only_at_start", ())
    remembered = {key: None if key in passed else value for key, value in complete.items()}
    vars(model)["built_from"] = {"model": name, "arguments": remembered}
    return model


def channels_of(model: nn.Module) -> int:
    """The channels of a network's input."""
    channels = getattr(model, "in_channels", None)
    assert isinstance(channels, int)
    return channels


def built_from(model: nn.Module) -> dict[str, Any]:
    """What :func:`build_model` built a network from: ``model``, its name, and ``arguments``."""
    made: dict[str, Any] = vars(model)["built_from"]
    return made


def is_trainable(network: nn.Module | type[nn.Module]) -> bool:
    """Whether training changes anything in a network: false where it says ``trainable = False``."""
    return bool(getattr(network, "trainable", True))


def freeze_trunk(model: nn.Module) -> None:
    """Freeze the trunk of a network that has one, and remember that in its arguments."""
    freeze = getattr(model, "freeze_trunk", None)
    assert callable(freeze)
    built_from(model)["arguments"]["freeze_trunk"] = True
    freeze()


def build(config: ModelConfig) -> nn.Module:
    """Build a network to train, as configured, with what its recipe suggests.

    Raises:
        ConfigError: as :func:`build_model`, or it has nothing to train.
    """
    if not is_trainable(network_class(config.name)):
        raise ConfigError(
            f"model: {config.name} has nothing to train. Test it at once: "
            f"sam-spl test --model {config.name} --dataset NAME"
        )
    defaults = {} if is_reference(config.name) else model_file(config.name).get("arguments", {})
    said = {**defaults, **config.arguments}
    known = inspect.signature(network_class(config.name)).parameters
    suggested = {
        key: value for key, value in config.suggested.items() if key in known and said.get(key) is None
    }
    return build_model(config.name, **{**config.arguments, **suggested})


def as_lists(value: Any) -> Any:
    """A value as JSON gives it back: tuples and OmegaConf's lists become lists."""
    if isinstance(value, list | tuple | ListConfig):
        return [as_lists(one) for one in value]
    return {key: as_lists(one) for key, one in value.items()} if isinstance(value, Mapping) else value


def _class(reference: str, key: str) -> type[nn.Module]:
    from torch import nn

    found = import_object(reference, key)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ConfigError(f"{key}: {reference} is not a network. Give a class that is a torch.nn.Module.")
    return found


def _check_names(name: str, arguments: Mapping[str, Any], network: type[nn.Module] | None = None) -> None:
    """Every argument is one of the file's, or of the constructor's where there is no file."""
    if is_reference(name):
        parameters = inspect.signature(network or network_class(name)).parameters
        if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            return
        known = list(parameters)
    else:
        known = list(model_file(name).get("arguments", {}))
    for key in arguments:
        if key not in known:
            raise ConfigError(f"model.{key}: {name} has no such argument. Nearest: {nearest(key, known)}")


def _check_kinds(name: str, network: type[nn.Module], arguments: dict[str, Any]) -> None:
    """Every argument is there and of the kind that the constructor declares."""
    try:
        inspect.signature(network).bind(**arguments)
    except TypeError as error:
        remedy = "Give it as model.NAME=VALUE" if is_reference(name) else f"Correct configs/model/{name}.yaml"
        raise ConfigError(f"model {name}: {error}. {remedy}.") from error
    try:
        kinds = get_type_hints(network.__init__)
    except NameError:  # annotations of names that are imported for type checkers only
        kinds = {}
    for key, value in arguments.items():
        if not _fits(value, kinds.get(key, Any)):
            declared = inspect.signature(network).parameters[key].annotation
            raise ConfigError(f"model.{key}: {brief(value)} is not of the kind {declared}.")


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        of = get_args(kind)
        if not isinstance(value, list | tuple) or (of[-1] is not Ellipsis and len(value) != len(of)):
            return False
        each = of[:1] * len(value) if of[-1] is Ellipsis else of
        return all(map(_fits, value, each))
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool) and abs(value) < _LARGEST
    return kind is Any or isinstance(value, kind if isinstance(kind, type) else object)
