"""A training run from its configuration: ``train(TrainConfig(...))``, which the command calls as well."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sam_spl
from sam_spl.config import config_folders, plain
from sam_spl.data.catalog import DataSet, open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.data.dataset import EvaluationSet, TrainingSet
from sam_spl.data.known import network_input
from sam_spl.data.normalise import Normalise, normalise_of
from sam_spl.data.pairing import has_images
from sam_spl.data.sources import Joined, Source
from sam_spl.data.transforms import build_transform
from sam_spl.engine import auto
from sam_spl.engine.config import TestConfig, TrainConfig
from sam_spl.engine.loggers import LOGGERS, Logger
from sam_spl.engine.losses import build_loss
from sam_spl.engine.record import PREVIOUS, RunFolder, Saved, read_saved, resumed_config
from sam_spl.engine.stopping import Stop
from sam_spl.engine.testing import test, test_part
from sam_spl.engine.trainer import ENDING, ENDS, Trainer, synchronises
from sam_spl.errors import ConfigError, InputError, Stopped, UserError, message
from sam_spl.models.registry import build, built_from, channels_of, freeze_trunk, model_file
from sam_spl.registry import is_reference
from sam_spl.results.folder import Result
from sam_spl.runtime import World, distributed, loader_workers, one_opencv_thread, world_size
from sam_spl.weights.formats import find_weights, read_weights
from sam_spl.weights.loading import load_weights
from sam_spl.weights.sam2 import load_trunk

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where its files are.
        config: what it ran with, everything settled.
        history: a table of figures for each epoch, as in ``metrics.jsonl``.
        results: of the tests that ``test_on`` asked for.
    """

    folder: Path
    config: TrainConfig
    history: list[dict[str, Any]]
    results: list[Result] = field(default_factory=list)

    @property
    def best(self) -> Path:
        """The weights to use."""
        return find_weights(self.folder)

    @property
    def last(self) -> Path:
        """All that is needed to go on."""
        return self.folder / "last.pt"


_NOTHING = 0.01  # IoU of weights that find next to nothing
_LEARNED_NOTHING = (
    "the best IoU on validation images is %.4f: these weights find next to nothing. Train longer, or lower "
    "optimizer.lr"
)
#: How messages name what comes next.
_COMMANDS = {"train": "sam-spl train", "test": "sam-spl test"}


def train(
    config: TrainConfig,
    *,
    given: Collection[str] | None = None,
    world: World | None = None,
    commands: Mapping[str, str] = _COMMANDS,
) -> Run:
    """Train a network, or continue a run (``config.resume``).

    Args:
        config: of the run; of a resumed one, what it should be from now on.
        given: of a resumed run, the keys of ``config`` that the user named, as on the command line; None for
            all of them. The others are as the run has them.
        world: the processes of this run, where they are joined already.
        commands: how to start what messages recommend, training (``train``) and testing (``test``).

    Raises:
        ConfigError: settings that do not go together, a folder that holds a run, or another setting for a
            resumed run than it was started with.
        InputError: data, weights or devices are not what they should be, or training diverges.
    """
    if world is not None:
        return run(*resolve(config, given, world.size), world, commands)
    config, saved = resolve(config, given, world_size())
    with distributed(config.device, use_ddp=config.use_ddp, deterministic=config.deterministic) as joined:
        return run(config, saved, joined, commands)


def resolve(
    config: TrainConfig, given: Collection[str] | None, processes: int
) -> tuple[TrainConfig, Saved | None]:
    """The settings that a run uses, and the run that it continues, if any.

    Args:
        config: as asked for.
        given: as in :func:`train`.
        processes: of the run.

    Raises:
        ConfigError: another setting for a resumed run than it was started with.
        InputError: there is no such run.
    """
    saved = _saved(config)
    if saved is None:
        return settle(config), None
    if config.overwrite:
        raise ConfigError("overwrite, resume: one replaces a run, the other continues it. Give one of them.")
    return resumed_config(saved, config, given, processes), saved


def settle(config: TrainConfig) -> TrainConfig:
    """The configuration with what ``auto`` stands for."""
    model = replace(config.model, trunk_weights=auto.trunk_weights(config.model, config.weights))
    return replace(config, model=model)


def _saved(config: TrainConfig) -> Saved | None:
    """The run to continue; None to start one."""
    if config.resume is None:
        return None
    if config.resume != "auto":
        return read_saved(config.resume)
    assert config.save_dir is not None
    folder = Path(config.save_dir).expanduser()
    held = any((folder / name).is_file() for name in ("last.pt", PREVIOUS))
    return read_saved(folder) if held else None


def run(config: TrainConfig, saved: Saved | None, world: World, commands: Mapping[str, str]) -> Run:
    """One run, new or resumed, of what :func:`resolve` gave, in this process."""
    assert config.save_dir is not None
    world = world.at(config.precision)
    torch.manual_seed(config.seed)
    tests = tests_after(config)
    for one in tests:  # what is missing is to be known before the training, not after it
        test_part(one)
    data = open_dataset(config.dataset, val_share=config.trainer.val_share, seed=config.seed)
    train_source = data.part("train").open(skip_bad=config.on_bad_sample == "skip")
    val = _selection(config, data)

    # What can fail is tried before the folder is touched.
    model = _build(config, saved)
    normalise = normalise_of(config.dataset, channels_of(model))
    size = network_input(config.dataset)["image_size"]
    val_set = EvaluationSet(data.part(val).open(), size, normalise, config.dataset.resize) if val else None
    training_set = _training_set(config, data, train_source)
    loss = build_loss(config.loss)
    make_logger = LOGGERS[config.logger] if config.logger else None
    folder = RunFolder(config.save_dir)
    with ExitStack() as stack:
        stack.enter_context(one_opencv_thread())  # samples are small, and loader processes share the cores
        if world.main:
            stack.enter_context(folder.lock())
        loggers: list[Logger] = []
        trainer = Trainer(
            model=model,
            loss=loss,
            train_set=training_set,
            normalise=normalise,
            val_set=val_set,
            config=config,
            world=world,
            folder=folder,
            description=_describe(config, data, model, normalise, val, saved),
            num_workers=loader_workers(config.num_workers, world.device),
            loggers=loggers,
        )
        if saved is not None:
            _same_images(saved, data)
            trainer.resume(saved)
        if world.main:
            if saved is None and not config.overwrite:
                folder.check_free()
            # A logger may fail, or write at once: after the check, and before anything is removed.
            if make_logger is not None:
                loggers.append(make_logger(folder.path))
            if saved is None:
                folder.begin(config, model)
            elif saved.path.stat().st_mtime_ns != saved.written:
                raise InputError(f"resume: another process has written {saved.path} meanwhile. Start again.")
            else:
                folder.resume(saved, config, model)
        world.barrier()
        stack.enter_context(_logging_to(folder.path / "train.log" if world.main else None))
        for logger in loggers:
            stack.callback(_close, logger)
        _announce(config, data, model, world, trainer, val)
        if saved is not None:
            _tell_of_processes(saved, config, world)
        try:
            trainer.fit()
        except KeyboardInterrupt as stopped:
            if isinstance(stopped, Stopped):
                trainer.write("curves.png", lambda: folder.draw(trainer.history, now=True))
            raise type(stopped)(_where_to_go_on(stopped, trainer, commands)) from None
        if world.main:
            if saved is not None and saved.state["epoch"] == trainer.epoch:
                folder.draw(trainer.history, now=True)
                key = "epochs" if config.trainer.minutes is None else "minutes"
                whole = getattr(config.trainer, key)
                log.info("all %g %s were done before; trainer.%s=N goes on", whole, key, key)
            if trainer.best is not None and trainer.best < _NOTHING:
                log.warning(_LEARNED_NOTHING, trainer.best)
            tested = f"{commands['test']} {_test_words(config, folder.path)}"
            log.info("done: weights and log in %s. Test with: %s", folder.path, tested)
    return Run(folder.path, config, trainer.history, _tested(tests, trainer, commands))


def _tested(tests: Sequence[TestConfig], trainer: Trainer, commands: Mapping[str, str]) -> list[Result]:
    """The results of the tests after the training, which a signal ends where they are."""
    stop = Stop()
    try:
        with stop.listening(), stop.at_once():
            return [result for one in tests if (result := test(one, world=trainer.world)) is not None]
    except Stopped as stopped:
        raise Stopped(_where_to_go_on(stopped, trainer, commands)) from None


def _close(logger: Logger) -> None:
    try:
        logger.close()
    except OSError as error:
        log.warning("the logger cannot be closed: %s", error)


def _where_to_go_on(stopped: KeyboardInterrupt, trainer: Trainer, commands: Mapping[str, str]) -> str:
    epoch, step = trainer.saved
    within = f" and {step} of {trainer.steps} steps of the next" if step else ""
    why = f"{stopped}: " if str(stopped) else ""
    settings = trainer.config.trainer
    of = f" of {settings.epochs}" if settings.minutes is None else ""
    return (
        f"{why}{epoch}{of} epochs{within} are saved. Go on with: "
        f"{commands['train']} {shlex.join(_resume_words(trainer.config, trainer.folder.path))}"
    )


def _resume_words(config: TrainConfig, folder: Path) -> list[str]:
    """What goes on with a run: its folder, and the user's own code, which no file may import."""
    named = {
        "model": config.model.name,
        "loss": config.loss.name,
        "trainer.augment": config.trainer.augment,
        "logger": config.logger,
    }
    own = [f"{key}={name}" for key, name in named.items() if name is not None and is_reference(name)]
    return ["--resume", str(folder), *_own_folders(), *own]


def _own_folders() -> list[str]:
    return [word for own in config_folders()[:-1] for word in ("--config_dir", str(own))]


def tests_after(config: TrainConfig) -> list[TestConfig]:
    """The tests that ``test_on`` asks for."""
    assert config.save_dir is not None
    tests = []
    for name in config.test_on:
        dataset = config.dataset if name == "same" else _beside(config.dataset, name)
        tests.append(
            TestConfig(
                weights=config.save_dir,
                dataset=dataset,
                device=config.device,
                deterministic=config.deterministic,
                num_workers=config.num_workers,
                model=config.model.name if is_reference(config.model.name) else None,
            )
        )
    return tests


def _beside(dataset: DatasetConfig, name: str) -> DatasetConfig:
    """Another set by its name, in the folder that holds the trained one."""
    other = DatasetConfig.named(name)
    if other.source != "folder" or dataset.data_path is None:
        return other
    folder = Path(dataset.data_path).expanduser()
    return replace(other, data_path=str(folder.resolve().parent if has_images(folder) else folder))


def _test_words(config: TrainConfig, folder: Path) -> str:
    """What tests the weights on the set that they were trained on."""
    dataset, words = config.dataset, ["--weights", str(folder), *_own_folders()]
    if is_reference(config.model.name):
        words += ["--model", config.model.name]
    if dataset.source == "folder":
        names = ",".join(member.name for member in dataset.members)
        words += ["--dataset", f"[{names}]" if names else dataset.name, "--data_path", str(dataset.data_path)]
        words += ["--lists", dataset.lists] if dataset.lists else []
    else:
        scenes = ", ".join(f"{key}: {value}" for key, value in dataset.synthetic.items())
        words += ["--dataset", dataset.name, f"dataset.image_size={dataset.image_size}"]
        words += [f"dataset.synthetic={{{scenes}}}"]
    return shlex.join(words)


def _same_images(saved: Saved, data: DataSet) -> None:
    """A resumed run needs the images that it was trained on."""
    before = (saved.state["description"].get("trained_on") or {}).get("fingerprint")
    now = data.parts["train"].fingerprint
    if before != now:
        raise InputError(
            f"resume: the training images in {data.where} (lists {data.lists}) are not those of "
            f"{saved.path.parent}: their list differs. Give the data that the run was started with, or start "
            "a new run."
        )


def _tell_of_processes(saved: Saved, config: TrainConfig, world: World) -> None:
    """What another number of processes than before changes."""
    before = saved.state["processes"]
    if before == world.size:
        return
    log.warning(
        "resumed on %d process(es), before on %d: an update takes as many images, but sums are rounded "
        "otherwise%s%s",
        world.size,
        before,
        "" if synchronises(saved.config) and synchronises(config) else ", BatchNorm sees other batches",
        ", and other images are left out at the end of an epoch" if world.size > 1 or before > 1 else "",
    )


def _selection(config: TrainConfig, data: DataSet) -> str | None:
    """The part that ``best`` is chosen by; None for the last epoch."""
    choice = config.trainer.selection
    if choice == "auto":
        return "val" if data.parts["val"].count else None
    if choice == "val" and not data.parts["val"].count:
        raise ConfigError(
            f"trainer.selection: {data.title} (lists {data.lists}) has no validation images. Hold out some "
            "training images with trainer.val_share=0.2, or set trainer.selection=last."
        )
    return None if choice == "last" else choice


def _build(config: TrainConfig, saved: Saved | None) -> nn.Module:
    """The network with the weights that it starts from; those of a resumed run come with its state later."""
    model = build(config.model)
    if saved is not None:
        if saved.state["frozen"] and hasattr(model, "freeze_trunk"):
            freeze_trunk(model)
        return model
    if config.model.trunk_weights:
        load_trunk(model, config.model.trunk_weights, model_file(config.model.name).get("hub"))
    if config.weights is not None:
        load_weights(model, config.weights)
    return model


def _training_set(config: TrainConfig, data: DataSet, source: Source) -> TrainingSet:
    chips = source
    if _chips_leak(config):
        chips = Joined([source, *(part.open() for role, part in data.parts.items() if role != "train")])
    augment, size = config.trainer.augment, config.dataset.image_size
    assert augment is not None and size is not None  # TrainConfig checks both
    transform = build_transform(
        augment,
        size,
        chips,
        copy_paste=config.copy_paste.probability or 0.0,
        seed=config.seed,
        resize=config.dataset.resize,
    )
    return TrainingSet(source, transform, config.seed, skip_bad=config.on_bad_sample == "skip")


def _describe(
    config: TrainConfig,
    data: DataSet,
    model: nn.Module,
    normalise: Normalise,
    val: str | None,
    saved: Saved | None,
) -> dict[str, Any]:
    """What the weights file says of itself: enough to use it without a flag, and where it comes from."""
    return {
        **built_from(model),
        **({"title": model.title} if hasattr(model, "title") else {}),
        "in_channels": channels_of(model),
        "mean": list(normalise.mean),
        "std": list(normalise.std),
        "image_size": network_input(config.dataset)["image_size"],
        "resize": config.dataset.resize,
        "trained_on": (saved and saved.state["description"].get("trained_on")) or _trained_on(config, data),
        "settings": settings_of(config),
        "selected_by": f"IoU on the {val} images" if val else "last epoch",
        "sam_spl": sam_spl.__version__,
    }


def _trained_on(config: TrainConfig, data: DataSet) -> dict[str, Any]:
    """What this run and those before it, whose weights it starts from, have seen."""
    description = read_weights(config.weights).description if config.weights is not None else {}
    before = description.get("trained_on") or {}
    seen_before = set(before.get("sets", {}).values()) & set(data.training_lists.values())
    return {
        "dataset": data.title,
        "lists": data.lists,
        "fingerprint": data.parts["train"].fingerprint,
        "sets": _joined(before.get("sets", {}), data.training_lists),
        "samples": _joined(before.get("samples", {}), data.training_samples),
        "skipped": len(data.skipped),
        # What an earlier run trained on of the same list is not held out, whatever this run draws.
        **({} if seen_before else _held_out(config, data)),
        **({"chips_from": "train, val and test images"} if _chips_leak(config) else {}),
    }


def _joined(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables; where they differ under a name, what was before has another one."""
    both = dict(now)
    for title, of in before.items():
        name = title
        while both.get(name, of) != of:
            name += ", before"
        both[name] = of
    return both


def _held_out(config: TrainConfig, data: DataSet) -> dict[str, Any]:
    """How the validation images were drawn from the training list; empty where the set has its own."""
    share = config.trainer.val_share
    if not share or not data.splits or any(split.val for split in data.splits.values()):
        return {}
    return {"held_out": {"share": share, "seed": config.seed}}


#: Keys in which equal settings may differ: seed, paths, and how the work is organised.
_NOT_SETTINGS = (
    *("seed", "device", "deterministic", "num_workers", "use_ddp", "save_dir", "resume", "overwrite"),
    *("logger", "test_on", "recipe", "trainer.save_every", "trainer.eval_batch_size"),
    *("trainer.save_every_steps", "trainer.max_bad_steps", "trainer.stall_minutes", "on_bad_sample"),
    *("dataset.data_path", "dataset.group"),
)


def settings_of(config: TrainConfig) -> str:
    """A fingerprint of the configuration without seed, device and paths: equal for repeated runs."""
    settings = plain(config)
    for key in _NOT_SETTINGS:
        *parents, last = key.split(".")
        node = settings
        for parent in parents:
            node = node[parent]
        node.pop(last)
    for member in settings["dataset"]["members"]:
        member.pop("data_path")
        member.pop("group")
    if settings["model"]["trunk_weights"]:
        settings["model"]["trunk_weights"] = Path(settings["model"]["trunk_weights"]).name
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _chips_leak(config: TrainConfig) -> bool:
    return config.copy_paste.source == "all" and bool(config.copy_paste.probability)


@contextmanager
def _logging_to(file: Path | None) -> Iterator[None]:
    """Log to the console and to ``file``, with what ends the run; without a file (other processes) errors."""
    root = logging.getLogger("sam_spl")
    before = list(root.handlers), root.level
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    console.addFilter(lambda record: not hasattr(record, "ending"))  # of which the command's end tells
    written = _LogFile(file, encoding="utf-8") if file else None
    if written:
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.handlers[:] = [console, written] if written else [console]
    root.setLevel(logging.INFO if file else logging.ERROR)
    try:
        yield
    except BaseException as ended:
        told = isinstance(ended, UserError | KeyboardInterrupt)
        level = logging.WARNING if isinstance(ended, KeyboardInterrupt) else logging.ERROR
        log.log(level, ENDS, message(ended) or type(ended).__name__, exc_info=not told, extra=ENDING)
        raise
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        if written:
            written.close()


class _LogFile(logging.FileHandler):
    """A log whose disk may fill: it says so once, and the run goes on."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, a name of logging's
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            print(f"{Path(self.baseFilename).name} cannot be written: {error.strerror}", file=sys.stderr)

    def close(self) -> None:
        try:
            super().close()
        except OSError:  # what it still holds
            self.stream = None


def _announce(
    config: TrainConfig, data: DataSet, model: nn.Module, world: World, trainer: Trainer, val: str | None
) -> None:
    count = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    log.info(
        "%s %.1f M parameters, %.1f M of them trained, on %s (%s, %d process%s)",
        config.model.name,
        count / 1e6,
        trained / 1e6,
        world.device,
        world.precision_name,
        world.size,
        "" if world.size == 1 else "es",
    )
    counts = ", ".join(f"{part.count} {role}" for role, part in data.parts.items())
    log.info("%s: %s images (%s, lists: %s)", data.title, counts, data.where, data.lists)
    if not all(split.listed for split in data.splits.values()):
        log.info("without lists, one image in five is held out for testing, by the hash of its name")
    if data.identity.mismatch:
        log.warning("WRONG DATA SET? %s", data.identity.mismatch)
    if data.identity.remark:
        log.info("%s", data.identity.remark)
    if data.skipped:
        log.warning(
            "skipped %d images without mask or file (dataset.missing=skip), first %s",
            len(data.skipped),
            ", ".join(data.skipped[:3]),
        )
    if _chips_leak(config):
        log.warning(
            "copy-paste cuts chips out of TEST images too (copy_paste.source=all): its scores are optimistic"
        )
    if trainer.epoch == 0:  # a resumed run has its weights from last.pt
        warns, text = auto.announcement(config)
        log.log(logging.WARNING if warns else logging.INFO, "%s", text)
    if val is None:
        log.info("no validation images, so best.* are the last epoch's; trainer.val_share=0.2 holds some out")
    elif val == "test":
        log.warning(
            "best.* are chosen on the TEST images (trainer.selection=test): its scores are optimistic"
        )
    if trainer.epoch or trainer.step:
        within = f" and {trainer.step} of {trainer.steps} steps" if trainer.step else ""
        log.info("resumed after epoch %d%s", trainer.epoch, within)
    if world.size > 1 and synchronises(config):
        log.info("BatchNorm counts the images of all processes (trainer.sync_bn=%s)", config.trainer.sync_bn)
