"""Several runs in one command: ``key=a,b`` and ``key=[a,b]``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from sam_spl.cli.flags import explain, quote
from sam_spl.config import config_folder
from sam_spl.errors import ConfigError


def as_union(overrides: Sequence[str]) -> list[str]:
    """``dataset=[a,b]`` of training: the two as one set."""
    return [
        word
        for override in overrides
        for word in (
            ["dataset=union", f"dataset.members={override.removeprefix('dataset=')}"]
            if override.startswith("dataset=[")
            else [override]
        )
    ]


def as_sweep(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """``key=[a,b]`` of testing: one after the other, as ``key=a,b``."""
    spread = []
    for override in overrides:
        key, _, value = override.partition("=")
        value = value.strip("'") if value.startswith("'[") else value  # a flag's value is quoted
        if key in keys and value.startswith("["):
            names = (name.strip() for name in value[1:-1].split(","))
            override = f"{key}={','.join(quote(name) if key == 'weights' else name for name in names)}"
        spread.append(override)
    return spread


def jobs(overrides: Sequence[str], *, multirun: bool) -> dict[str, list[str]]:
    """One list of overrides for each combination of the values that are swept, as ``model=a,b``, by what is special.

    Raises:
        ConfigError: several values for a key, but no ``multirun``; two combinations of one name; or an override that
            Hydra cannot read.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(explain(error, "")) from error
    swept = [word for word in parsed if word.is_sweep_override()]
    if not swept:
        return {"": list(overrides)}
    if not multirun:
        raise ConfigError(
            f"{swept[0].input_line}: several values. Add -m to run one after the other, or write "
            f"{swept[0].key_or_group}=[...] for a list."
        )
    fixed = [str(word.input_line) for word in parsed if not word.is_sweep_override()]
    choices = [[(word, value) for value in word.sweep_string_iterator()] for word in swept]
    named: dict[str, list[str]] = {}
    for combination in itertools.product(*choices):
        name = "-".join(_label(word.key_or_group, value) for word, value in combination)
        words = [f"{word.get_key_element()}={value}" for word, value in combination]
        if name in named:
            same = f"{' '.join(named[name][len(fixed) :])} and {' '.join(words)}"
            raise ConfigError(f"{same} would both be called {name}. Start them one by one, or rename one.")
        named[name] = [*fixed, *words]
    return named


def _label(key: str, value: str) -> str:
    """How a swept value is called in a folder's name; a file of weights with its run, since runs call theirs alike."""
    parts = value.strip("'").rstrip("/").split("/")
    last = (
        parts[-2:]
        if key == "weights" and Path(parts[-1]).suffix in (".pt", ".pth", ".safetensors")
        else parts[-1:]
    )
    value = re.sub(r"[^\w.+-]+", "_", "_".join(last))
    return (
        value if (config_folder() / key).is_dir() or key == "weights" else f"{key.rpartition('.')[2]}={value}"
    )
