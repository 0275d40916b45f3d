"""What a run starts with where the command line does not say it: the trunk's weights and the recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from sam_spl.config import config_folder
from sam_spl.engine import auto
from sam_spl.models.registry import build_model
from sam_spl.models.sam_spl_published import SAM_SPL
from sam_spl.weights.formats import read_weights, save_weights
from sam_spl.weights.loading import load_weights
from sam_spl.weights.published import to_published
from tests.conftest import TINY, TINY_OVERRIDES, config_of, train

PUBLISHED = (
    "--batch_size 12 --image_size 256 --lr 1e-2 --dataset NUDT-SIRST "
    "--save_dir ./checkpoints/NUDT-SIRST --gpu 0"
)
TRUNK = "checkpoints/sam2.1_hiera_tiny.pt"
FETCH = "bash scripts/download_ckpts.sh tiny"


@pytest.fixture
def places(tmp_path: Path, monkeypatch) -> tuple[Path, Path]:
    """A current folder and a repository, without any weights so far."""
    here, repository = tmp_path / "here", tmp_path / "repository"
    for folder in (here, repository):
        (folder / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(auto, "config_folder", lambda: repository / "configs")
    return here, repository


def _settled(words: str) -> tuple[str, str | None]:
    config = config_of("train", words.split())
    return config.recipe, config.model.trunk_weights


@pytest.mark.parametrize(
    ("words", "without", "with_file"),
    [
        ("", ("scratch", None), ("sam_spl", TRUNK)),
        (PUBLISHED, ("scratch", None), ("sam_spl", TRUNK)),
        ("recipe=auto model.trunk_weights=auto", ("scratch", None), ("sam_spl", TRUNK)),
        ("model.trunk_weights=null", ("scratch", None), ("scratch", None)),
        ("model.trunk_weights=hub", ("sam_spl", "hub"), ("sam_spl", "hub")),
        ("model.trunk_weights=my.pt", ("sam_spl", "my.pt"), ("sam_spl", "my.pt")),
        ("recipe=sam_spl", ("sam_spl", None), ("sam_spl", TRUNK)),
        ("recipe=scratch", ("scratch", None), ("scratch", None)),  # from random weights, wherever it runs
        ("recipe=scratch model.trunk_weights=my.pt", ("scratch", "my.pt"), ("scratch", "my.pt")),
        ("experiment=sam_spl_nudt_sirst", ("sam_spl", None), ("sam_spl", TRUNK)),
        ("model=sam_spl_s", ("scratch", None), ("scratch", None)),  # its file is another one
        ("model=datransnet", ("datransnet", None), ("datransnet", None)),
        ("model=datransnet recipe=datransnet_aug", ("datransnet_aug", None), ("datransnet_aug", None)),
    ],
)
def test_trunk_weights_and_recipe_follow_the_files_that_there_are(places, words, without, with_file):
    assert _settled(words) == without
    (places[0] / TRUNK).touch()
    assert _settled(words) == with_file


def test_the_current_folder_comes_before_the_repository(places):
    here, repository = places
    (repository / TRUNK).touch()
    assert _settled("") == ("sam_spl", str(repository / TRUNK))
    (here / TRUNK).touch()
    assert _settled("") == ("sam_spl", TRUNK)


def test_every_network_with_a_trunk_names_the_file_that_the_script_fetches():
    from sam_spl.weights.download import trunk_files

    models = {path.stem: OmegaConf.load(path) for path in (config_folder() / "model").glob("*.yaml")}
    with_trunk = {stem for stem, model in models.items() if "trunk_weights" in model}
    assert set(trunk_files().values()) == with_trunk == {"sam_spl_t", "sam_spl_s", "sam_spl_b", "sam_spl_l"}
    assert set(trunk_files()) == {"tiny", "small", "base_plus", "large"}  # as SAM 2 calls them


@pytest.mark.parametrize("trunk", [False, True])
def test_the_published_command_keeps_its_values_with_either_recipe(places, trunk):
    if trunk:
        (places[0] / TRUNK).touch()
    config = config_of("train", PUBLISHED.split())
    assert (config.trainer.batch_size, config.dataset.image_size, config.optimizer.lr) == (12, 256, 1e-2)
    assert (config.dataset.title, config.device) == ("NUDT-SIRST", "cuda:0")
    # What makes it learn from random weights, or is as published.
    assert (config.trainer.epochs, config.loss.arguments["iou"]) == ((300, 0.0) if trunk else (20, 1.0))
    assert config.trainer.augment == ("resize_flip" if trunk else "target_crop")


@pytest.mark.parametrize(
    ("words", "warns", "parts"),
    [
        ("", True, ["recipe scratch", "random ones", FETCH, "recipe=sam_spl"]),
        ("recipe=sam_spl", True, ["recipe sam_spl", "learns nothing", FETCH, "recipe=scratch"]),
        ("model=sam_spl_l", True, ["recipe scratch", "bash scripts/download_ckpts.sh large"]),
        (
            "model.trunk_weights=hub",
            False,
            ["recipe sam_spl", "sam2_hiera_tiny.fb_r896_2pt1", "recipe=scratch"],
        ),
        ("model.trunk_weights=my.pt", False, ["recipe sam_spl", "from my.pt"]),
        ("model=datransnet", False, ["recipe datransnet"]),
        ("model=datransnet recipe=scratch", False, ["recipe scratch"]),
    ],
)
def test_one_line_says_what_was_taken_and_how_to_have_the_other(places, words, warns, parts):
    is_warning, text = auto.announcement(config_of("train", words.split()))
    assert is_warning is warns
    assert [part for part in parts if part not in text] == []
    assert "\n" not in text


SMALL = [
    "dataset.image_size=64",
    "dataset.synthetic.train=4",
    "dataset.synthetic.val=2",
    "device=cpu",
    "precision=fp32",
]
TINY_AUTO = [word for word in TINY_OVERRIDES if "trunk_weights" not in word]


def _tiny_sam2_file(path: Path) -> dict[str, torch.Tensor]:
    trunk = build_model("sam_spl_t", **TINY).encoder.trunk.state_dict()
    torch.save(
        {"model": to_published({f"encoder.trunk.{name}": value for name, value in trunk.items()}, SAM_SPL)},
        path,
    )
    return trunk


def _run(folder: Path, *words: str) -> tuple[dict[str, torch.Tensor], dict, str]:
    """What a run left: last weights, configuration and log."""
    train([*words, "--save_dir", str(folder)])
    state = torch.load(folder / "last.pt", weights_only=True)
    return state, OmegaConf.load(folder / "config.yaml"), (folder / "train.log").read_text()


def test_a_run_takes_the_file_freezes_it_and_resumes_without_it(places, tmp_path):
    trunk = _tiny_sam2_file(places[0] / TRUNK)
    words = [*TINY_AUTO, *SMALL]
    state, config, log = _run(tmp_path / "r", *words, "trainer.epochs=1")
    assert f"INFO recipe sam_spl, SAM 2 weights in the trunk from {TRUNK}" in log
    assert (config.recipe, config.model.trunk_weights) == ("sam_spl", TRUNK)
    assert state["description"]["arguments"]["freeze_trunk"] is True

    (places[0] / TRUNK).unlink()
    train(["--resume", str(tmp_path / "r"), "trainer.epochs=2"])
    resumed = torch.load(tmp_path / "r" / "last.pt", weights_only=True)
    config = OmegaConf.load(tmp_path / "r" / "config.yaml")
    assert (config.recipe, config.model.trunk_weights, config.trainer.augment) == (
        "sam_spl",
        TRUNK,
        "resize_flip",
    )
    assert (resumed["epoch"], resumed["description"]["arguments"]["freeze_trunk"]) == (2, True)
    whole = read_weights(tmp_path / "r" / "last.pt").state
    for name, value in trunk.items():
        assert torch.equal(whole[f"encoder.trunk.{name}"], value), name
    head = "decoder.heads.0.weight"
    assert not torch.equal(resumed["model"][head], state["model"][head])


def test_a_run_from_random_weights_stays_one_when_the_file_comes_later(places, tmp_path):
    words = [*TINY_AUTO, *SMALL]
    _, config, log = _run(tmp_path / "r", *words, "trainer.epochs=1")
    assert "WARNING recipe scratch: no SAM 2 weights" in log
    assert (config.recipe, config.model.trunk_weights) == ("scratch", None)
    _tiny_sam2_file(places[0] / TRUNK)
    for again in ([], words):  # the folder alone, and the same command once more
        train([*again, "--resume", str(tmp_path / "r"), "trainer.epochs=2"])
        config = OmegaConf.load(tmp_path / "r" / "config.yaml")
        assert (config.recipe, config.model.trunk_weights, config.loss.arguments["iou"]) == (
            "scratch",
            None,
            1.0,
        )


@pytest.mark.parametrize("frozen", [True, None])
def test_fine_tuning_goes_on_as_the_weights_were_trained(places, tmp_path, frozen):
    """A trunk of SAM 2's stays frozen under the published recipe; one that trained goes on training."""
    _tiny_sam2_file(places[0] / TRUNK)  # the weights bring their own
    model = build_model("sam_spl_t", **TINY, freeze_trunk=frozen)
    save_weights(tmp_path / "w.safetensors", model.state_dict(), model.built_from)
    words = [*TINY_AUTO, *SMALL, "trainer.epochs=1", f"weights={tmp_path / 'w.safetensors'}"]
    state, config, log = _run(tmp_path / "r", *words)
    expected = "sam_spl" if frozen else "scratch"
    assert (config.recipe, config.model.trunk_weights) == (expected, None)
    assert f"recipe {expected}, all weights from {tmp_path / 'w.safetensors'}" in log
    train(["--resume", str(tmp_path / "r"), "trainer.epochs=2"])
    name = next(name for name in model.state_dict() if name.endswith("trunk.blocks.0.attn.qkv.weight"))
    for one in (state, torch.load(tmp_path / "r" / "last.pt", weights_only=True)):
        assert one["description"]["arguments"]["freeze_trunk"] is frozen
    assert torch.equal(
        read_weights(tmp_path / "r" / "last.pt").state[name], model.state_dict()[name]
    ) is bool(frozen)


def test_weights_of_a_frozen_trunk_freeze_it_unless_the_model_says_otherwise(tmp_path):
    model = build_model("sam_spl_t", **TINY, freeze_trunk=True)
    save_weights(tmp_path / "ours.safetensors", model.state_dict(), model.built_from)
    save_weights(tmp_path / "published.pth", model.state_dict(), {}, names="published")
    for name in ("ours.safetensors", "published.pth"):
        for told, frozen in ((None, True), (False, False)):
            loaded = load_weights(build_model("sam_spl_t", **TINY, freeze_trunk=told), tmp_path / name)
            assert loaded.built_from["arguments"]["freeze_trunk"] is frozen
            assert any(p.requires_grad for p in loaded.encoder.trunk.parameters()) is not frozen


@pytest.mark.slow
def test_the_first_command_learns(places, tmp_path):
    """``python training.py`` and nothing else, on fewer and smaller scenes: IoU was 0.42, Pd 0.55."""
    few = [
        "dataset.image_size=128",
        "dataset.synthetic.train=200",
        "dataset.synthetic.val=20",
        "trainer.epochs=2",
    ]
    train([*few, "device=cpu", f"save_dir={tmp_path / 'r'}"])
    rows = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["iou"] > 0.1
    assert rows[-1]["pd"] > 0.2
