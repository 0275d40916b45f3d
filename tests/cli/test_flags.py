from __future__ import annotations

import sys
import tomllib

import pytest
from torch.utils.data import DataLoader, Dataset

import sam_spl.config
from sam_spl.cli.grammar import Word, own_folders, parse
from sam_spl.cli.main import NAMES, message
from sam_spl.cli.main import command as command_named
from sam_spl.cli.sweep import jobs
from sam_spl.config import choice_named, config_folder
from sam_spl.data.known import dataset_named
from sam_spl.errors import ConfigError, InputError, nearest
from tests.conftest import ROOT, config_of


def words_of(name: str, line: str | list[str]) -> list[Word]:
    return parse(line.split() if isinstance(line, str) else line, command_named(name)).words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--lr 1e-3 optimizer.name=adamw", ["optimizer.lr=1e-3", "optimizer.name=adamw"]),
        ("--lr=1e-3", ["optimizer.lr=1e-3"]),
        ("--optimizer.lr 1e-3", ["optimizer.lr=1e-3"]),
        ("--lr -1", ["optimizer.lr=-1"]),
        ("--gpu 2", ["device=cuda:2"]),
        ("--gpu cpu", ["device=cpu"]),
        ("--use_ddp model=sam_spl_s", ["use_ddp=true", "model=sam_spl_s"]),
        ("--use_ddp --model sam_spl_s", ["use_ddp=true", "model=sam_spl_s"]),
        ("--use_ddp false", ["use_ddp=false"]),
        ("--overwrite", ["overwrite=true"]),
        ("--resume", ["resume=auto"]),
        ("--resume trainer.epochs=3", ["resume=auto", "trainer.epochs=3"]),
        ("--resume runs/a --lr 1", ["resume=runs/a", "optimizer.lr=1"]),
        ("--local_rank 3 --local-rank=4", []),
        ("--dataset irstd1k", ["dataset=irstd_1k"]),
        ("dataset=nudt-sirst", ["dataset=nudt_sirst"]),
        ("--dataset [SIRST,nudt]", ["dataset=[sirst,nudt_sirst]"]),
        ("dataset=[SIRST,nudt],SIRST", ["dataset=[sirst,nudt_sirst],sirst"]),
        ("dataset=SIRST,[SIRST,nudt]", ["dataset=sirst,[sirst,nudt_sirst]"]),
        ("--dataset.mean 0.1 -0.2 -.3 --lr 1", ["dataset.mean=[0.1,-0.2,-.3]", "optimizer.lr=1"]),
        ("--loss_func BCEWithLogitsLoss", ["loss=bce"]),
        ("--loss_func SoftIoULoss", ["loss=soft_iou"]),
        ("--config_path sam2/configs/sam2.1/sam2.1_hiera_l.yaml", ["model=sam_spl_l"]),
        ("model.block=vgg --model.num_heads 2", ["model.arguments.block=vgg", "model.arguments.num_heads=2"]),
        ("loss.bce=0.5", ["loss.arguments.bce=0.5"]),
        ("--test_on same irstd_1k --lr 1", ["test_on=[same,irstd_1k]", "optimizer.lr=1"]),
        ("+optimizer.args.caution=true", ["optimizer.args.caution=true"]),
    ],
)
def test_flags_and_keys_say_the_same(line, words):
    assert [str(word) for word in words_of("train", line)] == words


@pytest.mark.parametrize("line", ["--lr 1 optimizer.lr=2 --eta_min 0", "optimizer.lr=1 --lr 2 --eta_min 0"])
def test_of_two_words_for_one_key_the_last_one_counts(line):
    assert config_of("train", line.split()).optimizer.lr == 2


def test_text_is_taken_literally_and_other_values_by_their_type():
    path = "./my runs/a,b (1) {x} it's"
    for words in (
        ["--save_dir", path, "--data_path", path],
        [f"save_dir={path}", f"dataset.data_path={path}"],
    ):
        config = config_of("train", ["dataset=sirst", *words])
        assert (config.save_dir, config.dataset.data_path) == (path, path)
    assert config_of("train", ["--lists", "50_50"]).dataset.lists == "50_50"  # no number of 5050
    assert config_of("train", ["dataset.lists=null", "seed=7"]).dataset.lists is None
    config = config_of(
        "test", ["--weights", "x", "--protocols", "native", "sam_spl", "curves=false", "fa_budget=5"]
    )
    assert (config.protocols, config.curves, config.fa_budget) == (["native", "sam_spl"], False, 5.0)
    assert config_of("test", ["--weights", "x", "protocols=[native,mshnet]"]).protocols == [
        "native",
        "mshnet",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_flag_sets_a_key_that_there_is_and_every_key_is_explained(name):
    from sam_spl.cli.grammar import kinds
    from sam_spl.cli.help import comments, help_text

    command = command_named(name)
    known = {*kinds(command.config), *command.groups}
    assert {key for key in command.aliases.values() if key} <= known
    assert {*command.positional, *command.alone} <= known
    text = help_text(command)
    for key in (key for key in known if "." not in key and key not in command.groups):
        assert key in comments(command.config) or key in ("seed", "trainer", "copy_paste", "optimizer"), key
        assert f"--{key}" in text or key in ("trainer", "copy_paste", "optimizer")


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_every_command_are_understood(name, monkeypatch):
    command = command_named(name)
    assert command.examples
    for example in command.examples:
        words = example.partition("  #")[0].split()
        start = (
            words.index(name) if name in words else next(k for k, w in enumerate(words) if w.endswith(".py"))
        )
        parse(words[start + 1 :], command)


@pytest.mark.parametrize(
    "path", sorted(config_folder().glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_choice_of_every_group_composes(path):
    extra = ["dataset.data_path=x"] if path.stem == "custom" else []
    config_of("train", [f"{path.parent.name}={path.stem}", *extra])


def test_data_sets_are_known_by_every_name_in_any_case():
    for name in ("SIRST", "sirst", "NUAA-SIRST", "nuaa_sirst"):
        assert dataset_named(name) == "sirst"
    assert dataset_named("NUDT-SIRST-Sea") == "nudt_sea"
    with pytest.raises(ConfigError, match="custom"):
        dataset_named("nowhere")
    with pytest.raises(ConfigError) as error:
        dataset_named("nosuch")  # like none of them: still a few, each set once, and where the others are
    nearest_names = str(error.value).partition("Nearest: ")[2].partition(". All of them: ")[0].split(", ")
    assert len({dataset_named(one) for one in nearest_names}) == 3


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("--model DATransNet", "model=datransnet"),
        ("model=SAM-SPL-T", "model=sam_spl_t"),
        ("--model sam-spl-t,DATransNet", "model=sam_spl_t,datransnet"),
        ("--model samspl", "model=samspl"),  # no network's
        ("--model ./My-Net.py:MyNet", "model=./My-Net.py:MyNet"),
        ("--recipe DATransNet-Aug", "recipe=datransnet_aug"),
        ("recipe=SAM_SPL", "recipe=sam_spl"),
        ("--experiment sam-spl-nudt-sirst", "experiment=sam_spl_nudt_sirst"),
        ("--loss Soft-IoU", "loss=soft_iou"),
    ],
)
def test_choices_are_known_in_any_case_and_punctuation(typed, canonical):
    assert [str(word) for word in words_of("train", typed)] == [canonical]


def test_a_choice_in_another_spelling_is_saved_under_its_own_name():
    config = config_of(
        "train", ["--model", "DATransNet", "--recipe", "DATransNet", "--dataset", "NUAA-SIRST"]
    )
    assert (config.model.name, config.recipe, config.dataset.name) == ("datransnet", "datransnet", "sirst")
    with pytest.raises(ConfigError, match=r"model: 'DATransNets' is unknown\. Nearest: datransnet"):
        config_of("train", ["--model", "DATransNets"])


def test_of_choices_that_differ_in_punctuation_only_the_exact_one_is_meant(tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "softiou.yaml").write_text("name: segmentation\n")
    sam_spl.config.add_config_folder(tmp_path)
    assert [choice_named("loss", name) for name in ("softiou", "soft_iou", "Soft-IoU")] == [
        "softiou",
        "soft_iou",
        "Soft-IoU",
    ]


def test_nearest_names():
    assert nearest("leraning_rate", ["learning_rate", "loss"]) == "learning_rate"
    assert nearest("zzz", ["a", "b", "a.c"]) == "a, b"
    many = [f"key_{letter}" for letter in "abcdefghijkl"]
    assert nearest("zzz_l", many).split(", ")[0] == "key_l"  # of too many to list the nearest, far as it is
    assert len(nearest("zzz", many).split(", ")) == 3


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
#: Of the papers: mean, transform, copy-paste, sizes of training and testing (None: native).
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
    "sctransnet_nuaa_sirst": (101.06385 / 255, "random_crop", 0.0, 256, None),
    "sctransnet_nudt_sirst": (107.80905 / 255, "random_crop", 0.0, 256, None),
    "sctransnet_irstd_1k": (87.466186 / 255, "random_crop", 0.0, 256, None),
    "sctransnet_sirst3": (101.06385 / 255, "random_crop", 0.0, 256, None),
}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_experiments_are_the_published_recipes_and_open_with_their_command(file):
    package, command, *_ = file.read_text().splitlines()
    assert package == "# @package _global_"
    assert command.startswith(f"# python training.py experiment={file.stem}")
    config = config_of("train", command.split()[3:])

    mean, augment, copy_paste, image_size, test_size = PUBLISHED[file.stem]
    data = config.dataset
    assert data.mean[0] == pytest.approx(mean, abs=1e-6)
    assert (config.trainer.augment, config.copy_paste.probability) == (augment, copy_paste)
    assert config.copy_paste.source == "train"
    assert data.image_size == image_size
    assert (None if data.native_test else data.test_size or data.image_size) == test_size
    if config.model.name == "datransnet":
        assert config.model.arguments["train_size"] == image_size
        assert (config.trainer.epochs, config.trainer.batch_size, config.seed) == (400, 4, 42)
        assert (config.optimizer.lr, list(config.optimizer.milestones)) == (5e-4, [200, 300])
    elif config.model.name == "sctransnet":
        assert (config.trainer.epochs, config.trainer.batch_size, config.seed) == (1000, 16, 42)
        assert (config.optimizer.lr, config.optimizer.eta_min) == (1e-3, 1e-5)
    else:
        assert (config.trainer.epochs, config.trainer.batch_size, config.seed) == (300, 12, 2727)
        assert (config.optimizer.lr, config.optimizer.eta_min) == (1e-2, 1e-6)


def test_a_network_brings_its_recipe_unless_another_is_asked_for():
    assert config_of("train", ["model=datransnet"]).trainer.augment == "resize"
    assert config_of("train", ["model=datransnet", "recipe=datransnet_aug"]).trainer.augment == "native_crop"
    assert config_of("train", ["model=sam_spl_s"]).optimizer.name == "adan"


def test_a_pattern_that_is_none_is_refused_before_anything_runs():
    words = ["--dataset", "SIRST", "--weights", "x", "--group"]
    for pattern in (r"^(.+)/", r"^(.*\d)_\d+$", r"a'(\d)'\\", r"\\'"):
        assert config_of("test", [*words, pattern]).dataset.group == pattern
    with pytest.raises(ConfigError, match=r"dataset\.group: '\(' is not a regular expression"):
        config_of("test", [*words, "("])


def _named(name: str, line: str | list[str], **options) -> dict[str, list[str]]:
    found = jobs(words_of(name, line), **options)
    return {job.name: [str(word) for word in job.words] for job in found}


def test_every_combination_of_a_sweep_is_a_job():
    line = "model=sam_spl_t,datransnet --dataset SIRST,NUDT-SIRST seed=1"
    with pytest.raises(ConfigError, match=r"several values\. Add -m"):
        config_of("train", line.split())
    runs = _named("train", line, multirun=True)
    assert list(runs) == [
        "sam_spl_t-sirst",
        "sam_spl_t-nudt_sirst",
        "datransnet-sirst",
        "datransnet-nudt_sirst",
    ]
    assert set(runs["datransnet-sirst"]) == {"model=datransnet", "dataset=sirst", "seed=1"}
    assert _named("train", "seed=1 trainer.epochs=2") == {"": ["seed=1", "trainer.epochs=2"]}
    assert list(_named("train", "optimizer.lr=1e-2,1e-3 test_on=[same,sirst]", multirun=True)) == [
        "lr=1e-2",
        "lr=1e-3",
    ]


def test_a_sweep_has_at_most_1000_jobs():
    ten = ",".join(map(str, range(10)))
    three = [f"optimizer.args.{key}={ten}" for key in "abc"]
    assert len(_named("train", three, multirun=True)) == 1000
    with pytest.raises(ConfigError, match=r"optimizer\.args\.a \(10\), .*make 2000 jobs.* at most 1000"):
        _named("train", [*three, "seed=1,2"], multirun=True)


@pytest.mark.parametrize("words", [["dataset=[]"], ["dataset=[,]"], ["dataset=[sirst,SIRST]"]])
def test_unions_of_nothing_and_of_one_set_twice_are_refused(words):
    with pytest.raises(ConfigError, match="dataset: "):
        config_of("train", words)


def test_the_folder_of_ones_own_is_named_by_its_flag_or_key_only():
    assert own_folders(["--config_dir", "a", "config_dir=b", "--config_dir=c"]) == (["a", "b", "c"], [])
    words = ["--save_dir", "config_dir", "--seed", "5"]
    assert own_folders(words) == ([], words)


def test_a_list_is_one_value_of_a_sweep():
    found = _named("train", "optimizer.milestones=[1,2],[3]", multirun=True)
    assert list(found.values()) == [["optimizer.milestones=[1,2]"], ["optimizer.milestones=[3]"]]
    found = _named("train", "optimizer.milestones=[1,2]", multirun=True)
    assert found == {"": ["optimizer.milestones=[1,2]"]}
    found = _named("test", "protocols=[native],[sam_spl]", several=SEVERAL, multirun=True)
    assert list(found.values()) == [["protocols=[native]"], ["protocols=[sam_spl]"]]
    found = _named("train", "dataset=[sirst,nudt_sirst],sirst", multirun=True)
    assert list(found.values()) == [["dataset=[sirst,nudt_sirst]"], ["dataset=sirst"]]
    found = _named("test", "dataset=[sirst,nudt],irstd1k", several=SEVERAL, multirun=True)
    assert list(found) == ["sirst", "nudt_sirst", "irstd_1k"]


def test_no_job_is_named_as_the_folder_above(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert list(_named("test", "weights=[.,..,x]", several=SEVERAL)) == ["b", "a", "x"]
    assert list(_named("test", "weights=[./best.pt,../best.pt]", several=SEVERAL)) == [
        "b_best.pt",
        "a_best.pt",
    ]


SEVERAL = ("dataset", "weights")


def test_no_job_of_several_is_dropped_for_its_name():
    line = "weights=[runs/s1/best.pt,runs/s2/best.pt,runs/s1/last.pt] dataset=sirst,nudt_sirst"
    named = _named("test", line, several=SEVERAL)
    assert len(named) == 6
    assert "s2_best.pt-nudt_sirst" in named
    assert list(_named("test", "weights=[a/best.onnx,b/best.onnx]", several=SEVERAL)) == [
        "a_best.onnx",
        "b_best.onnx",
    ]
    for word in ("weights=a/s1/best.pt,b/s1/best.pt", "weights=x/seed1,y/seed1"):
        with pytest.raises(ConfigError, match="would both be named"):
            _named("test", word, several=SEVERAL)
    with pytest.raises(ConfigError, match="would both be named"):
        _named("train", "dataset.data_path=x/SIRST,y/SIRST", multirun=True)


def test_lists_are_a_union_in_training_and_one_after_the_other_in_testing():
    union = config_of("train", ["--dataset", "[SIRST,nudt]"]).dataset
    assert (union.name, [member.name for member in union.members]) == (
        "sirst+nudt_sirst",
        ["sirst", "nudt_sirst"],
    )
    found = _named("test", ["dataset=[SIRST,nudt]", "--weights", "[a/x,b/y (z)]"], several=SEVERAL)
    assert list(found) == ["sirst-x", "sirst-y_z_", "nudt_sirst-x", "nudt_sirst-y_z_"]
    assert found["nudt_sirst-y_z_"] == ["dataset=nudt_sirst", "weights=b/y (z)"]


@pytest.mark.parametrize("start", [["-m", "sam_spl"], ["-c", "from sam_spl.cli.main import main; main()"]])
def test_the_version_is_told(command, start):
    done = command(sys.executable, *start, "--version")
    assert (done.returncode, done.stdout) == (0, f"sam-spl {sam_spl.__version__}\n")
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == sam_spl.__version__


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["test", "--help"]])
def test_help_imports_no_hydra_and_no_numerical_library(command, words):
    code = "import sys; from sam_spl.cli.main import execute; execute(sys.argv[1:]); "
    code += "sys.exit(','.join({'hydra', 'torch', 'cv2', 'scipy', 'numpy'} & set(sys.modules)))"
    done = command(sys.executable, "-c", code, *words)
    assert done.stderr.strip() == ""


def test_help_and_mistyped_flags_need_no_torch(command):
    code = "import sys; from sam_spl.cli.main import execute; execute(sys.argv[1:]); "
    code += "sys.exit('torch' in sys.modules)"
    lines = ("", "--version", "train --help", "test --help", "score --help", "train --config")
    for words in map(str.split, lines):
        done = command(sys.executable, "-c", code, *words)
        assert done.returncode == 0, (words, done.stderr)


def test_a_group_of_keys_takes_no_value():
    with pytest.raises(ConfigError, match=r"optimizer: holds keys of its own, as --optimizer\.name adamw"):
        config_of("train", ["--optimizer", "adamw"])


def test_a_recipe_that_would_set_nothing_is_refused(tmp_path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("optimizer: {lr: 1}\n")
    sam_spl.config.add_config_folder(tmp_path)
    with pytest.raises(ConfigError, match="sets nothing"):
        config_of("train", ["recipe=mine"])


def test_what_is_said_wins_over_what_a_recipe_suggests():
    suggested = config_of("train", ["recipe=scratch"]).model.suggested
    assert suggested == {"head_bias": -4.0}
    assert config_of("train", ["recipe=scratch", "model.head_bias=null"]).model.suggested == {}
    assert config_of("train", ["recipe=scratch", "model.suggested={}"]).model.suggested == {}
    assert (
        config_of("train", ["recipe=scratch", "model.suggested.head_bias=-2"]).model.suggested["head_bias"]
        == -2
    )


def test_yaml_files_of_ones_own_that_do_not_compose_are_told_of_in_one_line(tmp_path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "odd.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /losses: bce\n"
    )
    sam_spl.config.add_config_folder(tmp_path)
    try:
        with pytest.raises(ConfigError, match="recipe=odd: the YAML files do not go together"):
            config_of("train", ["recipe=odd"])
    finally:
        sam_spl.config._own_folders.clear()
