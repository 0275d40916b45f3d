"""Settings that are made in Python check their types and values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sam_spl import DatasetConfig, ModelConfig, OptimizerConfig, TestConfig, TrainConfig, TrainerConfig
from sam_spl.config import plain, read
from sam_spl.errors import ConfigError

MODEL, SET = ModelConfig.named("datransnet"), DatasetConfig.named("synthetic")


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"model": MODEL, "dataset": SET, **changes})


def test_numbers_of_numpy_paths_and_tuples_become_plain_values():
    optimizer = OptimizerConfig(lr=np.float32(0.5), args={"betas": (0.9, np.float64(0.99))})
    made = config(
        seed=np.int64(3), save_dir=Path("x/y"), optimizer=optimizer, trainer=TrainerConfig(epochs=np.int64(2))
    )
    assert (made.seed, made.save_dir, made.trainer.epochs) == (3, "x/y", 2)
    assert plain(made)["optimizer"]["args"] == {"betas": [0.9, 0.99]}
    assert read(TrainConfig, plain(made)) == made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": None}, "seed: None is not a whole number"),
        ({"seed": "5"}, "seed: '5' is not a whole number"),
        ({"seed": True}, "seed: True is not a whole number"),
        ({"model": "datransnet"}, "model: 'datransnet' is not a ModelConfig"),
        ({"dataset": "sirst"}, "dataset: 'sirst' is not a DatasetConfig"),
        ({"trainer": {"epochs": 1}}, "trainer: .* is not a TrainerConfig"),
        ({"test_on": "same"}, "test_on: 'same' is not a list"),
        ({"save_dir": " "}, "save_dir: '' is not valid, name a folder"),
    ],
)
def test_values_of_another_type_are_refused_in_one_line(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("cls", "values", "key"),
    [
        (TrainerConfig, {"epochs": 1.5}, "trainer.epochs"),
        (TrainerConfig, {"clip_grad": -1.0}, "trainer.clip_grad"),
        (TrainerConfig, {"clip_grad": float("nan")}, "trainer.clip_grad"),
        (OptimizerConfig, {"weight_decay": float("nan")}, "optimizer.weight_decay"),
        (OptimizerConfig, {"trunk_lr_scale": -1.0}, "optimizer.trunk_lr_scale"),
        (OptimizerConfig, {"gamma": -3.0}, "optimizer.gamma"),
        (OptimizerConfig, {"milestones": [-1]}, "optimizer.milestones"),
        (TestConfig, {"weights": "x", "dataset": SET, "fa_budget": float("inf")}, "fa_budget"),
        (TestConfig, {"dataset": SET}, "weights"),
        (TrainConfig, {"model": MODEL}, "dataset"),
    ],
)
def test_values_that_would_spoil_a_run_are_refused(cls, values, key):
    with pytest.raises(ConfigError, match=rf"^{key}: "):
        cls(**values)
