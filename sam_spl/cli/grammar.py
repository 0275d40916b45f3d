"""The grammar of every command: ``--key value`` and ``key=value`` alike, values by their type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from sam_spl.cli.command import Command
from sam_spl.config import read
from sam_spl.errors import ConfigError, nearest


@dataclass(frozen=True)
class Word:
    """One key with what was typed for it: one text, or the texts of a list."""

    key: str
    text: str | tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}={self.text if isinstance(self.text, str) else '[' + ','.join(self.text) + ']'}"


@dataclass
class Line:
    """A command line that was understood.

    Attributes:
        words: in the order given; of two for one key the later one counts.
        options: ``--config``, ``-m`` and ``--help`` as far as they were given.
    """

    words: list[Word] = field(default_factory=list)
    options: set[str] = field(default_factory=set)


_OPTIONS = {"-h": "help", "--help": "help", "-m": "multirun", "--multirun": "multirun", "--config": "config"}
_BOOLEANS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def own_folders(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The folders that ``--config_dir`` names, whose files other words may name, and those words."""
    folders, rest, words = list[str](), list[str](), list(argv)
    while words:
        name, equals, value = (word := words.pop(0)).partition("=")
        if name != "--config_dir" and (name != "config_dir" or not equals):
            rest.append(word)
        elif equals or words:
            folders.append(value if equals else words.pop(0))
        else:
            raise ConfigError("--config_dir: a value is missing.")
    return folders, rest


def kinds(config: type[Any], prefix: str = "") -> dict[str, Any]:
    """Type of every key, ``a.b`` for those of a nested class; the class itself for its own key."""
    hints = get_type_hints(config)
    found = {}
    for one in fields(config):
        found[prefix + one.name] = hints[one.name]
        if is_dataclass(hints[one.name]):
            found |= kinds(hints[one.name], f"{prefix}{one.name}.")
    return found


def parse(argv: Sequence[str], command: Command) -> Line:
    """Understand a command line.

    Raises:
        ConfigError: an unknown flag or key (with the nearest valid ones), or a flag without its value.
    """
    known, line, bare = kinds(command.config), Line(), list[str]()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        is_flag = len(word) > 1 and word.startswith("-")
        if word in _OPTIONS and (word not in ("-m", "--multirun", "--config") or command.groups):
            line.options.add(_OPTIONS[word])
            continue
        if not is_flag and not equals:
            bare.append(word)
            continue
        if not is_flag and command.positional and not name.lstrip("+").replace(".", "").isidentifier():
            bare.append(word)  # a file whose name holds "="
            continue
        key = _key(name, known, command)
        texts = [value] if equals else _values(name, key, rest, known, command)
        if key is not None:
            change = command.translate.get(name) or command.translate.get(key, str)
            texts = [change(text) for text in texts]
            line.words.append(Word(key, texts[0] if len(texts) == 1 else tuple(texts)))
    line.words = [*_positional(bare, known, command), *line.words]
    return line


def configure(line: Line, command: Command) -> Any:
    """The settings of a command that has no groups.

    Raises:
        ConfigError: a value of another kind, a broken rule, or a required value that is missing.
    """
    known = kinds(command.config)
    values = {word.key: convert(word, known[word.key]) for word in line.words}
    for one in fields(command.config):
        if one.default is not NO_DEFAULT and one.default == MISSING and one.name not in values:
            given = one.name.upper() if one.name in command.positional else f"--{one.name} VALUE"
            raise ConfigError(f"{one.name}: a value is required: {given}. --help shows examples.")
    return read(command.config, values)


def convert(word: Word, kind: Any) -> Any:
    """What was typed as a value of a type: text stays as it is, the rest is read as YAML-like values.

    Raises:
        ConfigError: it cannot be read so.
    """
    if isinstance(kind, type) and is_dataclass(kind):
        raise ConfigError(
            f"{word.key}: holds keys of its own, as --{word.key}.{fields(kind)[0].name} {word.text}"
        )
    of, text = _inner(kind), word.text
    if of != [kind] and text in ("null", "None"):
        return None
    if get_origin(of[0]) is list:
        return _list(word, get_args(of[0])[0])
    if not isinstance(text, str):
        raise ConfigError(f"{word.key}: {len(text)} values ({' '.join(text)}), one is expected.")
    if str in of:
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        return text[1:-1] if quoted else text
    if bool in of and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    return _parsed(word.key, text)


def _list(word: Word, of: Any) -> list[Any]:
    texts = word.text
    if isinstance(texts, str):
        inside = texts.strip()
        texts = split(inside[1:-1] if inside.startswith("[") and inside.endswith("]") else inside)
    return [convert(Word(word.key, text), of) for text in texts]


def split(text: str) -> tuple[str, ...]:
    """The parts between commas that stand in no bracket and no quotation mark."""
    parts, depth, quote, start = [], 0, "", 0
    for position, mark in enumerate(text):
        if quote:
            quote = "" if mark == quote else quote
        elif mark in "'\"":
            quote = mark
        elif mark in "[{(":
            depth += 1
        elif mark in ")}]":
            depth -= 1
        elif mark == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return tuple(part.strip() for part in [*parts, text[start:]] if part.strip())


def _parsed(key: str, text: str) -> Any:
    # Half of what --help would import.
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"x={text}").value()
    except HydraException as error:
        raise ConfigError(f"{key}: {text!r} cannot be read as a value.") from error


def _key(name: str, known: dict[str, Any], command: Command) -> str | None:
    """The key that a flag or the left side of ``key=value`` means; None for a flag that sets nothing."""
    if name in command.aliases:
        return command.aliases[name]
    bare = (name[2:] if name.startswith("--") else name.lstrip("+")).replace("@_global_", "")
    if bare in known or bare in command.groups:
        return bare
    parts = bare.split(".")
    if any(get_origin(known.get(".".join(parts[:k]))) is dict for k in range(1, len(parts))):
        return bare  # your own keys may follow
    flags = [f"--{key}" for key in known] if name.startswith("-") else list(known)
    for group in ("model", "loss"):  # model.block is short for model.arguments.block
        if bare.startswith(f"{group}.") and f"{group}.arguments" in known:
            return (
                bare
                if bare.startswith(f"{group}.arguments.")
                else f"{group}.arguments.{bare[len(group) + 1 :]}"
            )
    more, what = (command.aliases, "flag") if name.startswith("-") else (command.groups, "key")
    raise ConfigError(f"{name}: unknown {what}. Nearest: {nearest(name, [*flags, *more])}. --help lists all.")


def _values(
    name: str, key: str | None, rest: list[str], known: dict[str, Any], command: Command
) -> list[str]:
    """Take the values of a flag from the words that follow it."""
    kind = known.get(key or "")
    alone = "true" if kind is bool else command.alone.get(key or "")
    if alone is not None and (
        not rest or not _is_value(rest[0]) or (kind is bool and rest[0].lower() not in _BOOLEANS)
    ):
        return [alone]
    if not rest or (rest[0].startswith("--") and len(rest[0]) > 2):
        raise ConfigError(f"{name}: a value is missing.")
    texts = [rest.pop(0)]
    if _is_list(kind):
        while rest and _is_value(rest[0]):
            texts.append(rest.pop(0))
    return texts


def _positional(bare: list[str], known: dict[str, Any], command: Command) -> list[Word]:
    """Words without a key, by their place."""
    words = []
    for key in command.positional:
        if bare and _is_list(known[key]):
            words.append(Word(key, tuple(bare)))  # file names: their commas and brackets separate nothing
            bare = []
        elif bare:
            words.append(Word(key, bare.pop(0)))
    if bare:
        raise ConfigError(f"{bare[0]!r} is neither a flag nor key=value. Write --key value or key=value.")
    return words


def _inner(kind: Any) -> list[Any]:
    """The types of a value that may be null as well, or the one of a value that may not."""
    optional = get_origin(kind) in (Union, UnionType)
    return [one for one in get_args(kind) if one is not type(None)] if optional else [kind]


def _is_list(kind: Any) -> bool:
    return any(get_origin(one) is list for one in _inner(kind))


def _is_value(word: str) -> bool:
    """Whether a word behind a flag is its value, and not the next flag or ``key=value``."""
    name, equals, _ = word.partition("=")
    return not re.match(r"-(?!\.?\d).", word) and not (equals and name.replace(".", "").isidentifier())
