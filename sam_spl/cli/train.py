"""One training run: build, fit."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import hydra
import torch
from omegaconf import DictConfig, OmegaConf

import sam_spl
from sam_spl.cli import auto
from sam_spl.cli.flags import quote
from sam_spl.data.catalog import DataSet, open_dataset
from sam_spl.data.dataset import EvaluationSet, TrainingSet
from sam_spl.data.known import network_input
from sam_spl.data.normalise import Normalise, normalise_of
from sam_spl.data.sources import Joined
from sam_spl.data.transforms import build_transform
from sam_spl.engine.record import RunFolder
from sam_spl.engine.trainer import Trainer
from sam_spl.errors import ConfigError
from sam_spl.files import write_text
from sam_spl.models.registry import ModelConfig, build
from sam_spl.report.curves import draw_curves
from sam_spl.runtime import World
from sam_spl.weights.loading import load_weights
from sam_spl.weights.sam2 import load_trunk

log = logging.getLogger(__name__)

_MODEL_KEYS = {
    "name",
    "network",
    "recipe",
    "recipe_without_trunk_weights",
    "trunk_weights",
    "trunk_file",
    "hub",
}
_MODEL_KEYS |= {"arguments"}


def run(config: DictConfig, overrides: list[str], state: Mapping[str, Any] | None, world: World) -> None:
    """One run, new or resumed, in this process."""
    cv2.setNumThreads(1)  # samples are small, and loader processes share the cores
    torch.manual_seed(config.seed)
    data = open_dataset(config.dataset, val_share=config.trainer.val_share, seed=config.seed)
    train_source = data.part("train").open()
    val = _selection(config, data)

    # What can fail is tried before the folder is touched.
    model = _build(config, state)
    normalise = normalise_of(config.dataset, model.in_channels)  # type: ignore[arg-type]
    size = network_input(config.dataset)["image_size"]
    val_set = EvaluationSet(data.part(val).open(), size, normalise, config.dataset.resize) if val else None
    workers = (
        config.num_workers if config.num_workers is not None else (0 if world.device.type == "cpu" else 4)
    )
    folder = RunFolder(config.save_dir)
    trainer = Trainer(
        model=model,
        loss=hydra.utils.instantiate(config.loss),
        train_set=_training_set(config, data, train_source, normalise),
        val_set=val_set,
        config=config,
        world=world,
        folder=folder,
        description=_describe(config, data, model, normalise, val),
        num_workers=workers,
        extra={"overrides": _settled(overrides, config)},
    )
    if state is not None:
        trainer.resume(state)
        if world.main:
            folder.truncate_metrics(trainer.epoch)
    elif world.main:
        folder.begin(overwrite=config.overwrite)
    world.barrier()
    if world.main:
        write_text(folder.path / "config.yaml", OmegaConf.to_yaml(config))
    _start_log(folder.path / "train.log" if world.main else None)

    _announce(config, data, model, world, trainer, val)
    try:
        trainer.fit()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{trainer.saved} of {config.trainer.epochs} epochs are saved. Go on with: "
            f"python training.py --resume {folder.path}"
        ) from None
    if world.main:
        rows = folder.truncate_metrics(trainer.epoch)
        draw_curves(rows, folder.path / "curves.png")
        log.info(
            "done: weights and log in %s. Test with: %s",
            folder.path,
            _test_command(config.dataset, folder.path),
        )


def _test_command(dataset: DictConfig, folder: Path) -> str:
    """What tests the weights on the set that they were trained on."""
    words = ["python", "testing.py", "--weights", str(folder)]
    if dataset.source == "folder":
        names = ",".join(member.name for member in dataset.members)
        words += ["--dataset", f"[{names}]" if names else dataset.name, "--data_path", str(dataset.data_path)]
        words += [f"dataset.lists={dataset.lists}"] if dataset.lists else []
    return shlex.join(words)


def _selection(config: DictConfig, data: DataSet) -> str | None:
    """The part that ``best`` is chosen by; None for the last epoch."""
    choice = config.trainer.selection
    if choice == "auto":
        return "val" if data.parts["val"].count else None
    if choice == "val" and not data.parts["val"].count:
        raise ConfigError(
            f"trainer.selection: {data.title} (lists {data.lists}) has no validation images. Hold some of the training "
            "images out with trainer.val_share=0.2, or set trainer.selection=last."
        )
    return None if choice == "last" else choice


def _build(config: DictConfig, state: Mapping[str, Any] | None) -> torch.nn.Module:
    """The network with the weights that it starts from; those of a resumed run come with its ``state`` later."""
    settings = OmegaConf.to_container(config.model)
    assert isinstance(settings, dict)
    arguments = settings["arguments"]
    suggested = {key: settings[key] for key in settings.keys() - _MODEL_KEYS}
    chosen = ModelConfig(settings["name"], arguments, suggested)
    if state is not None:
        if arguments.get("freeze_trunk", False) is None:  # what the weights at the start of the run decided
            arguments["freeze_trunk"] = state["description"]["arguments"]["freeze_trunk"]
        return build(chosen)
    model = build(chosen)
    if settings.get("trunk_weights"):
        load_trunk(model, str(settings["trunk_weights"]), settings.get("hub"))
    if config.weights is not None:
        load_weights(model, config.weights)
    return model


def _training_set(config: DictConfig, data: DataSet, source: Any, normalise: Normalise) -> TrainingSet:
    chips = source
    if _chips_leak(config):
        chips = Joined([source, *(part.open() for role, part in data.parts.items() if role != "train")])
    transform = build_transform(
        config.trainer.augment,
        config.dataset.image_size,
        chips,
        copy_paste=config.copy_paste.probability,
        seed=config.seed,
        resize=config.dataset.resize,
    )
    return TrainingSet(source, transform, normalise, config.seed)


def _describe(
    config: DictConfig, data: DataSet, model: torch.nn.Module, normalise: Normalise, val: str | None
) -> dict[str, Any]:
    """What the weights file says of itself: enough to use it without a flag, and where it comes from."""
    return {
        **model.built_from,  # type: ignore[dict-item]
        "in_channels": model.in_channels,
        "mean": list(normalise.mean),
        "std": list(normalise.std),
        "image_size": network_input(config.dataset)["image_size"],
        "resize": config.dataset.resize,
        "trained_on": {
            "dataset": data.title,
            "lists": data.lists,
            "fingerprint": data.parts["train"].fingerprint,
            "sets": data.training_lists,
            "samples": data.training_samples,
            "skipped": len(data.skipped),
            **({"chips_from": "train, val and test images"} if _chips_leak(config) else {}),
        },
        "settings": _settings(config),
        "selected_by": f"IoU on the {val} images" if val else "last epoch",
        "sam_spl": sam_spl.__version__,
    }


def _settings(config: DictConfig) -> str:
    """A fingerprint of the configuration without seed, device and places: equal for runs that repeat each other."""
    settings = OmegaConf.to_container(config)
    assert isinstance(settings, dict)
    for key in ("seed", "device", "num_workers", "save_dir", "resume", "overwrite", "use_ddp", "test_on"):
        settings.pop(key)
    for dataset in (settings["dataset"], *settings["dataset"]["members"]):
        dataset.pop("data_path")
        dataset.pop("group")
    if settings["model"].get("trunk_weights"):
        settings["model"]["trunk_weights"] = Path(settings["model"]["trunk_weights"]).name
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _settled(overrides: list[str], config: DictConfig) -> list[str]:
    """What resuming composes again: ``auto`` by what it stood for, since files may come and go in between."""
    passing = ("resume=", "overwrite=", "recipe=", "model.trunk_weights=")
    settled = [word for word in overrides if not word.startswith(passing)] + [f"recipe={config.recipe}"]
    if "trunk_weights" in config.model:
        source = config.model.trunk_weights
        settled.append(f"model.trunk_weights={'null' if source is None else quote(source)}")
    return settled


def _chips_leak(config: DictConfig) -> bool:
    return config.copy_paste.source == "all" and config.copy_paste.probability > 0


def _start_log(file: Path | None) -> None:
    """Log to the console and to ``file``; without a file (other ranks) only errors."""
    root = logging.getLogger("sam_spl")
    for handler in list(root.handlers):
        root.removeHandler(handler)
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(console)
    root.setLevel(logging.INFO if file else logging.ERROR)
    if file:
        to_file = logging.FileHandler(file, encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.addHandler(to_file)


def _announce(
    config: DictConfig, data: DataSet, model: torch.nn.Module, world: World, trainer: Trainer, val: str | None
) -> None:
    count = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    log.info(
        "%s %.1f M parameters, %.1f M of them trained, on %s (%s, %d process%s)",
        config.model.name,
        count / 1e6,
        trained / 1e6,
        world.device,
        str(world.precision or torch.float32).removeprefix("torch."),
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
            "copy-paste cuts chips out of the TEST images too (copy_paste.source=all): its scores are optimistic"
        )
    if trainer.epoch == 0:  # a resumed run has its weights from last.pt
        warns, text = auto.chosen(config)
        log.log(logging.WARNING if warns else logging.INFO, "%s", text)
    if val is None:
        log.info("best.* are the last epoch's: no validation images (trainer.val_share=0.2 holds some out)")
    elif val == "test":
        log.warning(
            "best.* are chosen on the TEST images (trainer.selection=test): its scores are optimistic"
        )
    if trainer.epoch:
        log.info("resumed after epoch %d", trainer.epoch)
