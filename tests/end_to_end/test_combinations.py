"""Every optimizer with every recipe; every network with every recipe on every data set."""

from __future__ import annotations

import importlib.util
import json
import math
from itertools import product
from pathlib import Path

import pytest
import torch

from sam_spl.config import config_folder
from sam_spl.data.catalog import open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.data.normalise import normalise_of
from sam_spl.engine.losses import build_loss
from sam_spl.engine.optim import build_optimizer
from sam_spl.engine.training import _training_set
from sam_spl.models.registry import build_model, is_trainable, network_class
from tests.conftest import TINY, TINY_OVERRIDES, config_of, train, write_folder

OPTIMIZERS = ("adan", "adam", "adamw", "nadam", "sgd", "lion", "lamb", "muon")


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("recipe", _choices("recipe"))
def test_every_optimizer_works_with_every_recipe_by_name_alone(recipe, name):
    config = config_of("train", [f"recipe={recipe}", f"optimizer.name={name}", "model.trunk_weights=null"])
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
    assert config_of("train", ["recipe=sam_spl", *words]).optimizer.args == expected


def test_the_published_optimizer_is_adan_with_its_published_moments():
    config = config_of("train", ["recipe=sam_spl", "model.trunk_weights=hub"])
    (group,) = build_optimizer(torch.nn.Linear(1, 1), config.optimizer).param_groups
    assert (group["betas"], group["eps"], group["weight_decay"], group["lr"]) == (
        (0.98, 0.92, 0.99),
        1e-8,
        1e-4,
        1e-2,
    )
    assert math.isclose(config.optimizer.eta_min, 1e-6)


MODELS = [name for name in _choices("model") if is_trainable(network_class(name))]
SETS = _choices("dataset")
if importlib.util.find_spec("segmentation_models_pytorch") is None:
    MODELS.remove("smp")
RECIPES = [name for name in _choices("recipe") if name != "auto"]  # which is one of the others


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with a few images under the name of every set."""
    root = tmp_path_factory.mktemp("datasets")
    for name in SETS:
        write_folder(
            root / DatasetConfig.named(name, data_path=".").title,
            lists={"train": [0, 1, 2, 3], "test": [4, 5]},
        )
    return root


def _of_set(name: str, root: Path) -> list[str]:
    """The overrides that a set needs: a few images of it."""
    if DatasetConfig.named(name, data_path=".").source != "folder":
        return [
            f"dataset={name}",
            f"dataset.data_path='{root / 'custom'}'",  # of implanted ones
            "dataset.synthetic.train=4",
            "dataset.synthetic.val=0",
            "dataset.synthetic.test=2",
        ]
    members = ["dataset.members=[sirst,nudt_sirst]"] if name == "union" else []
    return [
        f"dataset={name}",
        f"dataset.data_path='{root / 'custom' if name == 'custom' else root}'",
        *members,
    ]


#: A network for every number of channels: samples depend on nothing else of it.
FAMILIES = list({network_class(name).in_channels: name for name in MODELS}.values())


@pytest.mark.parametrize("dataset", SETS)
def test_every_network_has_samples_and_a_loss_of_every_recipe_on_every_data_set(dataset, root):
    for recipe in RECIPES:
        for model in FAMILIES:
            config = config_of("train", [f"model={model}", f"recipe={recipe}", *_of_set(dataset, root)])
            channels = network_class(config.model.name).in_channels
            data = open_dataset(config.dataset)
            sample = _training_set(config, data, data.part("train").open())[(0, 1)]
            image = normalise_of(config.dataset, channels).batch(sample["image"][None])[0]
            mask = sample["mask"][None].float()
            assert (len(image), image.shape[1:]) == (channels, mask.shape[1:])
            assert 32 <= image.shape[1] == image.shape[2] <= config.dataset.image_size
            assert torch.isfinite(image).all()
            assert torch.isfinite(build_loss(config.loss)([torch.zeros(1, *mask.shape)], mask[None]))


#: Every network with every recipe, the data sets in turn; two thirds of them among the slow tests.
STEPS = [
    pytest.param(*(model, recipe, SETS[k % len(SETS)]), marks=[pytest.mark.slow] if (m + r) % 3 else [])
    for k, ((m, model), (r, recipe)) in enumerate(product(enumerate(MODELS), enumerate(RECIPES)))
]


@pytest.mark.parametrize(("model", "recipe", "dataset"), STEPS)
def test_every_network_trains_with_every_recipe(model, recipe, dataset, root, tmp_path):
    words = [
        f"model={model}",
        f"recipe={recipe}",
        *_of_set(dataset, root),
        "dataset.image_size=64",
        "device=cpu",
    ]
    words += TINY_OVERRIDES if model.startswith("sam_spl") else []
    train(
        [
            *words,
            "trainer.epochs=1",
            "trainer.batch_size=4",
            "trainer.selection=last",
            f"save_dir={tmp_path}/r",
        ]
    )
    (row,) = map(json.loads, (tmp_path / "r" / "metrics.jsonl").read_text().splitlines())
    assert 0 < row["loss"] < math.inf


def test_the_steps_are_of_every_data_set():
    assert {one.values[2] for one in STEPS} == set(SETS)


@pytest.mark.parametrize(
    ("mean", "channels", "expected"),
    [
        ([0.485, 0.456, 0.406], 3, (0.485, 0.456, 0.406)),
        ([0.485, 0.456, 0.406], 1, (0.449,)),
        ([0.28450727] * 3, 1, (0.28450727,)),  # of equal values exactly the one
        ([0.3], 3, (0.3,)),
        ([0.3], 1, (0.3,)),
    ],
)
def test_a_grey_network_takes_the_mean_of_three_values(mean, channels, expected):
    normalise = normalise_of({"mean": mean, "std": mean}, channels)
    assert normalise.mean == pytest.approx(expected, abs=0 if len(set(mean)) == 1 else 1e-12)
    assert normalise.mean == normalise.std
