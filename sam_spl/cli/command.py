"""What a command of ``sam-spl`` declares: the parser, ``--help`` and the messages are made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: on the command line, as in ``sam-spl check``.
        config: dataclass of its keys, ``omegaconf.MISSING`` where a value is required. The first line of its
            docstring heads ``--help``, the comment behind a field explains it. The module that holds it
            imports nothing heavy at its top.
        run: what it does: takes an instance of ``config``, or a :class:`~sam_spl.cli.grammar.Line` where
            ``groups`` are chosen. Imports what it needs inside.
        positional: keys that words without a key fill, in this order; a list takes all words that are left.
        aliases: flag -> key, as ``{"--epochs": "trainer.epochs", "-o": "output"}``. A flag without a key
            (None) takes its value and sets nothing.
        translate: flag or key -> what makes the value of a key from what was typed.
        alone: key -> the value that it has where none is given; switches have ``true``.
        groups: keys whose values are files of ``configs/``, for ``--help``.
        examples: whole command lines.
    """

    name: str
    config: type[Any]
    run: Callable[[Any], None]
    positional: tuple[str, ...] = ()
    aliases: Mapping[str, str | None] = field(default_factory=dict)
    translate: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    alone: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
