"""A run folder: what it holds, written whole, and how a run goes on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sam_spl.errors import ConfigError, InputError
from sam_spl.files import atomic, write_text
from sam_spl.weights.formats import FORMAT, read_torch, save_weights


class RunFolder:
    """A run's files: ``config.yaml train.log metrics.jsonl last.pt best.pt best.safetensors curves.png``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    @property
    def last(self) -> Path:
        """Everything that a run needs to go on."""
        return self.path / "last.pt"

    def begin(self, *, overwrite: bool) -> None:
        """Make the folder for a new run.

        Raises:
            ConfigError: it holds a run already.
            InputError: it cannot be written.
        """
        if self.last.exists() and not overwrite:
            raise ConfigError(
                f"save_dir: {self.path} holds a run already. Go on with --resume {self.path}, choose another "
                "--save_dir, or replace it with overwrite=true."
            )
        write_text(self.path / "metrics.jsonl", "")
        for name in ("last.pt", "best.pt", "best.safetensors", "curves.png", "train.log"):
            (self.path / name).unlink(missing_ok=True)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dict(row)) + "\n")

    def truncate_metrics(self, epochs: int) -> list[dict[str, Any]]:
        """Keep the lines of the first ``epochs``, and return them: a break may come between line and weights."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines if line.strip()]
        rows = [row for row in rows if row["epoch"] <= epochs]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Write ``last.pt``; tensors and plain Python only."""
        with atomic(self.last) as temporary:
            torch.save({"format": FORMAT, **state}, temporary)

    def save_best(self, weights: Mapping[str, torch.Tensor], description: Mapping[str, Any]) -> None:
        """Write ``best.pt`` and ``best.safetensors``."""
        for name in ("best.pt", "best.safetensors"):
            save_weights(self.path / name, weights, description)


def find_last(resume: str | Path) -> Path:
    """The ``last.pt`` that ``--resume`` means.

    Raises:
        InputError: there is none.
    """
    path = Path(resume).expanduser()
    path = path / "last.pt" if path.is_dir() else path
    if not path.is_file():
        raise InputError(
            f"resume: no file {path}. Give a run folder that holds last.pt, or leave --resume out."
        )
    return path


def read_last(resume: str | Path) -> dict[str, Any]:
    """Read ``last.pt``.

    Raises:
        InputError: none there, damaged, or not of a run of ours.
    """
    path = find_last(resume)
    state = read_torch(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT or "optimizer" not in state:
        raise InputError(
            f"resume: {path} is not the last.pt of a run. To start from its weights, use --weights."
        )
    return state
