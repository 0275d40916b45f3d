"""Several jobs in one command: ``key=a,b`` and, in testing, ``key=[a,b]``."""

from __future__ import annotations

import gc
import itertools
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam_spl.cli.compose import TRAIN_GROUPS
from sam_spl.cli.grammar import Word, split
from sam_spl.engine.config import RuntimeConfig
from sam_spl.errors import ConfigError, Stopped, UserError, message

if TYPE_CHECKING:
    from sam_spl.results.folder import Result
    from sam_spl.runtime import World

_MOST = 1000  # jobs of one command


@dataclass(frozen=True)
class Job:
    """One of the things that a command does.

    Attributes:
        name: what is special about it; empty for a single one.
        words: its command line.
    """

    name: str
    words: list[Word]


def jobs(words: Sequence[Word], *, several: Sequence[str] = (), multirun: bool = False) -> list[Job]:
    """One job for each combination of the values that keys have.

    Args:
        words: of the command line.
        several: keys that take ``a,b`` and ``[a,b]`` for one after the other without ``-m``.
        multirun: with ``-m`` every key takes ``a,b`` so.

    Raises:
        ConfigError: there are too many combinations, or two would have one name.
    """
    last = {word.key: word for word in words}  # of two for one key the later one counts
    choices = [_choices(word, multirun or word.key in several, word.key in several) for word in last.values()]
    swept = [options for options in choices if len(options) > 1]
    count = math.prod(map(len, choices))
    if count > _MOST:
        of = ", ".join(f"{options[0].key} ({len(options)})" for options in swept)
        raise ConfigError(f"{of}: the values make {count} jobs; one command takes at most {_MOST}.")
    found: list[Job] = []
    for combination in itertools.product(*choices):
        special = [word for word in combination if any(word in options for options in swept)]
        job = Job("-".join(map(_label, special)), list(combination))
        for other in found:
            if other.name == job.name:
                theirs = [
                    word for word in other.words if last[word.key] in [last[one.key] for one in special]
                ]
                both = f"{' '.join(map(str, theirs))} and {' '.join(map(str, special))}"
                raise ConfigError(
                    f"{both} would both be named {job.name}. Start them one by one, or rename one."
                )
        found.append(job)
    return found


def _choices(word: Word, spread: bool, lists: bool) -> list[Word]:
    text = word.text
    if not spread or not isinstance(text, str):
        return [word] if isinstance(text, str) or not lists else [Word(word.key, one) for one in text]
    parts = [part for one in split(text) for part in (_spread(one) if lists else (one,))]
    return [Word(word.key, part) for part in parts] or [Word(word.key, "")]


def _spread(text: str) -> tuple[str, ...]:
    return split(text[1:-1]) if text.startswith("[") and text.endswith("]") else (text,)


def _label(word: Word) -> str:
    """How a value is written in a folder's name; a weights file with its run, since all are ``best.pt``."""
    text = str(word.text).strip("'\"").rstrip("/")
    parts = text.split("/")
    is_file = word.key == "weights" and Path(parts[-1]).suffix in (".pt", ".pth", ".safetensors", ".onnx")
    shown = parts[-2:] if is_file else parts[-1:]
    if {".", ".."} & {*shown}:  # no names of folders to write into
        shown = list(Path(text).resolve().parts[-len(shown) :])
    value = re.sub(r"[^\w.+-]+", "_", "_".join(shown))
    by_value = word.key in TRAIN_GROUPS or word.key == "weights"
    return value if by_value else f"{word.key.rpartition('.')[2]}={value}"


def one_after_the_other(
    configs: Mapping[str, RuntimeConfig], one: Callable[[str, World], Sequence[Result | None]]
) -> None:
    """Run all; what fails does not keep the rest from running. Several results end in one table.

    Of several processes one may fail alone, and the others would wait for it: then a failure ends them all.

    Raises:
        ConfigError: they do not run on the same devices.
    """
    from sam_spl.results.compare import table
    from sam_spl.runtime import distributed

    results, failed = list["Result"](), dict[str, type[UserError]]()
    first = next(iter(configs.values()))
    shared = ("device", "use_ddp", "deterministic")
    if any(getattr(config, key) != getattr(first, key) for config in configs.values() for key in shared):
        raise ConfigError(f"{', '.join(shared)}: jobs of one command share them. Start them one by one.")
    with distributed(first.device, use_ddp=first.use_ddp, deterministic=first.deterministic) as world:
        for count, name in enumerate(configs, 1):
            if len(configs) > 1 and world.main:
                print(f"\n[{count}/{len(configs)}] {name}", flush=True)
            if count > 1:
                gc.collect()  # the network of the job before may wait in a cycle, with a GPU's memory
            try:
                results += [result for result in one(name, world) if result is not None]
            except UserError as error:
                if len(configs) == 1 or world.size > 1:
                    raise
                failed[name] = type(error)  # alone: the error holds the network, in its traceback
                print(f"error: {message(error)}", file=sys.stderr)
            except Stopped as stopped:
                if left := len(configs) - count:
                    raise Stopped(
                        f"{stopped} ({left} more jobs wait; this command with resume=auto goes on)"
                    ) from None
                raise
        if len(results) > 1 and world.main:
            print(f"\n{table([result.report for result in results])}")
    if failed:
        worst = next(iter(failed.values()))
        raise worst(f"{len(failed)} of {len(configs)} failed: {', '.join(failed)}")
