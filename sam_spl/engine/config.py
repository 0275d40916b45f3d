"""The settings of training and testing, and their rules. Values of recipes are in ``configs/``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import MISSING

from sam_spl.config import (
    check_types,
    require,
    require_choice,
    require_folder,
    require_resamples,
    require_side,
)
from sam_spl.data.config import CopyPasteConfig, DatasetConfig
from sam_spl.errors import ConfigError
from sam_spl.models.registry import ModelConfig, model_names
from sam_spl.predict.config import ENGINES

_MOST = 10**7  # epochs, or images in a batch
_MOST_WORKERS = 1024


@dataclass
class RuntimeConfig:
    """Where and how a command computes."""

    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    precision: str = "auto"  # auto (bf16 where the hardware supports it) | fp32 | tf32 (CUDA) | bf16 | fp16
    deterministic: bool = False  # on CUDA: equal bits in every run, slower; a CPU's always are
    num_workers: int | None = None  # loader processes; null: 0 on a CPU, else 4
    use_ddp: bool = False  # started by torchrun, one process a GPU
    seed: int = 2727

    def __post_init__(self) -> None:
        check_types(self)
        require_choice(self.precision, "precision", ("auto", "fp32", "tf32", "bf16", "fp16"))
        workers = self.num_workers
        rule = f"must be a number of processes from 0 to {_MOST_WORKERS}"
        require(workers is None or 0 <= workers <= _MOST_WORKERS, "num_workers", workers, rule)
        require(0 <= self.seed < 2**63, "seed", self.seed, "must be a whole number >= 0")


@dataclass
class LossConfig:
    """A loss by name, with its arguments."""

    name: str = "segmentation"  # as registered, or module:Class of your own
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self, "loss")


@dataclass
class OptimizerConfig:
    """Any optimizer of timm by its name, and the learning rate over time."""

    name: str = "adan"
    lr: float = 1e-2
    weight_decay: float = 1e-4
    args: dict[str, Any] = field(
        default_factory=dict
    )  # arguments of the optimizer; a recipe's are ignored if you set optimizer.name
    trunk_lr_scale: float = 1.0  # learning rate of a trunk that trains, over that of the rest
    schedule: str = "cosine"  # cosine | multistep
    eta_min: float = 1e-6  # where the cosine ends
    milestones: list[int] = field(default_factory=list)  # of multistep: after these epochs
    gamma: float = 0.1  # of multistep: the learning rate is multiplied by this
    warmup_epochs: float = 0.0
    per_step: bool = False  # the learning rate changes every step, not every epoch

    def __post_init__(self) -> None:
        check_types(self, "optimizer")
        require(0 < self.lr < math.inf, "optimizer.lr", self.lr, "must be above 0")
        for key in ("weight_decay", "trunk_lr_scale", "gamma"):
            value = getattr(self, key)
            require(0 <= value < math.inf, f"optimizer.{key}", value, "must be a number from 0 up")
        after = all(isinstance(one, int) and one > 0 for one in self.milestones)
        require(after, "optimizer.milestones", self.milestones, "must be numbers of epochs above 0")
        betas = self.args.get("betas", [])
        require(isinstance(betas, list), "optimizer.args.betas", betas, "give a list of numbers")
        require(0 <= self.eta_min <= self.lr, "optimizer.eta_min", self.eta_min, "must be in [0, lr]")
        require_choice(self.schedule, "optimizer.schedule", ("cosine", "multistep"))
        rule = "must be a number of epochs from 0 up"
        require(0 <= self.warmup_epochs < math.inf, "optimizer.warmup_epochs", self.warmup_epochs, rule)


@dataclass
class TrainerConfig:
    """How long and on what a network trains."""

    epochs: int = 300
    minutes: float | None = None  # train for so long, the schedule of epochs over it; null: for epochs
    batch_size: int = 12  # per process
    accumulate: int = 1  # batches whose gradients make one update
    sync_bn: str = "auto"  # BatchNorm over all processes: auto (below 8 images in one) | true | false
    augment: str | None = None  # null: as the data set's file says
    selection: str = "auto"  # auto | val | last | test: what best.* are chosen by
    val_share: float = 0.0  # of the training images, held out where a set has no validation images
    eval_every: int = 1  # epochs
    eval_batch_size: int | None = None  # null: 1 on a CPU, 12 elsewhere
    save_every: int = 1  # epochs between two writes of last.pt
    save_every_steps: int | None = None  # updates between two further ones, within an epoch
    ema_decay: float = 0.0  # 0: no averaged weights
    clip_grad: float = 0.0  # largest gradient norm; 0: no clipping
    max_bad_steps: int = 10  # updates in a row left out, as a loss or gradient is not finite; then it ends
    stall_minutes: float = 30.0  # without an image, after which it ends; 0: never

    def __post_init__(self) -> None:
        check_types(self, "trainer")
        clip = self.clip_grad
        require(0 <= clip < math.inf, "trainer.clip_grad", clip, "must be a norm, or 0 for no clipping")
        positive = ("epochs", "batch_size", "eval_every", "eval_batch_size", "save_every", "accumulate")
        for key in (*positive, "save_every_steps"):
            value = getattr(self, key)
            rule = f"must be a number from 1 to {_MOST}"
            require(value is None or 0 < value <= _MOST, f"trainer.{key}", value, rule)
        require(0 <= self.ema_decay < 1, "trainer.ema_decay", self.ema_decay, "must be in [0, 1)")
        require(0 <= self.val_share < 1, "trainer.val_share", self.val_share, "must be in [0, 1)")
        require_choice(self.selection, "trainer.selection", ("auto", "val", "last", "test"))
        require_choice(self.sync_bn, "trainer.sync_bn", ("auto", "true", "false"))
        limit = self.minutes
        require(
            limit is None or 0 < limit < math.inf,
            "trainer.minutes",
            limit,
            "must be minutes above 0, or null",
        )
        for key in ("max_bad_steps", "stall_minutes"):
            value = getattr(self, key)
            require(0 <= value < math.inf, f"trainer.{key}", value, "must be a number from 0 up")


@dataclass(kw_only=True)
class TrainConfig(RuntimeConfig):
    """Train a network."""

    model: ModelConfig = MISSING  # the network; a file of configs/model/, or module:Class of your own
    dataset: DatasetConfig = MISSING  # a file of configs/dataset/, or [a,b] for the union of several
    recipe: str | None = None  # a file of configs/recipe/; auto: the network's
    loss: LossConfig = field(default_factory=LossConfig)  # a file of configs/loss/, or module:Class
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    copy_paste: CopyPasteConfig = field(default_factory=CopyPasteConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    weights: str | None = None  # start from these weights, for fine-tuning
    save_dir: str | None = None  # folder of the run; null: checkpoints/DATASET-MODEL
    resume: str | None = None  # run folder or last.pt to go on from; auto: save_dir, if it holds a run
    overwrite: bool = False  # replace the run that save_dir holds
    on_bad_sample: str = "stop"  # stop | skip: a training image or mask that cannot be read
    logger: str | None = None  # tensorboard, or module:Class of your own
    test_on: list[str] = field(default_factory=list)  # data sets to test on at the end; same: the trained one

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("model", "dataset"):
            if getattr(self, key) == MISSING:
                raise ConfigError(f"{key}: a value is required.")
        require_folder(self.save_dir, "save_dir")
        require_choice(self.on_bad_sample, "on_bad_sample", ("stop", "skip"))
        size = self.dataset.image_size
        require(size is not None, "dataset.image_size", size, "training needs a size in pixels")
        if self.trainer.augment is None:
            self.trainer = replace(self.trainer, augment=self.dataset.augment)
        if self.copy_paste.probability is None:
            self.copy_paste = replace(self.copy_paste, probability=self.dataset.copy_paste)
        if self.save_dir is None:
            network = re.sub(r"[^\w.+-]+", "_", self.model.name.rpartition(":")[2])
            self.save_dir = f"./checkpoints/{self.dataset.title}-{network}"


@dataclass(kw_only=True)
class TestConfig(RuntimeConfig):
    """Test weights on a data set: scores, pictures and a report."""

    __test__ = False  # no test class, whatever pytest thinks of its name

    weights: str = ""  # file, run folder, FILE.onnx of sam-spl export; or [a,b]; "": model has none (tophat)
    dataset: DatasetConfig = MISSING  # a file of configs/dataset/; [a,b] for one after the other
    precision: str = "fp32"  # fp32 | tf32 (CUDA) | bf16 | fp16 | auto
    split: str = "auto"  # test | val | train | all; auto: test, but all of a new folder without lists
    batch_size: int | None = None  # null: 1 on a CPU, 12 elsewhere; images of one size go together
    image_size: int | None = None  # side of the network's input; null: as the weights were trained
    engine: str = "auto"  # torch; of FILE.onnx onnxruntime | openvino; auto: of these the first installed
    compile: str = "auto"  # auto (on a CPU, where it pays) | true | false: the network's forward pass
    native_size: bool = False  # every image at its own size, whatever the weights say
    train_size: int | None = None  # of published DATransNet weights, which do not state it
    model: str | None = None  # module:Class, for weights of your own network; or one without weights: tophat
    output_dir: str | None = None  # null: a folder beside the weights, named by what is tested
    protocols: list[str] = field(default_factory=lambda: ["native"])  # the first is compared with the others
    bootstrap: int = 1000  # resamples for 95 % intervals; 0: none
    empty: str | None = None  # one | zero | skip: nIoU of an empty image predicted empty; null: by protocol
    curves: bool = True  # hIoU, ROC and PR, Pd by size and at a false-alarm budget
    fa_budget: float = 10.0  # 1e-6 per pixel
    report: int = 200  # images in the gallery of report.html, the worst first; 0: no report
    figures: int = 0  # ROC, PR, and a grid of so many images, as PNG and PDF; 0: none
    overlays: int = 12  # pictures of the worst images
    save_predictions: str | None = None  # npy | png | mat: probability maps into predictions/

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("image_size", "train_size"):
            require_side(getattr(self, key), key, least=1)
        size = self.batch_size
        require(size is None or 0 < size <= _MOST, "batch_size", size, f"must be a number from 1 to {_MOST}")
        require_resamples(self.bootstrap)
        require_folder(self.output_dir, "output_dir")
        if not self.weights and self.model in model_names():
            self.weights = self.model  # of a network that has none
        for key in ("weights", "dataset"):
            if getattr(self, key) in ("", MISSING):
                raise ConfigError(f"{key}: a value is required, as --{key} VALUE.")
        for key in ("report", "figures", "overlays", "fa_budget"):
            value = getattr(self, key)
            require(0 <= value < math.inf, key, value, "must be a number from 0 up")
        require_choice(self.empty, "empty", (None, "one", "zero", "skip"))
        require_choice(self.save_predictions, "save_predictions", (None, "npy", "png", "mat"))
        require_choice(self.engine, "engine", ENGINES)
        require_choice(self.compile, "compile", ("auto", "true", "false"))
        require_choice(self.split, "split", ("auto", "test", "val", "train", "all"))
