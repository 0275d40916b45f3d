"""``sam-spl train``, which is ``training.py``: parse, compose, and call :func:`sam_spl.train`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf

from sam_spl.cli.command import Command
from sam_spl.cli.compose import TRAIN_GROUPS, train_config
from sam_spl.cli.grammar import Line, split
from sam_spl.cli.main import further_commands
from sam_spl.cli.sweep import jobs, one_after_the_other
from sam_spl.config import choice_named, group_files, plain
from sam_spl.data.config import check_folders
from sam_spl.data.known import dataset_named
from sam_spl.engine.config import TrainConfig
from sam_spl.errors import ConfigError, InputError
from sam_spl.errors import plain as plain_name


def train(line: Line) -> None:
    """One run, or with ``-m`` one after the other, and the tests that ``test_on`` asks for."""
    todo = jobs(line.words, multirun="multirun" in line.options)
    configs = {job.name: train_config(job.words) for job in todo}
    if len(todo) > 1:
        named = any(word.key == "save_dir" for word in line.words)
        for name, config in configs.items():
            parent = config.save_dir if named and config.save_dir else "./checkpoints"
            configs[name] = replace(config, save_dir=str(Path(parent) / name))
    if "config" in line.options:
        print("---\n".join(OmegaConf.to_yaml(OmegaConf.create(plain(one))) for one in configs.values()))
        return
    check_folders(config.dataset for config in configs.values())
    for config in configs.values():
        for name in config.test_on:
            dataset_named(name if name != "same" else "synthetic")

    from sam_spl.engine import training
    from sam_spl.runtime import world_size

    given = {job.name: {word.key for word in job.words} for job in todo}

    def settled(name: str) -> TrainConfig | None:
        # Each is read again when its turn comes: the states of many runs would fill the memory.
        try:
            return training.resolve(configs[name], given[name], world_size())[0]
        except InputError:  # a damaged run, which is told of in its turn and keeps no other waiting
            return None

    known = {name: settled(name) for name in configs}
    sound = next((config for config in known.values() if config is not None), next(iter(configs.values())))

    one_after_the_other(
        {name: config or sound for name, config in known.items()},
        lambda name, world: (
            training.train(configs[name], given=given[name], world=world, commands=further_commands()).results
        ),
    )


def _device(text: str) -> str:
    return f"cuda:{text}" if text.isdigit() else text


def _dataset(text: str) -> str:
    """Sets by any of their names: one, ``a,b``, ``[a,b]`` or ``[a,b],c``."""
    names = r"[^\[\],]+" if re.search(r"[^\[\],]", text) else r"^.*$"  # no name is an unknown one
    return re.sub(names, lambda name: dataset_named(name[0].strip()), text)


def _choice(group: str) -> Callable[[str], str]:
    """Choices of a group in any spelling: one, or ``a,b``. What is not known is left as it is."""
    return lambda text: ",".join(choice_named(group, one) for one in split(text))


def _loss(text: str) -> str:
    known = {"bceloss": "bce", "bcewithlogitsloss": "bce", "softiouloss": "soft_iou"}
    return known.get(plain_name(text), _choice("loss")(text))


def _model(text: str) -> str:
    """The network of a SAM 2 YAML that the published flag names: ``sam2.1_hiera_s.yaml`` is sam_spl_s."""
    stem = Path(text).stem.lower()
    if match := re.search(r"hiera_(t|s|b|l)", stem):
        return f"sam_spl_{match[1]}"
    if stem in group_files("model"):
        return stem
    raise ConfigError(
        f"--config_path: {text} does not name a variant. Give a SAM 2 name (sam2.1_hiera_t) or use model=."
    )


COMMAND = Command(
    "train",
    TrainConfig,
    train,
    groups=TRAIN_GROUPS,
    aliases={
        "--batch_size": "trainer.batch_size",
        "--image_size": "dataset.image_size",
        "--lr": "optimizer.lr",
        "--epoch": "trainer.epochs",
        "--epochs": "trainer.epochs",
        "--eta_min": "optimizer.eta_min",
        "--loss_func": "loss",
        "--data_path": "dataset.data_path",
        "--lists": "dataset.lists",
        "--config_path": "model",
        "--gpu": "device",
        "--local_rank": None,
        "--local-rank": None,
    },
    translate={
        **{group: _choice(group) for group in ("model", "recipe", "experiment")},
        **{"device": _device, "dataset": _dataset, "loss": _loss, "--config_path": _model},
    },
    alone={"resume": "auto"},
    examples=(
        "python training.py --batch_size 12 --image_size 256 --lr 1e-2 --dataset NUDT-SIRST "
        "--save_dir ./checkpoints/NUDT-SIRST --gpu 0",
        "sam-spl train --dataset sirst --recipe scratch",
        "sam-spl train --dataset custom --data_path ./my_images --model sam_spl_s --epochs 100",
        "sam-spl train --resume ./checkpoints/NUDT-SIRST",
        "sam-spl train --dataset sirst --save_dir runs/a --resume auto   # starts, or continues",
        "torchrun --nproc_per_node=4 training.py --dataset NUDT-SIRST --use_ddp",
        "sam-spl train --experiment datransnet_nudt_sirst",
        "sam-spl train -m model=sam_spl_t,datransnet dataset=sirst,nudt_sirst test_on=[same]   # four runs",
        "sam-spl train dataset=[sirst,nudt_sirst] test_on=[irstd_1k]   # trains on the union",
        "sam-spl train --model my_pkg.my_net:MyNet model.arguments={width:32} --dataset sirst",
    ),
)
