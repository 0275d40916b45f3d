"""Training and testing as they really run, and their stages."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch

import sam_spl
from benchmark.rows import Row, side
from benchmark.timing import Stopwatch, Times, interleaved, quiet
from sam_spl.data.catalog import open_dataset
from sam_spl.data.dataset import EvaluationSet, TrainingSet
from sam_spl.data.normalise import normalise_of
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.data.transforms import build_transform
from sam_spl.engine import testing
from sam_spl.engine.config import TestConfig, TrainConfig
from sam_spl.engine.losses import build_loss
from sam_spl.engine.optim import Average
from sam_spl.engine.record import RunFolder
from sam_spl.engine.trainer import Trainer
from sam_spl.models.registry import build, built_from, channels_of
from sam_spl.registry import is_reference
from sam_spl.runtime import World, loader_workers, one_opencv_thread, pick_precision
from sam_spl.weights.formats import save_weights

Work = Callable[[], Mapping[str, float] | None]


@dataclass(frozen=True)
class Setting:
    """A network that is trained and tested on the generated images of a folder."""

    name: str
    precision: str
    image_size: int
    batch_size: int
    device: str
    folder: Path

    @property
    def world(self) -> World:
        """Device and precision."""
        device = torch.device(self.device)
        return World(0, 1, device, pick_precision(self.precision, device))

    def config(self) -> TrainConfig:
        """A training run by the recipe ``scratch``, which has every stage."""
        words = [
            *(f"model={self.name}", "recipe=scratch", f"precision={self.precision}"),
            *("dataset=custom", f"dataset.data_path={self.folder}", f"dataset.image_size={self.image_size}"),
            *(f"trainer.batch_size={self.batch_size}", "trainer.epochs=1000", "trainer.selection=last"),
        ]
        config = sam_spl.compose("train", *words)
        assert isinstance(config, TrainConfig)
        return config

    def rows(self, mode: str, times: Times, images: int) -> Iterator[Row]:
        """The whole, timed by itself, and the stages of further rounds."""
        row = Row(
            name=self.name,
            mode=mode,
            precision=self.precision,
            image_size=side((self.image_size, self.image_size)),
            batch_size=self.batch_size,
        )
        if times.stages:
            for stage, seconds in times.stages.items():
                yield replace(row, mode=f"{mode}: {stage}").timed(seconds, images)
        else:
            yield replace(row.timed(times.rounds, images), first_call_seconds=times.first)


def write_images(folder: Path, count: int, size: int) -> None:
    """``count`` generated images for training and as many for testing, with masks and lists."""
    source = SyntheticSource(2 * count, size, seed=3)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    names = [source.name(index) for index in range(len(source))]
    for index, name in enumerate(names):
        image, mask = source.load(index)
        cv2.imwrite(str(folder / "images" / f"{name}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask.astype(np.uint8) * 255)
    (folder / "train.txt").write_text("\n".join(names[:count]))
    (folder / "test.txt").write_text("\n".join(names[count:]))


def measure(settings: Sequence[Setting], images: int, repeat: int) -> list[Row]:
    """Rows of an epoch of training and of a test of ``images`` images, and of their stages."""
    rows = []
    for mode, make in (("train step", training), ("test set", test)):
        work: dict[tuple[Setting, str], Work] = {}
        for setting in settings:
            whole, staged = make(setting)
            work |= {(setting, "whole"): whole, (setting, "stages"): staged}
        for (setting, _), times in interleaved(work, repeat, settings[0].world.device).items():
            rows += setting.rows(mode, times, images)
    return rows


def training(setting: Setting) -> tuple[Work, Work]:
    """An epoch of training, as a whole and by stage."""
    trainer = make_trainer(setting)
    loader = trainer.loader()

    def epoch(loader: Any) -> None:
        trainer.step = 0  # the same epoch again
        with quiet(), one_opencv_thread(), patch.object(trainer, "loader", lambda: loader):
            trainer.train_epoch()

    def whole() -> None:
        epoch(loader)

    def staged() -> dict[str, float]:
        watch = Stopwatch(trainer.world.device)
        with watch.stage("all"), training_stages(trainer, watch):
            epoch(TimedLoader(loader, watch))
        return with_rest(watch.seconds)

    return whole, staged


def make_trainer(setting: Setting) -> Trainer:
    """The trainer that ``sam_spl.train`` makes, without a validation set and a folder to write to."""
    config = setting.config()
    torch.manual_seed(config.seed)
    source = open_dataset(config.dataset, seed=config.seed).part("train").open()
    model = build(config.model)
    augment = config.trainer.augment
    assert augment is not None
    transform = build_transform(
        augment,
        setting.image_size,
        source,
        copy_paste=config.copy_paste.probability or 0.0,
        seed=config.seed,
        resize=config.dataset.resize,
    )
    normalise = normalise_of(config.dataset, channels_of(model))
    return Trainer(
        model=model,
        loss=build_loss(config.loss),
        train_set=TrainingSet(source, transform, config.seed),
        normalise=normalise,
        val_set=None,
        config=config,
        world=setting.world,
        folder=RunFolder(setting.folder / "run"),
        description={},
        num_workers=loader_workers(None, setting.world.device),
    )


@contextmanager
def training_stages(trainer: Trainer, watch: Stopwatch) -> Iterator[None]:
    """Time the parts of a training step where the trainer calls them."""
    network, update = type(trainer.model), trainer.update
    with (
        patch.object(network, "forward", watch.timed("forward", network.forward)),
        patch.object(update, "loss", watch.timed("loss", update.loss)),
        patch.object(torch.Tensor, "backward", watch.timed("backward", torch.Tensor.backward)),
        patch.object(update, "_clip_gradient", watch.timed("clip", update._clip_gradient)),
        patch.object(trainer.optimizer, "step", watch.timed("optimizer", trainer.optimizer.step)),
        patch.object(Average, "update", watch.timed("EMA", Average.update)),
    ):
        yield


class TimedLoader:
    """A loader whose batches are waited for in the stage ``loader``."""

    def __init__(self, loader: Any, watch: Stopwatch) -> None:
        self.loader, self.watch = loader, watch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        with self.watch.stage("loader"):
            batches = iter(self.loader)
        while True:
            with self.watch.stage("loader"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def with_rest(seconds: Mapping[str, float]) -> dict[str, float]:
    """The stages, with what is left of ``all`` as ``rest``."""
    stages = {name: value for name, value in seconds.items() if name != "all"}
    return stages | {"rest": seconds["all"] - sum(stages.values())}


def test(setting: Setting) -> tuple[Work, Work]:
    """``sam_spl.test`` on the test images, as a whole and by stage, with weights as training starts from."""
    config = setting.config()
    torch.manual_seed(config.seed)
    model = build(config.model)
    normalise = normalise_of(config.dataset, channels_of(model))
    index = len(list(setting.folder.glob("weights-*")))
    weights = save_weights(
        setting.folder / f"weights-{index}.safetensors",
        model.state_dict(),
        {
            **built_from(model),
            "in_channels": channels_of(model),
            "mean": list(normalise.mean),
            "std": list(normalise.std),
            "image_size": setting.image_size,
            "resize": config.dataset.resize,
        },
    )
    asked = TestConfig(
        weights=str(weights),
        dataset=config.dataset,
        device=setting.device,
        precision=setting.precision,
        split="test",
        batch_size=setting.batch_size,
        model=setting.name if is_reference(setting.name) else None,
        output_dir=str(setting.folder / f"result-{index}"),
    )

    def whole() -> None:
        with quiet():
            sam_spl.test(asked)

    def staged() -> dict[str, float]:
        watch = Stopwatch(setting.world.device)
        started = time.perf_counter()
        begun = defaultdict[str, float](float)

        def evaluate(*args: Any, **kwargs: Any) -> Any:
            begun["evaluate"] = time.perf_counter()
            with watch.stage("evaluate"):
                return original(*args, **kwargs)

        original, network = testing.evaluate, type(model)
        with (
            watch.stage("all"),
            patch.object(testing, "evaluate", evaluate),
            patch.object(EvaluationSet, "__getitem__", watch.timed("reading", EvaluationSet.__getitem__)),
            patch.object(network, "forward", watch.timed("forward", network.forward)),
        ):
            whole()
        of, opening = watch.seconds, begun["evaluate"] - started
        return {
            "opening": opening,  # weights, lists, decoding
            "reading": of["reading"],
            "forward": of["forward"],
            "counting": of["evaluate"] - of["reading"] - of["forward"],
            "report": of["all"] - of["evaluate"] - opening,
        }

    return whole, staged
