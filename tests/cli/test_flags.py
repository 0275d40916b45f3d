from __future__ import annotations

import pytest
from torch.utils.data import DataLoader, Dataset

from sam_spl.cli.errors import message
from sam_spl.cli.flags import TEST_FLAGS, TRAIN_FLAGS, compose_config, dataset_named, overrides_from
from sam_spl.errors import ConfigError, InputError, nearest
from sam_spl.files import config_folder


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
    config = compose_config("train" if flags is TRAIN_FLAGS else "test", ["weights=x"])
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
