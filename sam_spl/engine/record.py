"""The record of a run: its folder, what is written there, and how a run goes on from it.

The saved configuration is the run. A file holds values: names in it are looked up in registries, and a user's
own code has to be named again on the command line.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor, nn

from sam_spl.config import plain, read
from sam_spl.engine.config import TrainConfig
from sam_spl.errors import ConfigError, InputError
from sam_spl.files import atomic, lock, write_text
from sam_spl.registry import is_reference
from sam_spl.report.curves import draw_curves
from sam_spl.weights.description import check_description
from sam_spl.weights.formats import (
    FORMAT,
    check_archive,
    read_frozen,
    read_torch,
    save_torch,
    save_weights,
    sha256,
)

log = logging.getLogger(__name__)

#: What a resumed run may do otherwise than it was started.
MAY_CHANGE = (
    "trainer.epochs",
    "trainer.minutes",
    "trainer.batch_size",  # if processes or trainer.accumulate change so that their product does not
    "trainer.eval_batch_size",
    "trainer.eval_every",
    "trainer.accumulate",
    "trainer.save_every",
    "trainer.save_every_steps",
    "trainer.max_bad_steps",
    "trainer.stall_minutes",
    "dataset.data_path",  # to another copy: the list of training images is compared
    "on_bad_sample",
    "device",
    "deterministic",
    "num_workers",
    "use_ddp",
    "save_dir",
    "logger",
    "test_on",
)
#: What says how to start, and is not part of a run.
_PASSING = ("resume", "overwrite")
#: Keys whose values may name code.
_REFERENCES = ("model.name", "loss.name", "trainer.augment", "logger")

_STATE = {
    "config": dict,
    "description": dict,
    "model": dict,
    "optimizer": dict,
    "scaler": dict,
    "epoch": int,
    "history": list,
    "processes": int,
    "ema": dict | NoneType,
    "ema_updates": int,
    "best": float | NoneType,
    "frozen": dict | NoneType,
    "rng": Tensor,
    "within": dict,
    "cuda_rng": Tensor | NoneType,
}
#: What files of versions before 1.1 do not state.
_SINCE: dict[str, Any] = {"within": {}, "cuda_rng": None}
PREVIOUS = "last.previous.pt"
_MOST = 1e300  # no figure of a run is beyond, and every whole number below is one that floats hold
_WEIGHTS = ("last.pt", PREVIOUS, "best.pt", "best.safetensors")
_ABSENT = object()
_FROZEN = "frozen.safetensors"
_DRAW_EVERY = 20.0  # seconds between two drawings of the curves


@dataclass(frozen=True)
class Saved:
    """What ``last.pt`` holds, checked.

    Attributes:
        path: the file.
        config: of the run.
        state: the rest, as given to :meth:`RunFolder.save_last`; ``model`` and ``ema`` are whole again.
        written: when the file was written, in nanoseconds.
    """

    path: Path
    config: TrainConfig
    state: dict[str, Any]
    written: int


class RunFolder:
    """A run's files: ``config.yaml train.log metrics.jsonl last.pt best.pt best.safetensors curves.png``.

    ``last.previous.pt`` is the ``last.pt`` before, for the day on which that one cannot be read.
    ``frozen.safetensors`` beside them holds what does not train, once, for ``last.pt``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._frozen: set[str] = set()
        self._frozen_file: dict[str, str] | None = None
        self._drawn = time.monotonic()
        self._is_there: Callable[[], bool] = self.path.is_dir

    @property
    def last(self) -> Path:
        """Everything that a run needs to go on."""
        return self.path / "last.pt"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder: a second run that would write here stops with one line."""
        with lock(self.path) as self._is_there:
            yield

    def check_there(self) -> None:
        """See that the folder is still the one that this run holds.

        Raises:
            InputError: it is not; writing would begin another one, without configuration and log.
        """
        if not self._is_there():
            raise InputError(
                f"{self.path}: the run folder was moved, replaced or removed while the run was writing "
                "there, so the run ends. What the folder held can be resumed where it is now."
            )

    def check_free(self) -> None:
        """Look whether a new run can begin here.

        Raises:
            ConfigError: the folder holds a run already.
        """
        if held := self._held():
            go_on = (
                f"Continue it with --resume {self.path}, choose"
                if {"last.pt", PREVIOUS} & set(held)
                else "Without last.pt it cannot be continued: choose"
            )
            raise ConfigError(
                f"save_dir: {self.path} holds a run already ({', '.join(held)}). {go_on} another --save_dir, "
                "or replace it with overwrite=true."
            )

    def begin(self, config: TrainConfig, model: nn.Module) -> None:
        """Make the folder for a new run, and remove what an earlier one left.

        Raises:
            InputError: it cannot be written.
        """
        self._write_config(config)
        write_text(self.path / "metrics.jsonl", "")
        for name in (*_WEIGHTS, _FROZEN, "curves.png", "train.log"):
            (self.path / name).unlink(missing_ok=True)
        for results in self.path.glob("test-*/results.json"):  # of the weights that are replaced
            shutil.rmtree(results.parent)
        self._write_frozen(model)

    def resume(self, saved: Saved, config: TrainConfig, model: nn.Module) -> None:
        """Go on in this folder; if the saved run is in another one, its best weights are copied here.

        Raises:
            ConfigError: another folder that holds a run already.
        """
        origin = saved.path.parent
        if origin.resolve() != self.path.resolve():
            if self._held():
                raise ConfigError(f"save_dir: {self.path} holds a run already. Choose another --save_dir.")
            for name in ("best.pt", "best.safetensors"):
                if (origin / name).is_file():
                    with atomic(self.path / name) as temporary:
                        temporary.write_bytes((origin / name).read_bytes())
        elif saved.path.name == PREVIOUS:  # or the damaged file would take its place
            self.last.unlink(missing_ok=True)
        self._write_config(config)
        self._write_frozen(model)
        self.write_history(saved.state["history"])

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Write ``metrics.jsonl``, a line an epoch."""
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def draw(self, rows: list[dict[str, Any]], *, now: bool = False) -> None:
        """Draw ``curves.png``, unless that was done a moment ago."""
        if rows and (now or time.monotonic() - self._drawn > _DRAW_EVERY):
            draw_curves(rows, self.path / "curves.png")
            self._drawn = time.monotonic()

    def save_last(self, config: TrainConfig, state: Mapping[str, Any]) -> None:
        """Write ``last.pt``: tensors and plain Python, without what is frozen."""
        lean = {
            key: {name: value for name, value in state[key].items() if name not in self._frozen}
            for key in ("model", "ema")
            if state[key] is not None
        }
        content = {"format": FORMAT, "config": recorded(config), **state, **lean, "frozen": self._frozen_file}
        with atomic(self.last, durable=True, keep=PREVIOUS) as temporary:
            save_torch(content, temporary)

    def save_best(self, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
        """Write ``best.pt`` and ``best.safetensors``."""
        for name in ("best.pt", "best.safetensors"):
            save_weights(self.path / name, weights, description)

    def _held(self) -> list[str]:
        """What of a run is there."""
        return [name for name in _WEIGHTS if (self.path / name).exists()]

    def _write_config(self, config: TrainConfig) -> None:
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(recorded(config))))

    def _write_frozen(self, model: nn.Module) -> None:
        self._frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        if self._frozen:
            tensors = {name: value for name, value in model.state_dict().items() if name in self._frozen}
            file = save_weights(self.path / _FROZEN, tensors, {})
            self._frozen_file = {"file": file.name, "sha256": sha256(file)}


def recorded(config: TrainConfig) -> dict[str, Any]:
    """What a run remembers of its configuration."""
    return {key: value for key, value in plain(config).items() if key not in _PASSING}


def find_last(resume: str | Path) -> Path:
    """The ``last.pt`` that ``--resume`` means.

    Raises:
        InputError: there is no such file.
    """
    path = Path(resume).expanduser()
    if path.is_dir():
        path = next(
            (path / name for name in ("last.pt", PREVIOUS) if (path / name).is_file()), path / "last.pt"
        )
    if not path.is_file():
        raise InputError(
            f"resume: no file {path}. Give a run folder that holds last.pt, or leave --resume out."
        )
    return path


def read_saved(resume: str | Path) -> Saved:
    """Read ``last.pt`` and check what it holds, tensors of the network aside.

    Raises:
        InputError: none there, damaged, of another version, or not of a run of ours.
    """
    path = _undamaged(find_last(resume))
    written = path.stat().st_mtime_ns
    state = read_torch(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT or "optimizer" not in state:
        raise InputError(
            f"resume: {path} is not the last.pt of a run. To start from its weights, use --weights."
        )
    state = {**_SINCE, **state}
    if wrong := _malformed(state):
        raise InputError(
            f"resume: {path} cannot be resumed: {wrong} is missing or malformed (saved by another version?). "
            f"Start a new run from its weights: --weights {path}"
        )
    check_description(state["description"], path)
    try:
        config = read(TrainConfig, state["config"])
    except ConfigError as error:
        raise InputError(
            f"resume: the configuration in {path} does not fit ({error}). Does it use YAML files of your "
            "own? Add --config_dir DIR. If another version saved it, start a new run from its weights: "
            f"--weights {path}"
        ) from error
    frozen = read_frozen(state, path)
    state["model"] = {**state["model"], **frozen}
    if state["ema"] is not None:
        state["ema"] = {**state["ema"], **frozen}
    return Saved(path, config, state, written)


def _undamaged(path: Path) -> Path:
    """The file, or the one before where it is damaged, which is said.

    Every part of these archives has a checksum, which ``torch.load`` does not look at.
    """
    try:
        check_archive(path)
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except Exception:  # whatever a damaged archive makes its reader raise
        wrong = path.name
    before = path.with_name(PREVIOUS)
    if wrong is None or path.name != "last.pt" or not before.is_file():
        if wrong is not None and (path.name == PREVIOUS or zipfile.is_zipfile(path)):
            raise InputError(
                f"resume: {path} is damaged: its checksums do not fit. Start the run again, in another "
                "--save_dir or with overwrite=true; --weights starts it from a best.safetensors there."
            )
        return path
    log.warning(
        "%s is damaged: its checksums do not fit. Going on from the one before, %s", path, before.name
    )
    return _undamaged(before)


def _malformed(state: Mapping[str, Any]) -> str | None:
    """The first key of a state that is missing or of another kind than it was saved with."""
    for key, kind in _STATE.items():
        if not isinstance(state.get(key, _ABSENT), kind) or isinstance(state[key], bool):
            return key
    counts = (state["epoch"], state["ema_updates"], state["processes"] - 1)
    if not all(0 <= one <= _MOST for one in counts):
        return "epoch, ema_updates or processes"
    if state["best"] is not None and not _is_number(state["best"]):
        return "best"
    if not all(map(_is_number, state["scaler"].values())):
        return "scaler"
    within = state["within"]
    if not all(_is_number(one) and (one >= 0 or key == "total") for key, one in within.items()):
        return "within"  # a loss of one's own may be negative
    if within.get("step") and not within.get("seconds"):  # steps take time
        return "within"
    for row in state["history"]:
        figures = isinstance(row, dict) and all(_is_number(row.get(key)) for key in ("epoch", "loss"))
        if not figures or not all(one is None or _is_number(one) for one in row.values()):
            return "history"
    # An interpolation would be replaced when it is read, by what the environment holds.
    try:
        return "config" if "${" in str(state["config"]) else None
    except RecursionError:  # nested by the thousand
        return "config"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= _MOST


def resumed_config(
    saved: Saved, asked: TrainConfig, given: Collection[str] | None, processes: int
) -> TrainConfig:
    """The configuration of a resumed run: the saved one, with what was asked for and may change.

    Args:
        saved: the run.
        asked: a configuration of today.
        given: its keys that the user named (``trainer.epochs``; ``dataset`` for a set by name); None for all.
        processes: that the run goes on with.

    Raises:
        ConfigError: another value of what may not change, or the run uses code that ``asked`` does not name.
    """
    before, now = _flat(recorded(saved.config)), _flat(recorded(asked))
    said = set(now) if given is None else {key for name in given for key in _meant(name, now)}
    changed = {key for key in said if now.get(key) != before.get(key)}
    # From another folder the same file has another path.
    moved = {key for key in changed & set(_REFERENCES) if _same_object(str(before[key]), str(now[key]))}
    kept = changed - moved - set(MAY_CHANGE)
    refused = sorted(key for key in kept if not _automatic(key, now.get(key)))
    if refused:
        shown = ", ".join(f"{key}={before.get(key)}, not {now.get(key)}" for key in refused[:4])
        raise ConfigError(
            f"resume: {saved.path.parent} was started with {shown}. A resumed run keeps its settings; "
            "docs/training.md lists the few that may change (Resume). Leave the others out, or start a new "
            "run in another --save_dir."
        )
    unnamed = [
        f"{key.removesuffix('.name')}={before[key]}"
        for key in _REFERENCES
        if is_reference(str(before.get(key)))
        and not (key in said and (now.get(key) == before[key] or key in moved or key in MAY_CHANGE))
    ]
    if unnamed:
        raise ConfigError(
            f"resume: {saved.path} names code of your own, and a file may not import code. Name it again: "
            f"{' '.join(unnamed)}"
        )
    values = recorded(saved.config)
    for key in moved | (changed & set(MAY_CHANGE)):
        _put(values, key, now[key])
    if given is None or "save_dir" not in said:
        values["save_dir"] = str(saved.path.parent)  # where the run is now
    done, epochs = saved.state["epoch"], values["trainer"]["epochs"]
    done += saved.state["within"].get("step", 0) > 0  # one that is begun is to be ended
    if epochs < done and values["trainer"]["minutes"] is None:
        raise ConfigError(
            f"trainer.epochs: this run has {done} epochs already, not {epochs}. Give {done} or more."
        )
    _check_product(saved, values["trainer"], processes)
    return read(TrainConfig, values)


def _check_product(saved: Saved, trainer: Mapping[str, Any], processes: int) -> None:
    """As many images an update as before: how they are spread is free."""
    before, batch, times = saved.config.trainer, trainer["batch_size"], trainer["accumulate"]
    images = before.batch_size * before.accumulate * saved.state["processes"]
    if batch * times * processes != images:
        share, rest = divmod(images, times * processes)
        fits = "another number of processes" if rest else f"--batch_size {share}"
        each = f"{times} times {batch}" if times > 1 else f"{batch}"
        raise ConfigError(
            f"trainer.batch_size: this run takes {images} images a step, not {each} on each of "
            f"{processes} process(es). Resume with {fits}."
        )


def _meant(name: str, flat: Mapping[str, Any]) -> list[str]:
    """The keys that a word of the command line sets; what is chosen by its name is compared by its name."""
    if name in ("dataset", "model"):
        return [f"{name}.name"]
    if name == "loss" and is_reference(str(flat["loss.name"])):
        return ["loss.name"]
    if name == "experiment":
        return ["dataset.name", "model.name", "recipe"]
    return [key for key in flat if key == name or key.startswith(f"{name}.")] or [name]


def _same_object(before: str, now: str) -> bool:
    """Whether two references name one object of files of one name."""
    (a, _, one), (b, _, other) = before.rpartition(":"), now.rpartition(":")
    return a.endswith(".py") and Path(a).name == Path(b).name and one == other


def _automatic(key: str, value: Any) -> bool:
    """Whether a value asks for what the run has settled already."""
    return value == "auto" and key in ("recipe", "model.trunk_weights")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values[parent]
    values[last] = value
