"""What a command of ``sam-spl`` declares of itself; the parser, ``--help`` and the messages are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: on the command line, as in ``sam-spl check``.
        config: dataclass of its keys, ``omegaconf.MISSING`` where a value is required. The first line of its docstring
            heads ``--help``, the comment behind a field explains it. The module that holds it imports nothing heavy
            at its top.
        run: what it does: takes an instance of ``config``. Imports what it needs inside.
        positional: keys that words without a key fill, in this order; one that is a list takes all that are left.
        aliases: flag -> key, as ``{"--epochs": "trainer.epochs", "-o": "output"}``.
        examples: whole command lines.
    """

    name: str
    config: type[Any]
    run: Any
    positional: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
