"""Every optimizer with every recipe; every network with every recipe on every data set."""

from __future__ import annotations

import math

import pytest
import torch

from sam_spl.cli.flags import compose_config
from sam_spl.engine.optim import build_optimizer
from sam_spl.files import config_folder
from sam_spl.models.registry import build_model
from tests.conftest import TINY

OPTIMIZERS = ("adan", "adam", "adamw", "nadam", "sgd", "lion", "lamb", "muon")


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("recipe", _choices("recipe"))
def test_every_optimizer_works_with_every_recipe_by_name_alone(recipe, name):
    config = compose_config("train", [f"recipe={recipe}", f"optimizer.name={name}", "model.trunk_weights=null"])
    torch.manual_seed(0)
    model = build_model("sam_spl_t", **TINY)
    optimizer = build_optimizer(model, config.optimizer)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    loss = sum(torch.nn.functional.softplus(-logits).mean() for logits in model(torch.randn(2, 3, 32, 32)))
    loss.backward()
    optimizer.step()
    assert type(optimizer).__name__.lower() == name
    moved = [key for key, value in model.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > 0.8 * len(before)  # a ReLU may be off, and a step of plain SGD too small
    assert all(torch.isfinite(value).all() for value in model.parameters())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"betas": [0.98, 0.92, 0.99], "eps": 1e-8}),  # the recipe's own
        (["optimizer.args={}"], {}),
        (["optimizer.name=adamw"], {}),
        (["optimizer.args={eps:1e-6}"], {"eps": 1e-6}),
        (["optimizer.args.eps=1e-6"], {"betas": [0.98, 0.92, 0.99], "eps": 1e-6}),
        (["+optimizer.args.caution=true"], {"betas": [0.98, 0.92, 0.99], "eps": 1e-8, "caution": True}),
        (["optimizer.name=sgd", "optimizer.args.momentum=0.5"], {"momentum": 0.5}),
        (["optimizer.args.betas=[0.8,0.9]", "optimizer.name=adamw"], {"betas": [0.8, 0.9]}),
    ],
)
def test_arguments_of_a_recipes_optimizer_are_not_those_of_another(words, expected):
    assert compose_config("train", ["recipe=sam_spl", *words]).optimizer.args == expected


def test_the_published_optimizer_is_adan_with_its_published_moments():
    config = compose_config("train", ["recipe=sam_spl", "model.trunk_weights=hub"])
    (group,) = build_optimizer(torch.nn.Linear(1, 1), config.optimizer).param_groups
    assert (group["betas"], group["eps"], group["weight_decay"], group["lr"]) == ((0.98, 0.92, 0.99), 1e-8, 1e-4, 1e-2)
    assert math.isclose(config.optimizer.eta_min, 1e-6)
