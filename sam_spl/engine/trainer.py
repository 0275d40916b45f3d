"""The training loop."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from sam_spl.data.dataset import EpochSampler, EvaluationSet, TrainingSet, collate_training
from sam_spl.data.normalise import Normalise
from sam_spl.engine.config import TrainConfig
from sam_spl.engine.evaluator import evaluate
from sam_spl.engine.loggers import Logger
from sam_spl.engine.optim import Average, build_optimizer, learning_rate, set_learning_rate
from sam_spl.engine.record import RunFolder, Saved
from sam_spl.errors import InputError
from sam_spl.metrics import scores
from sam_spl.runtime import World, place

log = logging.getLogger(__name__)

_READ_EVERY = 20  # steps, on a GPU


@dataclass(frozen=True)
class _Step:
    """A step whose figures are still on the device: ``loss`` and gradient ``norm``, scalars."""

    number: int
    names: Sequence[str]
    loss: Tensor
    norm: Tensor


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
        self.config, self.world, self.folder, self.loss = config, world, folder, loss
        self.description, self.num_workers, self.loggers = dict(description), num_workers, loggers
        self.train_set, self.normalise, self.val_set = train_set, normalise, val_set

        self.model = place(model, world.device)
        self.network: nn.Module = self.model
        if world.size > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.network = DistributedDataParallel(self.model, device_ids=ids)
        self.average = Average(self.model, config.trainer.ema_decay) if config.trainer.ema_decay else None
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.scaler = GradScaler(world.device.type, enabled=world.precision is torch.float16)

        self.sampler = EpochSampler(len(train_set), config.seed, world.rank, world.size)
        self.steps = math.ceil(len(self.sampler) / config.trainer.batch_size)  # of an epoch
        if not self.steps:
            raise InputError(
                f"dataset: {len(train_set)} training images are too few for {world.size} processes."
            )
        # A GPU would wait for each reading. A CPU reads before each update, which then is not made.
        self.read_every = 1 if world.device.type == "cpu" else _READ_EVERY
        self.unread: list[_Step] = []
        self.total, self.seen = 0.0, 0  # loss and number of the epoch's images, in steps that are read
        self.epoch = 0  # finished ones
        self.saved = 0  # of them, in last.pt
        self.best: float | None = None
        self.history: list[dict[str, Any]] = []

    def fit(self) -> None:
        """Train up to ``trainer.epochs``.

        Raises:
            InputError: loss, gradients or weights are not finite; what is saved is from before.
        """
        epochs, every = self.config.trainer.epochs, self.config.trainer.save_every
        loader = self.loader()
        if self.world.main and not self.folder.last.exists():
            self.save()  # an interruption of the very first epoch can be resumed as well
        while self.epoch < epochs:
            row = self.train_epoch(loader)
            self.check_weights()
            row |= self.evaluate_epoch()
            self.history.append(row)
            self.keep_best(row)
            due = self.epoch % every == 0 or self.epoch == epochs
            if due:
                if self.world.main:
                    self.save()
                self.saved = self.epoch
            if self.world.main:
                self.tell(row)

    def loader(self) -> DataLoader[dict[str, Any]]:
        """Batches of an epoch; its processes live as long as it does."""
        return DataLoader(
            self.train_set,
            batch_size=self.config.trainer.batch_size,
            sampler=self.sampler,
            collate_fn=collate_training,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.world.device.type == "cuda",
            # Its own, so that the network's random numbers do not depend on how images are loaded.
            generator=torch.Generator().manual_seed(self.config.seed),
        )

    def train_epoch(self, loader: DataLoader[dict[str, Any]]) -> dict[str, Any]:
        """One pass over the training images; its figures for ``metrics.jsonl``."""
        self.network.train()
        self.sampler.epoch = self.epoch
        self.total, self.seen, lr, started = 0.0, 0, 0.0, time.perf_counter()
        title = f"epoch {self.epoch + 1}/{self.config.trainer.epochs}"
        hidden = None if self.world.main else True
        with tqdm(total=len(self.sampler), desc=title, unit="img", leave=False, disable=hidden) as bar:
            for step, batch in enumerate(loader):
                # A schedule per step takes the middle of each step, so a warm-up does not start at zero.
                moved = (step + 0.5) / self.steps if self.config.optimizer.per_step else 0.0
                lr = learning_rate(self.epoch + moved, self.config.trainer.epochs, self.config.optimizer)
                set_learning_rate(self.optimizer, lr)

                self.train_step(batch, step)
                bar.update(len(batch["name"]))
                if self.seen:
                    bar.set_postfix(loss=f"{self.total / self.seen:.4f}", refresh=False)
            self.read_steps()
        self.epoch += 1
        seconds = time.perf_counter() - started
        return {
            "epoch": self.epoch,
            "loss": self.world.mean(self.total / self.seen),
            "lr": lr,
            "seconds": round(seconds, 2),
            "images_per_second": round(len(self.sampler) * self.world.size / seconds, 2),
        }

    def train_step(self, batch: Mapping[str, Any], step: int) -> None:
        """Forward, loss, backward, update; what they gave is read later."""
        device = self.world.device
        image = torch.cat([self.normalise.batch(x.to(device, non_blocking=True)) for x in batch["image"]])
        mask = batch["mask"].to(device, non_blocking=True).float()
        with self.world.autocast():
            logits = self.network(image)
        loss = self.loss(logits, mask)

        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        norm = self._clip_gradient()
        self.unread.append(_Step(step + 1, batch["name"], loss.detach(), norm))
        if len(self.unread) == self.read_every:
            self.read_steps()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)

    def _clip_gradient(self) -> Tensor:
        """Clip all gradients to ``clip_grad``; their norm before, a scalar, equal in all processes."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        if self.config.trainer.clip_grad:
            nn.utils.clip_grads_with_norm_(self.trained, self.config.trainer.clip_grad, norm)
        return norm

    def read_steps(self) -> None:
        """Read the figures of the steps since the last reading, and look whether they are finite.

        Nothing is scored or saved before that, so weights that such a step has spoilt on a GPU stay there.

        Raises:
            InputError: the loss or the gradient's norm of a step is not.
        """
        if not self.unread:
            return
        steps, self.unread = self.unread, []
        losses = torch.stack([step.loss for step in steps])
        norms = torch.stack([step.norm for step in steps]).tolist()
        wrong = self.world.any(~losses.isfinite()).tolist()
        for step, loss, norm, anywhere in zip(steps, losses.tolist(), norms, wrong, strict=True):
            names = ", ".join(step.names[:4])
            at = f"in epoch {self.epoch + 1}, step {step.number} (images {names}, ...)"
            if anywhere:
                raise InputError(self._diverged(f"the loss is {loss} {at}"))
            # In float16 the scaler leaves such a step out, and lowers its scale.
            if not self.scaler.is_enabled() and not math.isfinite(norm):
                raise InputError(self._diverged(f"the gradient's norm is {norm} {at}"))
            self.total += loss * len(step.names)
            self.seen += len(step.names)

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
                    self._diverged(f"the weights {name} are not finite after epoch {self.epoch}")
                )

    def _diverged(self, what: str) -> str:
        return (
            f"{what}. {self.folder.last} keeps the weights of epoch {self.saved}. Lower optimizer.lr (now "
            f"{self.config.optimizer.lr:g}), set trainer.clip_grad=1 or precision=fp32, and start a new run; "
            f"--weights {self.folder.last} starts from those weights."
        )

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are scored and released: averaged ones where there are any."""
        return self.average.module if self.average is not None and self.average.updates else self.model

    def evaluate_epoch(self) -> dict[str, Any]:
        """Scores on the validation images, every ``eval_every`` epochs and after the last one."""
        self.world.share_buffers(self.evaluated)
        due = self.epoch % self.config.trainer.eval_every == 0 or self.epoch == self.config.trainer.epochs
        if self.val_set is None or not due:
            return {}
        counts = evaluate(
            self.evaluated,
            self.val_set,
            self.world.at("fp32"),  # as scores are taken
            batch_size=self.config.trainer.eval_batch_size,
            num_workers=self.num_workers,
        )
        return asdict(scores(counts))

    def keep_best(self, row: Mapping[str, Any]) -> None:
        """Write ``best.*`` at the highest validation IoU so far; without validation, after the last epoch."""
        iou, last = row.get("iou"), self.epoch == self.config.trainer.epochs
        if iou is not None and (self.best is None or iou > self.best):
            self.best = iou
        elif not (last and self.best is None):  # also where the IoU of the validation images is undefined
            return
        if self.world.main:
            self.folder.save_best(self.evaluated.state_dict(), self.description | {"epoch": self.epoch})

    def tell(self, row: Mapping[str, Any]) -> None:
        """Write the epoch's figures down, draw them and log them."""
        self.folder.write_history(self.history)
        self.folder.draw(self.history, now=self.epoch == self.config.trainer.epochs)
        for logger in self.loggers:
            logger.log(row)
        log.info("%s", _summary(row, self.config.trainer.epochs))

    def save(self) -> None:
        """Write all that :meth:`resume` needs."""
        self.folder.save_last(
            self.config,
            {
                "description": self.description | {"epoch": self.epoch},
                "model": self.model.state_dict(),
                "ema": self.average.module.state_dict() if self.average is not None else None,
                "ema_updates": self.average.updates if self.average is not None else 0,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "epoch": self.epoch,
                "best": self.best,
                "history": self.history,
                "processes": self.world.size,
                "rng": torch.get_rng_state(),
            },
        )

    def resume(self, saved: Saved) -> None:
        """Take up the state of a ``last.pt``: the epochs that follow are those of the uninterrupted run.

        Raises:
            InputError: the state is not of this network and optimizer.
        """
        state = saved.state
        try:
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.module.load_state_dict(state["ema"] or {})
                self.average.updates = state["ema_updates"]
            # Some optimizers (Adan) keep the tensors that they are given: the state may be used again.
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
            self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["rng"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"resume: {saved.path} does not fit the network and the optimizer that it names ({reason}). "
                f"Start a new run from its weights: --weights {saved.path}"
            ) from error
        self.epoch, self.best, self.history = state["epoch"], state["best"], list(state["history"])
        self.saved = self.epoch


def _summary(row: Mapping[str, Any], epochs: int) -> str:
    parts = [f"epoch {row['epoch']}/{epochs} loss {row['loss']:.4f}"]
    if row.get("iou") is not None:
        parts += [f"iou {row['iou']:.4f}"]
        parts += [f"pd {row['pd']:.4f}"] if row["pd"] is not None else []
        parts += [f"fa {row['fa'] * 1e6:.2f}e-6"]
    parts += [f"lr {row['lr']:.2e} {row['images_per_second']:.1f} img/s {row['seconds']:.0f} s"]
    return " ".join(parts)
