from __future__ import annotations

import pytest
from torch.utils.data import DataLoader, Dataset

from sam_spl.cli.errors import message
from sam_spl.cli.flags import (
    TEST_FLAGS,
    TRAIN_FLAGS,
    compose_config,
    overrides_from,
)
from sam_spl.cli.sweep import as_sweep, as_union, jobs
from sam_spl.config import config_folder
from sam_spl.data.known import dataset_named
from sam_spl.errors import ConfigError, InputError, nearest
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("line", "overrides"),
    [
        ("--lr 1e-3 optimizer.name=adamw", ["optimizer.lr=1e-3", "optimizer.name=adamw"]),
        ("--lr=1e-3", ["optimizer.lr=1e-3"]),
        ("--lr 1 optimizer.lr=2", ["optimizer.lr=2"]),  # the last one wins, whichever way it is said
        ("optimizer.lr=2 --lr 1", ["optimizer.lr=1"]),
        ("--lr -1", ["optimizer.lr=-1"]),
        ("--gpu 2", ["device=cuda:2"]),
        ("--gpu cpu", ["device=cpu"]),
        ("--use_ddp model=sam_spl_s", ["use_ddp=true", "model=sam_spl_s"]),
        ("--use_ddp false", ["use_ddp=false"]),
        ("--resume", ["resume='auto'"]),
        ("--resume trainer.epochs=3", ["resume='auto'", "trainer.epochs=3"]),
        ("--resume runs/a --lr 1", ["resume='runs/a'", "optimizer.lr=1"]),
        ("--local_rank 3 --local-rank=4", []),
        ("--dataset irstd1k", ["dataset=irstd_1k"]),
        ("dataset=nudt-sirst", ["dataset=nudt_sirst"]),
        ("--loss_func BCEWithLogitsLoss", ["loss=bce"]),
        ("--config_path sam2/configs/sam2.1/sam2.1_hiera_l.yaml", ["model=sam_spl_l"]),
    ],
)
def test_flags_and_overrides_say_the_same(line, overrides):
    assert overrides_from(line.split(), TRAIN_FLAGS) == overrides


def test_paths_are_taken_literally():
    path = "./my runs/a,b (1) {x} it's"
    config = compose_config("train", overrides_from(["--save_dir", path, "--data_path", path], TRAIN_FLAGS))
    assert (config.save_dir, config.dataset.data_path) == (path, path)


@pytest.mark.parametrize("flags", [TRAIN_FLAGS, TEST_FLAGS])
def test_every_flag_sets_a_key_that_there_is(flags):
    config = compose_config("train", []) if flags is TRAIN_FLAGS else compose_config("test", ["weights=x"])
    for key in filter(None, flags.values()):
        node = config
        for part in key.split("."):
            assert part in node or part == "loss", key
            node = node[part]


@pytest.mark.parametrize(
    "path", sorted(config_folder().glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_choice_of_every_group_composes(path):
    extra = ["dataset.data_path=x"] if path.stem == "custom" else []
    compose_config("train", [f"{path.parent.name}={path.stem}", *extra])


def test_data_sets_are_known_by_every_name_in_any_case():
    for name in ("SIRST", "sirst", "NUAA-SIRST", "nuaa_sirst"):
        assert dataset_named(name) == "sirst"
    assert dataset_named("NUDT-SIRST-Sea") == "nudt_sea"
    with pytest.raises(ConfigError, match="custom"):
        dataset_named("nowhere")


def test_nearest_names():
    assert nearest("leraning_rate", ["learning_rate", "loss"]) == "learning_rate"
    assert nearest("zzz", ["a", "b", "a.c"]) == "a, b"


class _Broken(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index):
        raise InputError("dataset: image 3 is broken. Replace it.")


def test_errors_of_loader_processes_read_like_ours():
    with pytest.raises(InputError) as error:
        list(DataLoader(_Broken(), num_workers=1))
    assert "Traceback" in str(error.value)
    assert message(error.value) == "dataset: image 3 is broken. Replace it."


EXPERIMENTS = sorted((ROOT / "configs" / "experiment").glob("*.yaml"))
#: spec/datasets.md and spec/datransnet.md: mean, transform, copy-paste, sizes of training and testing (None: native)
PUBLISHED = {
    "sam_spl_nudt_sirst": (107.80905 / 255, "resize_flip", 0.0, 256, 256),
    "sam_spl_irstd_1k": (0.28450727, "scale_crop", 0.5, 256, 512),
    "sam_spl_irstdid_sky": (0.485, "scale_crop", 0.0, 256, 480),
    "sam_spl_nudt_sea": (0.1583, "scale_crop", 0.5, 256, 256),
    "datransnet_nudt_sirst": (0.0, "resize", 0.0, 256, None),
    "datransnet_irstd_1k": (0.0, "resize", 0.0, 512, None),
    "datransnet_sirst_aug": (0.0, "resize", 0.0, 256, None),
    "datransnet_sirst": (0.0, "resize", 0.0, 256, None),
    "datransnet_nuaa_sirst": (0.0, "resize", 0.0, 256, None),
}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_experiments_are_the_published_recipes_and_open_with_their_command(file):
    package, command, *_ = file.read_text().splitlines()
    assert package == "# @package _global_"
    assert command.startswith(f"# python training.py experiment={file.stem}")
    config = compose_config("train", overrides_from(command.split()[3:], TRAIN_FLAGS))

    mean, augment, copy_paste, image_size, test_size = PUBLISHED[file.stem]
    data = config.dataset
    assert data.mean[0] == pytest.approx(mean, abs=1e-6)
    assert (config.trainer.augment, config.copy_paste.probability) == (augment, copy_paste)
    assert config.copy_paste.source == "train"
    assert data.image_size == image_size
    assert (None if data.native_test else data.test_size or data.image_size) == test_size
    if config.model.name == "datransnet":
        assert config.model.arguments.train_size == image_size
        assert (config.trainer.epochs, config.trainer.batch_size, config.seed) == (400, 4, 42)
        assert (config.optimizer.lr, list(config.optimizer.milestones)) == (5e-4, [200, 300])
    else:
        assert (config.trainer.epochs, config.trainer.batch_size, config.seed) == (300, 12, 2727)
        assert (config.optimizer.lr, config.optimizer.eta_min) == (1e-2, 1e-6)


def test_a_network_brings_its_recipe_unless_another_is_asked_for():
    assert compose_config("train", ["model=datransnet"]).trainer.augment == "resize"
    assert (
        compose_config("train", ["model=datransnet", "recipe=datransnet_aug"]).trainer.augment
        == "native_crop"
    )
    assert compose_config("train", ["model=sam_spl_s"]).optimizer.name == "adan"


def test_a_pattern_that_is_none_is_refused_before_anything_runs():
    words = ["--dataset", "SIRST", "--weights", "x", "--group"]
    for pattern in (r"^(.+)/", r"^(.*\d)_\d+$", r"a'(\d)'\\", r"\\'"):
        assert compose_config("test", overrides_from([*words, pattern], TEST_FLAGS)).dataset.group == pattern
    with pytest.raises(ConfigError, match=r"dataset\.group: '\(' is no regular expression"):
        compose_config("test", overrides_from([*words, "("], TEST_FLAGS))


def test_every_combination_of_a_sweep_is_a_run():
    words = overrides_from(
        ["model=sam_spl_t,datransnet", "--dataset", "SIRST,NUDT-SIRST", "seed=1"], TRAIN_FLAGS
    )
    with pytest.raises(ConfigError, match=r"several values\. Add -m"):
        jobs(words, multirun=False)
    runs = jobs(words, multirun=True)
    assert list(runs) == [
        "sam_spl_t-sirst",
        "sam_spl_t-nudt_sirst",
        "datransnet-sirst",
        "datransnet-nudt_sirst",
    ]
    assert set(runs["datransnet-sirst"]) == {"model=datransnet", "dataset=sirst", "seed=1"}
    assert jobs(["seed=1", "trainer.epochs=2"], multirun=False) == {"": ["seed=1", "trainer.epochs=2"]}


def test_no_run_of_several_is_dropped_for_its_name():
    words = as_sweep(
        ["weights=[runs/s1/best.pt,runs/s2/best.pt,runs/s1/last.pt]", "dataset=sirst,nudt_sirst"], ["weights"]
    )
    named = jobs(words, multirun=True)
    assert len(named) == 6
    assert "s2_best.pt-nudt_sirst" in named
    for word in (
        "weights=a/s1/best.pt,b/s1/best.pt",
        "weights=x/seed1,y/seed1",
        "dataset.data_path=x/SIRST,y/SIRST",
    ):
        with pytest.raises(ConfigError, match="would both be called"):
            jobs([word], multirun=True)


def test_lists_are_a_union_in_training_and_one_after_the_other_in_testing():
    words = overrides_from(["--dataset", "[SIRST,nudt]"], TRAIN_FLAGS)
    assert as_union(words) == ["dataset=union", "dataset.members=[sirst,nudt_sirst]"]
    words = overrides_from(["dataset=[SIRST,nudt]", "--weights", "[a/x,b/y (z)]"], TEST_FLAGS)
    assert as_sweep(words, ("dataset", "weights")) == ["dataset=sirst,nudt_sirst", "weights='a/x','b/y (z)'"]
    assert list(jobs(as_sweep(words, ("dataset", "weights")), multirun=True)) == [
        "sirst-x",
        "sirst-y_z_",
        "nudt_sirst-x",
        "nudt_sirst-y_z_",
    ]
