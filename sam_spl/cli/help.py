"""``--help`` of a command, from its dataclass: keys, defaults, and the comments behind them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING

from sam_spl.cli.command import Command
from sam_spl.config import group_files

_WIDTH = 110
_FILES = ", with defaults in brackets; recipes and data sets have others, and --config prints all"


def help_text(command: Command) -> str:
    """Usage, keys, flags, groups and examples."""
    words = "".join(f" {key.upper()}" for key in command.positional)
    usage = f"usage: sam-spl {command.name}{words} [--key value | key=value ...]"
    about = (inspect.getdoc(command.config) or "").split("\n\n")[0]
    parts = [usage, about, f"Keys{_FILES if command.groups else ''}:\n" + _keys(command.config)]
    aliases = {flag: key or "accepted; torchrun sets it" for flag, key in command.aliases.items()}
    if command.groups:
        aliases["-m"] = "one run for each combination of what is given as key=a,b"
        aliases["--config"] = "print the whole configuration and stop"
        aliases["--config_dir"] = "folder of your own model/, dataset/, recipe/, loss/, experiment/"
    if aliases:
        parts.append("Flags besides --key:\n" + _rows(list(aliases.items())))
    if command.groups:
        choices = [(group, ", ".join(group_files(group))) for group in command.groups]
        parts.append("Choices, from configs/:\n" + _rows(choices))
    if command.examples:
        parts.append("Examples:\n" + "\n".join(f"  {example}" for example in command.examples))
    return "\n\n".join(parts)


def overview(commands: dict[str, Command]) -> str:
    """The commands, one a line."""
    rows = [(name, (inspect.getdoc(of.config) or "").split("\n")[0]) for name, of in commands.items()]
    usage = "usage: sam-spl COMMAND [--key value | key=value ...]"
    more = "sam-spl COMMAND --help shows the keys of a command, with examples. --version shows the version."
    return "\n".join([usage, "", _rows(rows), "", more])


def comments(config: type[Any]) -> dict[str, str]:
    """The comment behind each field of a dataclass and its parents; none where the source is missing."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(cls)) if is_dataclass(cls) else ""
        except OSError:
            continue
        lines = source.splitlines()
        body = ast.parse(source).body
        for node in body[0].body if body and isinstance(body[0], ast.ClassDef) else []:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno:
                said = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                found[node.target.id] = " ".join(re.findall(r"(?:^|\s)# (.*)$", said, re.MULTILINE))
    return found


def _keys(config: type[Any]) -> str:
    rows = []
    for prefix, cls in _classes(config):
        if prefix:
            rows += [("", ""), (prefix, (inspect.getdoc(cls) or "").split("\n")[0])]
        said, hints = comments(cls), get_type_hints(cls)
        for one in fields(cls):
            if not is_dataclass(hints[one.name]):
                key = f"{prefix}.{one.name}".lstrip(".")
                rows.append((f"--{key}", f"{said.get(one.name, '')}{_default(one)}".strip()))
            elif not prefix and one.name in said:
                rows.append((f"--{one.name}", said[one.name]))
    return _rows(rows)


def _classes(config: type[Any]) -> list[tuple[str, type[Any]]]:
    inner = [(key, of) for key, of in get_type_hints(config).items() if isinstance(of, type)]
    return [("", config), *((key, of) for key, of in inner if is_dataclass(of))]


def _default(one: Field[Any]) -> str:
    value = one.default if one.default is not NO_DEFAULT else None
    if one.default_factory is not NO_DEFAULT:
        value = one.default_factory()
    if value == MISSING:
        return " (required)"
    if value is None or value in ([], {}, ""):
        return ""
    shown = str(value).lower() if isinstance(value, bool) else value
    return f" [{', '.join(map(str, shown)) if isinstance(shown, list) else shown}]"


def _rows(rows: list[tuple[str, str]]) -> str:
    width = min(32, max(len(name.strip()) for name, _ in rows) + 2)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, _WIDTH - width - 4) or [""]
        if len(name.strip()) + 1 > width:
            lines.append(f"  {name}")
            name = ""
        lines.append(f"  {name:<{width}}{wrapped[0]}".rstrip())
        lines += [" " * (width + 2) + line for line in wrapped[1:]]
    return "\n".join(lines)
