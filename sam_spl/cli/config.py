"""The typed configuration of both commands. The values are in ``configs/``; here are names, types and rules."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from sam_spl.data.config import DatasetConfig, check_pattern
from sam_spl.errors import ConfigError


@dataclass
class TrainerConfig:
    """How long and on what a network trains."""

    epochs: int = 300
    batch_size: int = 12  # per process
    augment: str = "${dataset.augment}"
    selection: str = "auto"  # auto | val | last | test: what best.* are chosen by
    val_share: float = 0.0  # of the training images, held out where a set has no validation images
    eval_every: int = 1  # epochs
    eval_batch_size: int | None = None  # null: 1 on a CPU, batch_size elsewhere
    ema_decay: float = 0.0  # 0: no averaged weights
    clip_grad: float = 0.0  # largest gradient norm; 0: no clipping


@dataclass
class CopyPasteConfig:
    """Chips cut around targets and pasted into training images."""

    probability: float = "${dataset.copy_paste}"  # type: ignore[assignment]
    source: str = (
        "train"  # train | all: which images chips are cut from; all is the published leak of test images
    )


@dataclass
class OptimizerConfig:
    """Any optimizer of timm by its name, and the learning rate over time."""

    name: str = "adan"
    lr: float = 1e-2
    weight_decay: float = 1e-4
    args: dict[str, Any] = field(
        default_factory=dict
    )  # replaced, not merged, by those given; of a recipe, dropped with name=
    trunk_lr_scale: float = 1.0  # learning rate of a trunk that trains, over that of the rest
    schedule: str = "cosine"  # cosine | multistep
    eta_min: float = 1e-6  # of the cosine
    milestones: list[int] = field(default_factory=list)  # of multistep: after these epochs
    gamma: float = 0.1  # the learning rate is multiplied by this
    warmup_epochs: float = 0.0
    per_step: bool = False  # the schedule moves every step, not every epoch


@dataclass
class CommonConfig:
    """What training and testing share."""

    dataset: DatasetConfig = MISSING
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    precision: str = "auto"  # of training: auto (bf16 where the hardware supports it) | fp32 | bf16 | fp16
    num_workers: int | None = None  # loader processes; null: 0 on a CPU, else up to 4
    seed: int = 2727


@dataclass
class TrainConfig(CommonConfig):
    """``training.py``."""

    recipe: str = "auto"  # the file of configs/recipe/ that was taken
    model: dict[str, Any] = MISSING
    loss: dict[str, Any] = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    copy_paste: CopyPasteConfig = field(default_factory=CopyPasteConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    weights: str | None = None  # start from these, for fine-tuning
    save_dir: str = "./checkpoints/${dataset.title}-${model.name}"
    resume: str | None = None  # a run folder or its last.pt
    overwrite: bool = False  # a run that save_dir already holds
    use_ddp: bool = False
    test_on: list[str] = field(
        default_factory=list
    )  # data sets to test on at the end; "same" is the trained one


@dataclass
class TestConfig(CommonConfig):
    """``testing.py``."""

    __test__ = False  # no test class, whatever pytest thinks of its name

    weights: str = MISSING
    precision: str = "fp32"  # scores are taken in float32 unless asked otherwise: auto | fp32 | bf16 | fp16
    split: str = (
        "auto"  # test | val | train | all; auto: test, but all of a folder without lists new to the weights
    )
    batch_size: int | None = None  # null: 1 on a CPU, 12 elsewhere
    image_size: int | None = None  # null: as the weights were trained
    train_size: int | None = None  # of published DATransNet weights, which do not say it
    native_size: bool = False  # every image at its own size, whatever the weights say
    output_dir: str | None = None  # null: beside the weights
    protocols: list[str] = field(default_factory=lambda: ["native"])  # the first is compared with the others
    bootstrap: int = 1000  # resamples of the images for 95 % intervals; 0: none
    empty: str | None = (
        None  # one | zero | skip: nIoU of an image rightly predicted empty; null: the protocol's rule
    )
    curves: bool = True  # hIoU, ROC and PR, Pd by size and at a false-alarm budget
    fa_budget: float = 10.0  # 1e-6 per pixel
    report: int = 200  # images in the gallery of report.html, the worst first; 0: no report
    figures: int = (
        0  # for papers, as PNG and PDF: ROC, PR, and a grid and surfaces of so many images; 0: none
    )
    overlays: int = 12  # pictures of the worst images
    save_predictions: str | None = None  # npy | png | mat: probability maps into predictions/
    use_ddp: bool = False


def register() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="test_schema", node=TestConfig)


def check(config: Any) -> None:
    """Rules that types do not express, before any data or device is touched.

    Raises:
        ConfigError: the first rule that is broken.
    """
    if config.dataset.data_path is None:
        raise ConfigError("dataset.data_path: a value is required, as --data_path VALUE.")
    for dataset in (config.dataset, *config.dataset.members):
        if not isinstance(dataset, str):
            check_pattern("dataset.group", dataset.group)
    training = "trainer" in config
    sizes = {"dataset.image_size": config.dataset.image_size, "dataset.test_size": config.dataset.test_size}
    if training:
        trainer, optimizer = config.trainer, config.optimizer
        sizes |= {"trainer.batch_size": trainer.batch_size, "trainer.epochs": trainer.epochs}
        sizes |= {
            "trainer.eval_every": trainer.eval_every,
            "trainer.eval_batch_size": trainer.eval_batch_size,
        }
        _require(
            config.dataset.image_size is not None,
            "dataset.image_size",
            None,
            "training needs a size in pixels",
        )
        _require(optimizer.lr > 0, "optimizer.lr", optimizer.lr, "must be above 0")
        _require(
            0 <= optimizer.eta_min <= optimizer.lr,
            "optimizer.eta_min",
            optimizer.eta_min,
            "must be in [0, lr]",
        )
        _require(0 <= trainer.ema_decay < 1, "trainer.ema_decay", trainer.ema_decay, "must be in [0, 1)")
        _require(0 <= trainer.val_share < 1, "trainer.val_share", trainer.val_share, "must be in [0, 1)")
        _require(
            0 <= optimizer.warmup_epochs < math.inf,
            "optimizer.warmup_epochs",
            optimizer.warmup_epochs,
            "must be a number of epochs from 0 up",
        )
        schedules = ("cosine", "multistep")
        _require(
            optimizer.schedule in schedules,
            "optimizer.schedule",
            optimizer.schedule,
            f"choose of {schedules}",
        )
        choices = ("auto", "val", "last", "test")
        sources = ("train", "all")
        chips = config.copy_paste
        _require(chips.source in sources, "copy_paste.source", chips.source, f"choose of {sources}")
        _require(
            0 <= chips.probability <= 1, "copy_paste.probability", chips.probability, "must be in [0, 1]"
        )
        _require(trainer.selection in choices, "trainer.selection", trainer.selection, f"choose of {choices}")
    else:
        sizes |= {"image_size": config.image_size, "batch_size": config.batch_size}
        _require(
            config.empty in (None, "one", "zero", "skip"), "empty", config.empty, "choose one, zero or skip"
        )
        forms = (None, "npy", "png", "mat")
        _require(
            config.save_predictions in forms,
            "save_predictions",
            config.save_predictions,
            f"choose of {forms[1:]}",
        )
        _require(config.bootstrap >= 0, "bootstrap", config.bootstrap, "must be >= 0")
        splits = ("auto", "test", "val", "train", "all")
        _require(config.split in splits, "split", config.split, f"choose of {splits}")
        sizes |= {"train_size": config.train_size}
    for key, value in sizes.items():
        _require(value is None or value > 0, key, value, "must be a positive number")
    from sam_spl.resize import RULES  # with OpenCV, which --help does without

    rule = config.dataset.resize
    _require(rule in RULES, "dataset.resize", rule, f"choose of {RULES}")
    size = config.dataset.image_size
    _require(size is None or size >= 32, "dataset.image_size", size, "must be at least 32 pixels")
    precisions = ("auto", "fp32", "bf16", "fp16")
    _require(config.precision in precisions, "precision", config.precision, f"choose of {precisions}")
    _require(
        config.num_workers is None or config.num_workers >= 0,
        "num_workers",
        config.num_workers,
        "must be >= 0",
    )


def _require(holds: bool, key: str, value: Any, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{key}: {value} is not valid, {rule}.")
