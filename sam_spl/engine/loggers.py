"""Where the figures of each epoch go, besides ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sam_spl.errors import ConfigError
from sam_spl.registry import Registry


class Logger(Protocol):
    """Takes the figures of each epoch, on the process that writes files."""

    def log(self, row: Mapping[str, Any]) -> None:
        """One epoch, as a line of ``metrics.jsonl`` has it."""
        ...

    def close(self) -> None:
        """The run ends."""
        ...


class TensorBoard:
    """Every number of an epoch as a scalar, into the run folder.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                'logger: tensorboard is not installed. Install it with pip install "sam-spl[tensorboard]".'
            ) from error
        self._writer = SummaryWriter(str(folder))

    def log(self, row: Mapping[str, Any]) -> None:
        for key, value in row.items():
            if key != "epoch" and isinstance(value, int | float):
                self._writer.add_scalar(key, value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


#: Loggers by name, made from the run's folder.
LOGGERS: Registry[Callable[[Path], Logger]] = Registry("logger", {"tensorboard": TensorBoard})
