"""The training loop."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from sam_spl.data.dataset import EpochSampler, EvaluationSet, TrainingSet, collate_training
from sam_spl.data.normalise import Normalise
from sam_spl.engine.batch_norm import over_all_processes
from sam_spl.engine.config import TrainConfig
from sam_spl.engine.evaluator import evaluate
from sam_spl.engine.loggers import Logger
from sam_spl.engine.optim import Average, build_optimizer, learning_rate, set_learning_rate
from sam_spl.engine.record import PREVIOUS, RunFolder, Saved
from sam_spl.engine.stopping import Stop, deaths_reported, leave_deaths
from sam_spl.engine.update import Batch, Outcome, Update
from sam_spl.engine.watchdog import Watchdog
from sam_spl.errors import InputError, NotFiniteError, Stopped
from sam_spl.metrics import DatasetCounts, scores
from sam_spl.progress import Progress
from sam_spl.runtime import World, is_out_of_memory, place, start_loader_process

log = logging.getLogger(__name__)

#: A record of what ends the run, for train.log alone: the console is told when the command ends.
ENDS, ENDING = "the run ends: %s", {"ending": True}
#: What a loader process that dies can raise here; the last two while an image is on its way.
_OF_A_DEATH = (RuntimeError, ConnectionError, EOFError)
_MOST_RESTARTS = 3  # of loader processes, without a batch in between
_FEW_IMAGES = 8  # fewer make BatchNorm's statistics of a process too rough


class Trainer:
    """Train a network, keep the last and the best weights, and continue exactly where a run stopped.

    Args:
        model: on any device; parameters that do not require gradients stay as they are.
        loss: of (logits, mask).
        train_set: augmented samples.
        normalise: of the network, computed on its device.
        val_set: what ``best`` is chosen by (IoU); None keeps the last weights as the best.
        config: of the run.
        world: this process.
        folder: where the main process writes.
        description: what the weights files say of themselves.
        num_workers: loader processes.
        loggers: get the figures of each epoch, on the main process.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: Callable[[list[Tensor], Tensor], Tensor],
        train_set: TrainingSet,
        normalise: Normalise,
        val_set: EvaluationSet | None,
        config: TrainConfig,
        world: World,
        folder: RunFolder,
        description: Mapping[str, Any],
        num_workers: int = 0,
        loggers: Sequence[Logger] = (),
    ) -> None:
        self.config, self.world, self.folder = config, world, folder
        self.description, self.num_workers, self.loggers = dict(description), num_workers, loggers
        self.train_set, self.val_set = train_set, val_set
        settings = config.trainer

        if world.size > 1 and synchronises(config):
            model = over_all_processes(model, world.device)
        self.model = place(model, world.device)
        network: nn.Module = self.model
        if world.size > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            # What changes with the epoch may leave parameters out in some.
            changes = hasattr(model, "set_epoch")
            network = DistributedDataParallel(self.model, device_ids=ids, find_unused_parameters=changes)
        self.network = network
        self.average = Average(self.model, settings.ema_decay) if settings.ema_decay else None
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.update = Update(
            *(self.model, network, loss, normalise, self.optimizer, self.average, settings.clip_grad, world)
        )
        follow = [getattr(one, "set_epoch", None) for one in (self.model, loss)]
        self.follow_epochs: list[Callable[[int], None]] = [one for one in follow if callable(one)]

        least = smallest_batch(self.model)
        if settings.batch_size < least:
            raise InputError(
                f"trainer.batch_size: {settings.batch_size} is too small, {config.model.name} trains on "
                f"batches of {least} images at least. Set trainer.batch_size={least} or more."
            )
        if len(train_set) // world.size < least:
            of_each = f", of which {config.model.name} needs {least} images each" if least > 1 else ""
            raise InputError(
                f"dataset: {len(train_set)} training images are too few for {world.size} processes{of_each}."
            )
        self.sampler = EpochSampler(
            *(len(train_set), config.seed, world.rank, world.size),
            batch_size=settings.batch_size,
            smallest_batch=least,
        )
        self.group = settings.batch_size * settings.accumulate  # this process's images of an update
        self.steps = math.ceil(len(self.sampler) / self.group)  # of an epoch
        self.stop = Stop()
        self.watchdog = Watchdog(
            self._warn_of_waiting,
            settings.stall_minutes * 60,
            self._last_words,
            lambda words: log.error(ENDS, words, extra=ENDING),
        )

        self.epoch = 0  # finished ones
        self.step = 0  # updates of the epoch that is under way
        self.total, self.seen = 0.0, 0  # loss and number of this process's images, in updates that were made
        self.seconds, self.bad, self.skipped = 0.0, 0, 0  # of it: time, updates left out, images left out
        self.bad_in_row = 0
        self.minutes = 0.0  # of training so far, without validation
        self.over = False  # trainer.minutes are
        self.best: float | None = None
        self.history: list[dict[str, Any]] = []
        self.saved = (0, 0)  # epoch and step in last.pt
        self.unsaved: dict[str, InputError] = {}  # file -> why it could not be written
        self.complained: set[str] = set()  # of which images

    def fit(self) -> None:
        """Train up to ``trainer.epochs``, or for ``trainer.minutes``.

        Raises:
            InputError: updates fail in a row, memory or images are missing, or the result could not be saved.
            Stopped: a signal asked for the end; all is saved.
        """
        if not self.folder.last.exists():
            self.save()  # an interruption of the very first epoch can be resumed as well
        with self.watchdog.on_duty(), self.stop.listening(), self.loader_processes():
            while not self.done:
                self.train_epoch()
                self.check_weights()
                try:
                    with self.stop.at_once():
                        scored = self.evaluate_epoch()
                except Stopped:
                    self.save()  # the epoch's updates are made, and its validation is not
                    raise
                self.finish_epoch(scored)
            self.check_stop()  # what comes after training is not to be begun
        for name, error in self.unsaved.items():
            raise InputError(f"the training is done, and its {name} is not saved: {error}")

    @property
    def done(self) -> bool:
        """Whether the last epoch is finished."""
        within = self.config.trainer.minutes is not None and self.step > 0  # it is still to be validated
        return self.is_last(self.epoch) and not within

    def is_last(self, epoch: int) -> bool:
        """Whether training ends after so many epochs."""
        settings = self.config.trainer
        return epoch >= settings.epochs if settings.minutes is None else self.over

    def train_epoch(self) -> None:
        """One pass over the training images, from where it is.

        Raises:
            Stopped: as :meth:`fit`.
        """
        self.network.train()
        for follow in self.follow_epochs:
            follow(self.epoch)
        self.sampler.epoch = self.epoch
        of = "" if self.config.trainer.minutes is not None else f"/{self.config.trainer.epochs}"
        title = f"epoch {self.epoch + 1}{of}"
        images, before = len(self.sampler), self.step * self.group
        with Progress(title, "images", images, done=before, shown=self.world.main) as progress:
            for batches, seconds in self.groups():
                self.check_stop()
                self.seed_others()
                lr = self.set_rate()
                started = time.perf_counter()
                self.read(batches, self.make_update(batches))
                seconds += time.perf_counter() - started
                self.step += 1
                self.lr, self.seconds = lr, self.seconds + seconds
                self.minutes += seconds / 60
                loss = f"loss {self.total / self.seen:.4f}" if self.seen else ""
                progress.add(sum(len(batch["name"]) for batch in batches), loss)
                every = self.config.trainer.save_every_steps
                if every and self.step % every == 0 and self.step < self.steps and not self.bad_in_row:
                    self.save()
                limit = self.config.trainer.minutes
                if limit is not None:  # by one clock: the learning rate follows it in all processes
                    self.minutes = self.world.mean(self.minutes)
                    self.over = self.minutes >= limit
                    if self.over:
                        break
        self.check_stop()
        if not self.world.any_of(self.seen > 0):
            raise InputError(self._diverged(f"no update of epoch {self.epoch + 1} could be made"))

    def seed_others(self) -> None:
        """Let Dropout differ between processes; the first one's random numbers are in ``last.pt``."""
        if not self.world.main:
            key = (self.config.seed, self.epoch, self.step, self.world.rank)
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))

    lr = 0.0

    def set_rate(self) -> float:
        """Set the learning rate of the next update."""
        # A schedule per step takes the middle of each step, so a warm-up does not start at zero.
        moved = (self.step + 0.5) / self.steps if self.config.optimizer.per_step else 0.0
        settings = self.config.trainer
        at = self.epoch + moved
        if settings.minutes is not None:
            at = settings.epochs * min(self.minutes / settings.minutes, 1.0)
        lr = learning_rate(at, settings.epochs, self.config.optimizer)
        set_learning_rate(self.optimizer, lr)
        return lr

    def groups(self) -> Iterator[tuple[list[Batch], float]]:
        """The batches of each update that is left of the epoch, and the seconds that they took to come.

        Loader processes that die (memory, a driver) are started again.
        """
        deaths, reached = 0, self.step
        while self.step < self.steps and not self.over:
            self.sampler.start = self.step * self.group
            try:
                yield from self._groups_of(self.loader())
            except _OF_A_DEATH as error:
                self._loader = None
                deaths = deaths + 1 if self.step == reached else 1
                reached = self.step
                self._take_death(error, deaths)

    def _take_death(self, error: Exception, count: int) -> None:
        """Of a loader process, the ``count``-th in a row: others are to be started.

        Raises:
            Exception: it was something else.
            InputError: there were too many.
        """
        own = not self.num_workers or str(error).startswith("Caught ")  # raised by what it was running
        if own or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
            raise error
        why = str(error).split("\n")[0].rstrip(".")
        if count > _MOST_RESTARTS:
            raise InputError(_WORKERS_DIE.format(error=why)) from error
        if self.stop.asked is None:  # or the signal was for all processes of the job
            remedy = "If it was killed for memory, lower num_workers"
            log.warning("a loader process has ended (%s): started again. %s", why, remedy)

    def _groups_of(self, loader: DataLoader[dict[str, Any]]) -> Iterator[tuple[list[Batch], float]]:
        started = time.perf_counter()
        batches = iter(loader)
        leave_deaths()
        while True:
            with self.watchdog.waiting():
                group = list(islice(batches, self.config.trainer.accumulate))
            if not group:
                return
            yield group, time.perf_counter() - started
            started = time.perf_counter()

    _loader: DataLoader[dict[str, Any]] | None = None

    @contextmanager
    def loader_processes(self) -> Iterator[None]:
        """Those that the block starts end with it."""
        try:
            with deaths_reported():
                yield
        finally:
            self._loader = None

    def loader(self) -> DataLoader[dict[str, Any]]:
        """Batches of an epoch; its processes live as long as it does."""
        if self._loader is None:
            self._loader = DataLoader(
                self.train_set,
                batch_size=self.config.trainer.batch_size,
                sampler=self.sampler,
                collate_fn=collate_training,
                num_workers=self.num_workers,
                persistent_workers=self.num_workers > 0,
                pin_memory=self.world.device.type == "cuda",
                worker_init_fn=start_loader_process,
                # Its own, so that the network's random numbers do not depend on how images are loaded.
                generator=torch.Generator().manual_seed(self.config.seed),
            )
        return self._loader

    def make_update(self, batches: list[Batch]) -> Outcome:
        """Update the weights.

        Raises:
            InputError: there is not enough memory.
        """
        with self._memory():
            return self.update(batches)

    def read(self, batches: list[Batch], outcome: Outcome) -> None:
        """Take an update's figures in.

        Raises:
            InputError: too many in a row were not finite.
        """
        names = [name for batch in batches for name in batch["name"]]
        for why in (why for batch in batches for why in batch["bad"]):
            self.skipped += 1
            if why not in self.complained:
                self.complained.add(why)
                log.warning("left out, another image in its place (on_bad_sample=skip): %s", why)
        if not outcome.bad:
            self.total += outcome.loss * len(names)
            self.seen += len(names)
            self.bad_in_row = 0
            return
        self.bad += 1
        self.bad_in_row += 1
        kind = "loss" if not math.isfinite(outcome.loss) else "gradient's norm"
        value = outcome.loss if kind == "loss" else outcome.norm
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        where = f"in epoch {self.epoch + 1}, step {self.step + 1}"
        what = f"the {kind} is {value} {where} (images {shown})"
        if math.isfinite(value):
            what = f"the loss or the gradient of another process is not finite {where}"
        if self.bad_in_row > self.config.trainer.max_bad_steps:
            in_row = f", after {self.bad_in_row - 1} such steps in a row" if self.bad_in_row > 1 else ""
            raise InputError(self._diverged(what + in_row))
        log.warning("%s: the step is left out", what)

    def check_stop(self) -> None:
        """End here if a signal asked for it.

        Raises:
            Stopped: all is saved.
        """
        asked = self.stop.asked
        if self.world.any_of(asked is not None):
            self.save()
            raise Stopped(asked or "another process of this run")

    def check_weights(self) -> None:
        """Look at the weights before they are scored and saved.

        Raises:
            InputError: one is not finite.
        """
        values = {name: x for name, x in self.model.state_dict().items() if x.is_floating_point()}
        finite = torch.stack([x.isfinite().all() for x in values.values()]).tolist()  # read once
        for name, fine in zip(values, finite, strict=True):
            if not fine:
                raise InputError(
                    self._diverged(f"the weights {name} are not finite after epoch {self.epoch + 1}")
                )

    def _diverged(self, what: str) -> str:
        epoch, step = self.saved
        # Whether weights that were saved within an epoch are good shows in later steps only.
        within = f", step {step}, and {PREVIOUS} beside it those of the save before" if step else ""
        return (
            f"{what}. {self.folder.last} keeps the weights of epoch {epoch}{within}. Lower optimizer.lr (now "
            f"{self.config.optimizer.lr:g}), set trainer.clip_grad=1 or precision=fp32, and start a new run; "
            f"--weights {self.folder.last} starts from those weights."
        )

    @contextmanager
    def _memory(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            size, settings = self.config.dataset.image_size, self.config.trainer
            raise InputError(
                f"out of memory on {self.world.device} with batches of {settings.batch_size} images of "
                f"{size} pixels. Lower trainer.batch_size (trainer.accumulate={2 * settings.accumulate} with "
                "half of it makes the same updates but for BatchNorm), trainer.eval_batch_size or "
                "dataset.image_size, or set precision=bf16."
            ) from error

    def _warn_of_waiting(self, seconds: float) -> None:
        log.warning("no image has come for %.0f s: is %s within reach?", seconds, self._where())

    def _last_words(self, seconds: float) -> str:
        where = "validation" if self.step == self.steps or self.over else f"step {self.step + 1}"
        return (
            f"no image has come for {seconds / 60:.1f} minutes (trainer.stall_minutes), in epoch "
            f"{self.epoch + 1}, {where}. See that {self._where()} is within reach, then go on "
            f"with --resume {self.folder.path}"
        )

    def _where(self) -> str:
        return str(self.config.dataset.data_path or "the data set")

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are scored and released: averaged ones where there are any."""
        return self.average.module if self.average is not None and self.average.updates else self.model

    def evaluate_epoch(self) -> dict[str, Any]:
        """Scores on the validation images, every ``eval_every`` epochs and after the last one."""
        self.world.share_buffers(self.evaluated)
        epoch = self.epoch + 1
        due = epoch % self.config.trainer.eval_every == 0 or self.is_last(epoch)
        if self.val_set is None or not due:
            return {}
        try:
            counts = self._count(self.val_set)
        except NotFiniteError as error:
            raise InputError(
                self._diverged(f"answers to validation images are not finite after epoch {epoch}")
            ) from error
        except InputError as error:
            if self.config.on_bad_sample == "stop" or self.world.size > 1 or "out of memory" in str(error):
                raise
            # Scores over fewer images could not be compared with those of other epochs.
            log.warning("epoch %d is not validated: %s", epoch, error)
            return {}
        return asdict(scores(counts))

    def _count(self, val_set: EvaluationSet) -> DatasetCounts:
        deaths = 0
        while True:
            try:
                with self._memory():
                    return evaluate(
                        self.evaluated,
                        val_set,
                        self.world.at("fp32"),  # as scores are taken
                        batch_size=self.config.trainer.eval_batch_size,
                        num_workers=self.num_workers,
                        waiting=self.watchdog.waiting,
                    )
            except _OF_A_DEATH as error:
                deaths += 1
                self._take_death(error, deaths)

    def finish_epoch(self, scored: Mapping[str, Any]) -> None:
        """Write the epoch down, and what is due of the weights."""
        self.epoch += 1
        of_this = len(self.sampler) if self.step == self.steps else self.step * self.group
        images = of_this * self.world.size
        row = {
            "epoch": self.epoch,
            "loss": self._of_all(self.total) / self._of_all(self.seen),
            "lr": self.lr,
            "seconds": round(self.seconds, 2),
            "images_seen": images,
            "images_per_second": round(images / self.seconds, 2),
            **({"bad_steps": self.bad} if self.bad else {}),
            **({"bad_samples": skipped} if (skipped := round(self._of_all(self.skipped))) else {}),
            **scored,
        }
        self.history.append(row)
        self.step, self.total, self.seen = 0, 0.0, 0
        self.seconds, self.bad, self.skipped = 0.0, 0, 0
        self.keep_best(row)
        if self.epoch % self.config.trainer.save_every == 0 or self.done:
            self.save()
        if self.world.main:
            self.tell(row)

    def keep_best(self, row: Mapping[str, Any]) -> None:
        """Write ``best.*`` at the highest validation IoU so far; without validation, after the last epoch."""
        iou, before = row.get("iou"), self.best
        if iou is not None and (self.best is None or iou > self.best):
            self.best = iou
        elif not (self.done and self.best is None):  # also where the IoU of validation images is undefined
            return
        description = self.description | {"epoch": self.epoch}
        if not self.write(
            "best.safetensors", lambda: self.folder.save_best(self.evaluated.state_dict(), description)
        ):
            self.best = before  # the next one that is as good is to be written

    def tell(self, row: Mapping[str, Any]) -> None:
        """Write the epoch's figures down, draw them and log them."""
        self.write("metrics.jsonl", lambda: self.folder.write_history(self.history))
        self.write("curves.png", lambda: self.folder.draw(self.history, now=self.done))
        for logger in self.loggers:
            try:
                logger.log(row)
            except OSError as error:  # a full disk does not end the run
                log.warning("the logger cannot write epoch %d: %s", self.epoch, error)
        limit = self.config.trainer.minutes
        of = f"/{self.config.trainer.epochs}"
        if limit is not None:
            whole = len(self.sampler) * self.world.size
            cut = f", {row['images_seen']} of {whole} images" if row["images_seen"] < whole else ""
            of = f" ({self.minutes:.2f} of {limit:g} min{cut})"
        log.info("%s", _summary(row, of))

    def write(self, name: str, how: Callable[[], None]) -> bool:
        """Write a file on the main process, or say why not and go on; whether that went well.

        Raises:
            InputError: the folder is no longer there, so nothing could be written later either.
        """
        if not self.world.main:
            return True
        try:
            self.folder.check_there()
            how()
        except InputError as error:
            self.folder.check_there()
            self.unsaved[name] = error
            log.warning("%s is not written, the one before stays: %s", name, error)
            return False
        self.unsaved.pop(name, None)
        return True

    def save(self) -> None:
        """Write all that :meth:`resume` needs."""
        within = {key: getattr(self, key) for key in _WITHIN}
        within |= {key: type(within[key])(self._of_all(within[key])) for key in _ADDED_UP}
        state = self.state() | {"within": within}
        if self.write("last.pt", lambda: self.folder.save_last(self.config, state)):
            self.saved = (self.epoch, self.step)

    def _of_all(self, value: float) -> float:
        """The sum over processes."""
        return self.world.mean(value) * self.world.size

    def state(self) -> dict[str, Any]:
        """What ``last.pt`` holds of the run, but for the epoch that is under way."""
        cuda = self.world.device.type == "cuda"
        return {
            "description": self.description | {"epoch": self.epoch},
            "model": self.model.state_dict(),
            "ema": self.average.module.state_dict() if self.average is not None else None,
            "ema_updates": self.average.updates if self.average is not None else 0,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.update.scaler.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
            "history": self.history,
            "processes": self.world.size,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.world.device) if cuda else None,
        }

    def resume(self, saved: Saved) -> None:
        """Take up the state of a ``last.pt``: what follows is what the uninterrupted run would have done.

        Raises:
            InputError: the state is not of this network and optimizer.
        """
        state = saved.state
        try:
            if self.average is not None:
                self.average.module.load_state_dict(state["ema"] or {})
                self.average.updates = state["ema_updates"]
            with self._memory():
                self._try_optimizer(state["optimizer"])
            self.model.load_state_dict(state["model"])
            self.update.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["rng"])
            if state["cuda_rng"] is not None and self.world.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_rng"], self.world.device)
            for key in _WITHIN:
                value = 0 if key in _ADDED_UP and not self.world.main else state["within"].get(key, 0)
                setattr(self, key, type(getattr(self, key))(value))
        except InputError:
            raise
        except Exception as error:  # whatever a state of something else makes its readers raise
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"resume: {saved.path} does not fit the network and the optimizer that it names ({reason}). "
                f"Start a new run from its weights: --weights {saved.path}"
            ) from error
        self.epoch, self.best, self.history = state["epoch"], state["best"], list(state["history"])
        limit = self.config.trainer.minutes
        self.over = limit is not None and self.minutes >= limit
        if self.step > self.steps:
            raise InputError(
                f"resume: {saved.path} is at step {self.step} of an epoch of {self.steps}. "
                f"Start a new run from its weights: --weights {saved.path}"
            )
        self.saved = (self.epoch, self.step)

    def _try_optimizer(self, state: dict[str, Any]) -> None:
        """Take up an optimizer's state. Only a step looks at it, so one is made before the weights come."""

        def load() -> None:
            # Some optimizers (Adan) keep the tensors that they are given: the state may be used again.
            self.optimizer.load_state_dict(copy.deepcopy(state))

        load()
        set_learning_rate(self.optimizer, self.config.optimizer.lr)
        for parameter in self.update.trained:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        load()


#: Of all processes in last.pt; the first one goes on with the sum.
_ADDED_UP = ("total", "seen", "skipped")
#: What is saved of an epoch that is under way.
_WITHIN = ("step", "total", "seen", "seconds", "bad", "skipped", "bad_in_row", "lr", "minutes")

_WORKERS_DIE = (
    "loader processes end as soon as they are started ({error}). If they are killed for memory, lower "
    "num_workers; in a container, give it more shared memory (--shm-size), or set num_workers=0."
)


def smallest_batch(model: nn.Module) -> int:
    """The fewest images that a network trains on at once: one, unless it states ``smallest_batch``."""
    least: int = getattr(model, "smallest_batch", 1)
    return least


def synchronises(config: TrainConfig) -> bool:
    """Whether BatchNorm's statistics are those of all processes, if there are several."""
    choice = config.trainer.sync_bn
    return config.trainer.batch_size < _FEW_IMAGES if choice == "auto" else choice == "true"


def _summary(row: Mapping[str, Any], of: str) -> str:
    parts = [f"epoch {row['epoch']}{of} loss {row['loss']:.4f}"]
    if row.get("iou") is not None:
        parts += [f"iou {row['iou']:.4f}"]
        parts += [f"pd {row['pd']:.4f}"] if row["pd"] is not None else []
        parts += [f"fa {row['fa'] * 1e6:.2f}e-6"]
    parts += [f"lr {row['lr']:.2e} {row['images_per_second']:.1f} img/s {row['seconds']:.0f} s"]
    return " ".join(parts)
