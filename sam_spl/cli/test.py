"""``sam-spl test``, which is ``testing.py``: parse, compose, and call :func:`sam_spl.test`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf

from sam_spl.cli.command import Command
from sam_spl.cli.compose import test_config
from sam_spl.cli.grammar import Line
from sam_spl.cli.sweep import jobs, one_after_the_other
from sam_spl.cli.train import COMMAND as TRAIN
from sam_spl.config import plain
from sam_spl.data.config import check_folders
from sam_spl.engine.config import TestConfig
from sam_spl.errors import ConfigError


def test(line: Line) -> None:
    """One file on one set, or every file of a list on every set of a list."""
    todo = jobs(line.words, several=("dataset", "weights"), multirun="multirun" in line.options)
    configs = {job.name: test_config(job.words) for job in todo}
    if not any(word.key.startswith("dataset") for word in line.words):
        raise ConfigError("dataset: name the set to test on, as --dataset SIRST (or synthetic).")
    for name, config in configs.items():
        if name and config.output_dir is not None:
            configs[name] = replace(config, output_dir=str(Path(config.output_dir) / name))
    if "config" in line.options:
        print("---\n".join(OmegaConf.to_yaml(OmegaConf.create(plain(one))) for one in configs.values()))
        return
    check_folders(config.dataset for config in configs.values())

    from sam_spl.engine import testing

    one_after_the_other(configs, lambda name, world: [testing.test(configs[name], world=world)])


COMMAND = Command(
    "test",
    TestConfig,
    test,
    groups=("dataset",),
    aliases={
        "--data_path": "dataset.data_path",
        "--lists": "dataset.lists",
        "--group": "dataset.group",
        "--save_dir": "output_dir",
        "--gpu": "device",
        "--local_rank": None,
        "--local-rank": None,
    },
    translate={key: TRAIN.translate[key] for key in ("device", "dataset")},
    examples=(
        "python testing.py --dataset NUDT-SIRST --image_size 256 --weights ./checkpoints/NUDT-SIRST.pt "
        "--device cuda:0",
        "sam-spl test --dataset sirst --lists 50_50 --weights checkpoints/my_run",
        "sam-spl test dataset=[sirst,nudt_sirst] weights=[checkpoints/a,checkpoints/b]   # one summary table",
        "sam-spl test --dataset sirst --weights checkpoints/a --protocols native sam_spl --figures 4",
    ),
)
