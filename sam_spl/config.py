"""Typed configuration from plain values, and where the YAML files are that hold such values.

The dataclasses stand beside what they configure and check their values in ``__post_init__``; here is what all
of them share. Nothing heavy is imported, since ``--help`` needs it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sam_spl.errors import ConfigError, nearest
from sam_spl.errors import plain as plain_name
from sam_spl.foreign import brief, require_regular

T = TypeVar("T")

#: Sides in pixels of a network's square input.
SMALLEST_SIDE, LARGEST_SIDE = 32, 8192
_MOST_RESAMPLES = 100_000
_LONGEST_NAME = 200  # bytes, of the 255 that file systems take
_MOST_VALUES = 20_000  # in a YAML file, what its aliases repeat included

_own_folders: list[Path] = []

#: What reading a YAML file that is damaged, or made to do harm, raises.
_UNREADABLE = (
    OSError,
    ValueError,
    RecursionError,
    AttributeError,
    TypeError,
    yaml.YAMLError,
    OmegaConfBaseException,
)


def config_folder() -> Path:
    """The toolkit's folder of YAML files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def weights_folder() -> Path:
    """Where the weights that come with the toolkit are: in ``checkpoints/``, or inside a wheel's package."""
    return config_folder().parent / "checkpoints"


def add_config_folder(folder: str | Path) -> None:
    """Use the groups (``model/ dataset/ recipe/ loss/ experiment/``) in your own folder as well.

    Raises:
        ConfigError: no such folder.
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(
            f"config_dir: no folder {path}. It holds model/, dataset/, recipe/, loss/ or experiment/."
        )
    for group in ("model", "dataset", "recipe", "loss", "experiment"):
        others = [folder / group for folder in config_folders() if folder != path]
        known = {file.name for folder in others for file in folder.glob("*.yaml")}
        taken = known & {file.name for file in (path / group).glob("*.yaml")}
        if taken:
            raise ConfigError(
                f"config_dir: {path / group} has {', '.join(sorted(taken))}, which is a name already. "
                "Give the file another name."
            )
    if path not in _own_folders:
        _own_folders.append(path)


def config_folders() -> list[Path]:
    """All folders of YAML files; the toolkit's own comes last."""
    return [*_own_folders, config_folder()]


def group_files(group: str) -> dict[str, Path]:
    """The choices of a group: name -> file."""
    files: dict[str, Path] = {}
    for folder in config_folders():
        for path in sorted((folder / group).glob("*.yaml")):
            files.setdefault(path.stem, path)
    return dict(sorted(files.items()))


def choice_named(group: str, name: str) -> str:
    """The choice of a group that a name means in any case, hyphens and underscores.

    Returns:
        ``name`` itself where it is a choice, and where none or several are spelled so.
    """
    files = group_files(group)
    alike = [choice for choice in files if plain_name(choice) == plain_name(name)]
    return alike[0] if name not in files and len(alike) == 1 else name


def group_file(group: str, name: str) -> dict[str, Any]:
    """The content of one choice of a group, with its interpolations resolved where they can be.

    Raises:
        ConfigError: no such choice, or its file cannot be read.
    """
    files = group_files(group)
    if name not in files:
        raise ConfigError(f"{group}: {name!r} is unknown. Nearest: {nearest(name, files)}")
    return _content(files[name], resolve=True)


def check_group_file(group: str, path: Path) -> None:
    """Whether a file of a group can be composed.

    Raises:
        ConfigError: it cannot be read, or a recipe or experiment lacks its first line.
    """
    _content(path, resolve=False)
    first = next((line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()), "")
    if group in ("recipe", "experiment") and not re.fullmatch(r"#\s*@package\s+_global_", first):
        raise ConfigError(f"{path}: sets nothing. Make '# @package _global_' its first line.")


def _content(path: Path, *, resolve: bool) -> dict[str, Any]:
    try:
        require_regular(path)
        if _expanded(yaml.compose(path.read_text("utf-8"), yaml.SafeLoader), {}) > _MOST_VALUES:
            raise yaml.YAMLError("its aliases repeat too much")
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=resolve)
    except _UNREADABLE as error:
        text = brief(error, 300, quoted=False)
        raise ConfigError(f"{path}: cannot be read ({text}). Correct or remove the file.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no key: value. Correct or remove the file.")
    return {str(key): value for key, value in content.items()}


def _expanded(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many values a YAML node holds where aliases are written out; infinitely many if it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        pairs = (one if isinstance(one, tuple) else (one,) for one in inner)
        known[id(node)] = 1 + sum(_expanded(one, known) for pair in pairs for one in pair)
    return known[id(node)]


def read(cls: type[T], values: Mapping[str, Any], at: str = "") -> T:
    """An instance of a dataclass of settings from plain values, types and rules checked.

    Args:
        cls: the dataclass; its fields are numbers, text, lists, tables or further such classes.
        values: by field name; what is absent keeps its default.
        at: key of the whole, for messages.

    Raises:
        ConfigError: an unknown key (with the nearest valid ones), a value of another kind, or a broken rule.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls), dict(values))
        result = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        cause = error.__cause__ if isinstance(error.__cause__, ConfigError) else None
        raise cause or ConfigError(explain(error, cls, at)) from error
    except RecursionError as error:  # OmegaConf's names every level
        raise ConfigError(f"{at or 'configuration'}: values are nested too deep.") from error
    assert isinstance(result, cls)
    return result


def plain(settings: Any) -> dict[str, Any]:
    """The plain values of a dataclass of settings: what :func:`read` makes it from again."""
    return {one.name: _plain(getattr(settings, one.name)) for one in fields(settings)}


def check_types(settings: Any, at: str = "") -> None:
    """Check the fields of settings that were made in Python; numbers of NumPy and paths become plain values.

    Args:
        settings: an instance of a dataclass, from its ``__post_init__``.
        at: key of the whole, for messages.

    Raises:
        ConfigError: a value is of another type than its field.
    """
    hints = get_type_hints(type(settings))
    for one in fields(settings):
        value, kind = getattr(settings, one.name), hints[one.name]
        allowed = get_args(kind) if get_origin(kind) is UnionType else (kind,)
        if not is_dataclass(value) and value != MISSING:
            value = _plain(value)
            setattr(settings, one.name, float(value) if float in allowed and type(value) is int else value)
            value = getattr(settings, one.name)
        if value != MISSING and not any(_is(value, each) for each in allowed):
            names = " or ".join("null" if each is NoneType else _named(each) for each in allowed)
            raise ConfigError(f"{at}.{one.name}".lstrip(".") + f": {value!r} is not {names}.")


def _is(value: Any, kind: Any) -> bool:
    kind = get_origin(kind) or kind
    return kind is Any or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool)))


def _named(kind: Any) -> str:
    if isinstance(kind, type) and is_dataclass(kind):
        return f"a {kind.__name__}"
    return _KINDS.get(get_origin(kind) or kind, str(kind))


_KINDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _plain(value: Any) -> Any:
    """As JSON and YAML have it: tables, lists, text, numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, PurePath):
        return str(value)
    return value.item() if hasattr(value, "item") and not isinstance(value, str | bytes) else value


def explain(error: OmegaConfBaseException, cls: type[Any], at: str = "") -> str:
    """OmegaConf's message in one line, with the key and the nearest valid ones."""
    text = " ".join(str(error).split())
    full = str(getattr(error, "full_key", None) or "")
    key = f"{at}.{full}".strip(".") or "configuration"
    if match := re.search(r"Key '([^']+)' not in '", text):
        return f"{key}: no such key. Nearest: {nearest(match[1], keys_of(cls))}"
    if match := re.search(r"Value '(.*?)' (?:of type '\S+' )?could not be converted to (\w+)", text):
        kind = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}.get(
            match[2], match[2]
        )
        return f"{key}: {match[1]!r} is not {kind}."
    return f"{key}: {text[:300]}"


def keys_of(cls: type[Any], prefix: str = "") -> list[str]:
    """Every key of a dataclass of settings, ``a.b`` for those inside others."""
    hints = get_type_hints(cls)
    keys = []
    for field in fields(cls):
        keys.append(prefix + field.name)
        if is_dataclass(hints[field.name]):
            keys += keys_of(hints[field.name], f"{prefix}{field.name}.")
    return keys


def require(holds: bool, key: str, value: Any, rule: str) -> None:
    """Refuse a value.

    Raises:
        ConfigError: ``holds`` is false; the message is "KEY: VALUE is not valid, RULE."
    """
    if not holds:
        raise ConfigError(f"{key}: {brief(value, quoted=False)} is not valid, {rule}.")


def require_side(value: int | None, key: str, *, least: int = SMALLEST_SIDE) -> None:
    """Refuse a side in pixels that no image and no network's input has; None is allowed.

    Raises:
        ConfigError: it is below ``least`` or above :data:`LARGEST_SIDE`.
    """
    rule = (
        f"must be at least {least} pixels"
        if value is None or value < least
        else (f"must be at most {LARGEST_SIDE} pixels")
    )
    require(value is None or least <= value <= LARGEST_SIDE, key, value, rule)


def require_resamples(value: int, key: str = "bootstrap") -> None:
    """Refuse a number of resamples that is negative, or takes hours.

    Raises:
        ConfigError: it does.
    """
    rule = f"give a number of resamples up to {_MOST_RESAMPLES}, or 0"
    require(0 <= value <= _MOST_RESAMPLES, key, value, rule)


def require_folder(value: str | None, key: str) -> None:
    """Refuse what cannot name a folder on any file system; None is allowed.

    Raises:
        ConfigError: it is blank, or a part of it is too long.
    """
    named = value is None or bool(value.strip())
    require(named, key, "''", "name a folder")
    short = all(len(part.encode("utf-8", "surrogateescape")) < 256 for part in (value or "").split("/"))
    require(short and len(value or "") < 4096, key, value, "the name is too long")


def is_name(text: str) -> bool:
    """Whether text can be the name of one file or folder, which lies where it is put."""
    short = 0 < len(text.encode("utf-8", "replace")) <= _LONGEST_NAME
    return short and text.isprintable() and not {*"/\\"} & {*text} and text.strip(". ") != ""


def require_choice(value: Any, key: str, choices: Iterable[Any]) -> None:
    """Refuse a value that is not one of ``choices``.

    Raises:
        ConfigError: it is not.
    """
    choices = tuple(choices)
    shown = ", ".join("null" if choice is None else str(choice) for choice in choices)
    require(value in choices, key, value, f"choose one of {shown}")
