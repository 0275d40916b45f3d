"""A run is one record: what is saved, what a resumed run may change, and that files bring no code."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from sam_spl.cli.main import run
from sam_spl.config import read
from sam_spl.data.dataset import TrainingSet
from sam_spl.engine.config import TrainConfig
from sam_spl.engine.record import MAY_CHANGE, RunFolder, read_saved, resumed_config
from sam_spl.engine.trainer import Trainer
from sam_spl.engine.update import Outcome
from sam_spl.errors import ConfigError, InputError
from sam_spl.weights.formats import read_weights
from tests.conftest import TINY_OVERRIDES, config_of, train, write_folder

SMALL = [
    *TINY_OVERRIDES,
    "dataset.image_size=32",
    "dataset.synthetic.train=6",
    "dataset.synthetic.val=2",
    "trainer.batch_size=3",
    "device=cpu",
    "precision=fp32",
]


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def state(folder: Path) -> dict:
    return torch.load(folder / "last.pt", weights_only=True)


def same(a, b) -> bool:
    """Whether two values, tables or lists of tensors and numbers are equal."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def failure(words: list, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        run(["train", *map(str, words)])
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return end.value.code, error


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A run of two epochs with averaged weights."""
    folder = tmp_path_factory.mktemp("record") / "run"
    train([*SMALL, "trainer.epochs=2", "recipe=scratch", "save_dir=" + str(folder)])
    return folder


@pytest.fixture
def copy(done, tmp_path) -> Path:
    """The same run, to be changed."""
    import shutil

    return Path(shutil.copytree(done, tmp_path / "copy"))


def test_the_record_is_plain_values_that_make_the_same_configuration_again(done):
    saved = read_saved(done)
    assert saved.config == read(TrainConfig, OmegaConf.to_container(OmegaConf.load(done / "config.yaml")))
    assert saved.config.trainer.augment == "target_crop"  # everything is settled
    assert "_target_" not in (done / "config.yaml").read_text()
    assert not {"resume", "overwrite"} & saved.state["config"].keys()


def test_a_changed_recipe_file_does_not_change_a_resumed_run(tmp_path):
    own = tmp_path / "configs"
    (own / "recipe").mkdir(parents=True)
    recipe = own / "recipe" / "mine.yaml"
    text = "# @package _global_\noptimizer: {name: sgd, lr: 1e-3, eta_min: 0.0}\n"
    text += "trainer: {epochs: 1, augment: resize}\n"
    recipe.write_text(text)
    words = ["--config_dir", str(own), "recipe=mine", *SMALL, f"save_dir={tmp_path / 'r'}"]
    train(words)
    before = OmegaConf.load(tmp_path / "r" / "config.yaml")
    recipe.write_text(text.replace("1e-3", "5e-1").replace("sgd", "adamw"))
    train([*words, "--resume", "trainer.epochs=2"])
    after = OmegaConf.load(tmp_path / "r" / "config.yaml")
    assert (after.optimizer, after.trainer.epochs) == (before.optimizer, 2)
    assert rows(tmp_path / "r")[1]["lr"] < 1e-3
    recipe.unlink()
    train(["--resume", str(tmp_path / "r"), "trainer.epochs=3"])  # not even there any more
    assert [row["epoch"] for row in rows(tmp_path / "r")] == [1, 2, 3]


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.weight_decay=0.5"],
        ["optimizer.name=sgd"],
        ["--lr", "0.5"],
        ["model.block=vgg"],
        ["model=datransnet"],
        ["precision=bf16"],
        ["dataset=sirst"],
        ["recipe=sam_spl"],
        ["loss=bce"],
        ["loss.bce=2"],
        ["trainer.augment=resize"],
        ["seed=1"],
        ["dataset.synthetic.train=5"],
        ["trainer.ema_decay=0"],
        ["experiment=sam_spl_nudt_sirst"],
    ],
)
def test_a_resumed_run_refuses_other_settings_in_one_line(words, copy, capsys):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    code, error = failure(["--resume", copy, *words, "trainer.epochs=3"], capsys)
    assert code == 2
    assert "A resumed run keeps its settings" in error
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


@pytest.mark.parametrize(
    "words",
    [["recipe=auto"], ["recipe=scratch"], ["dataset=synthetic"], ["seed=2727"], ["num_workers=0"], []],
)
def test_what_is_as_it_was_or_may_change_is_taken(words, copy):
    given = [*words, "trainer.epochs=5", "trainer.save_every=2"]
    keys = {word.partition("=")[0] for word in given}
    config = resumed_config(read_saved(copy), config_of("train", given), keys, processes=1)
    assert (config.trainer.epochs, config.trainer.save_every, config.seed) == (5, 2, 2727)
    assert config.save_dir == str(copy)  # where the run is now, not where it began
    assert config.model.arguments["embed_dim"] == 16  # of the run, though today's words say nothing of it


def test_every_key_that_may_change_is_a_key():
    from sam_spl.config import keys_of

    assert set(MAY_CHANGE) <= set(keys_of(TrainConfig))


def test_the_same_command_starts_and_goes_on(tmp_path):
    words = [*SMALL, "recipe=scratch", f"save_dir={tmp_path / 'r'}", "--resume", "auto"]
    train([*words, "trainer.epochs=1"])  # nothing is there yet
    train([*words, "trainer.epochs=2"])
    train([*words, "trainer.epochs=2"])  # nothing is left to do
    assert [row["epoch"] for row in rows(tmp_path / "r")] == [1, 2]


class Bait:
    """What must not be looked up because a file names it."""

    touched: list[str] = []  # noqa: RUF012


def __getattr__(name: str):
    if name == "Trap":
        Bait.touched.append(name)
        return lambda *args, **kwargs: None
    raise AttributeError(name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.name", "tests.engine.test_record:Trap"),
        ("loss.name", "tests.engine.test_record:Trap"),
        ("trainer.augment", "tests.engine.test_record:Trap"),
        ("logger", "tests.engine.test_record:Trap"),
    ],
)
def test_a_prepared_file_runs_nothing(key, value, copy, capsys):
    content = state(copy)
    *parents, last = key.split(".")
    node = content["config"]
    for parent in parents:
        node = node[parent]
    node[last] = value
    torch.save(content, copy / "last.pt")
    code, error = failure(["--resume", copy, "trainer.epochs=3"], capsys)
    assert (code, "a file may not import code" in error) == (2, True)
    assert Bait.touched == []


def test_a_target_in_a_file_is_no_key(copy, capsys):
    content = state(copy)
    content["config"]["loss"] = {"_target_": "os.system", "command": "true"}
    torch.save(content, copy / "last.pt")
    code, error = failure(["--resume", copy, "trainer.epochs=3"], capsys)
    assert (code, "does not fit" in error) == (1, True)


@pytest.mark.parametrize(
    "key", ["config", "optimizer", "history", "epoch", "rng", "processes", "scaler", "model"]
)
def test_a_file_that_lacks_something_is_told_of_in_one_line(key, copy, capsys):
    content = state(copy)
    del content[key]
    torch.save(content, copy / "last.pt")
    code, error = failure(["--resume", copy], capsys)
    assert code == 1
    assert key in error or "not the last.pt of a run" in error


@pytest.mark.parametrize("spoil", ["optimizer", "model", "ema"])
def test_a_state_of_something_else_is_told_of_in_one_line(spoil, copy, capsys):
    content = state(copy)
    if spoil == "optimizer":
        content[spoil] = {"state": {}, "param_groups": []}
    else:
        content[spoil].pop("decoder.heads.0.weight")
    torch.save(content, copy / "last.pt")
    code, error = failure(["--resume", copy, "trainer.epochs=3"], capsys)
    assert (code, "does not fit the network and the optimizer that it names" in error) == (1, True)


def _spoilt_moments(content):
    first = next(iter(content["optimizer"]["state"].values()))
    first.clear()
    first["exp_avg"] = "x"


_BEYOND = 10**400  # an integer that no float holds
#: What is spoilt -> how, and what the one line names.
_SPOILT = {
    "moments": (_spoilt_moments, "does not fit the network and the optimizer"),
    "lr_scale": (
        lambda c: c["optimizer"]["param_groups"][0].update(lr_scale="x"),
        "does not fit the network",
    ),
    "figure": (lambda c: c["history"][0].update(iou=_BEYOND), "history is missing or malformed"),
    "infinite": (lambda c: c["history"][0].update(loss=math.inf), "history is missing or malformed"),
    "epochs": (lambda c: c.update(epoch=_BEYOND), "epoch, ema_updates or processes"),
    "best": (lambda c: c.update(best=math.nan), "best is missing or malformed"),
    "scale": (lambda c: c.update(scaler={"scale": "x"}), "scaler is missing or malformed"),
    "negative": (lambda c: c["within"].update(seen=-1), "within is missing or malformed"),
    "timeless": (lambda c: c["within"].update(step=1, seconds=0.0), "within is missing or malformed"),
}


@pytest.mark.parametrize("spoilt", list(_SPOILT))
def test_values_that_no_run_writes_are_refused_before_training(spoilt, copy, capsys):
    spoil, said = _SPOILT[spoilt]
    content = state(copy)
    spoil(content)
    torch.save(content, copy / "last.pt")
    code, error = failure(["--resume", copy, "trainer.epochs=3"], capsys)
    assert code == 1
    assert said in error


def test_a_negative_loss_of_ones_own_is_no_fault_of_the_file(copy):
    content = state(copy)
    content["within"] |= {"total": -3.5}
    torch.save(content, copy / "last.pt")
    assert read_saved(copy).state["within"]["total"] == -3.5


@pytest.mark.parametrize("name", ["adan", "adamw", "sgd", "muon", "lookahead_radam", "adafactor"])
def test_the_step_that_tries_an_optimizers_state_leaves_nothing(name, tmp_path):
    words = [*SMALL, "recipe=scratch", f"optimizer.name={name}", "optimizer.args={}"]
    train([*words, f"save_dir={tmp_path / 'a'}", "trainer.epochs=1"])
    train([*words, f"save_dir={tmp_path / 'b'}", "trainer.epochs=1"])
    train(["--resume", tmp_path / "b", f"save_dir={tmp_path / 'c'}"])  # nothing is left to train
    one, other = state(tmp_path / "a"), state(tmp_path / "c")
    for key in ("model", "optimizer", "rng", "ema"):
        assert one[key] is not None or key == "ema"
        assert same(one[key], other[key]), key


@pytest.mark.parametrize("torn", ["", '{"epoch": 1, "lo', '{"epoch": 1, "loss": 1.0}\n{"epo', None])
def test_a_torn_or_missing_line_of_the_metrics_is_written_again(torn, copy):
    before = rows(copy)
    if torn is None:
        (copy / "metrics.jsonl").unlink()
    else:
        (copy / "metrics.jsonl").write_text(torn)
    train(["--resume", copy, "trainer.epochs=3"])
    assert rows(copy)[:2] == before
    assert [row["epoch"] for row in rows(copy)] == [1, 2, 3]


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch, capsys):
    """The last step of the second epoch wrecks the weights: neither its loss nor its gradient shows it."""
    folder, update = tmp_path / "r", Trainer.make_update

    def wrecking(self, batches):
        outcome = update(self, batches)
        if (self.epoch, self.step) == (1, self.steps - 1):
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))
        return outcome

    monkeypatch.setattr(Trainer, "make_update", wrecking)
    code, error = failure([*SMALL, "trainer.epochs=3", f"save_dir={folder}"], capsys)
    assert code == 1
    assert "are not finite after epoch 2" in error
    assert "keeps the weights of epoch 1" in error
    kept = state(folder)
    assert kept["epoch"] == 1
    assert all(value.isfinite().all() for value in kept["model"].values() if value.is_floating_point())


def test_a_gradient_that_is_not_finite_makes_no_step(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda gradients: torch.tensor(float("inf")))
    words = [*SMALL, "trainer.epochs=1", "trainer.max_bad_steps=0", f"save_dir={tmp_path / 'r'}"]
    code, error = failure(words, capsys)
    assert (code, "the gradient's norm is inf in epoch 1, step 1" in error) == (1, True)
    assert state(tmp_path / "r")["epoch"] == 0


SIX_STEPS = [*SMALL, "trainer.batch_size=1", "recipe=scratch", "trainer.epochs=2"]


def spoil_steps(monkeypatch, *which: tuple[int, int]) -> list[str]:
    """Make the images of these steps (of epoch, step) not finite; their names."""
    update, names = Trainer.make_update, []

    def spoilt(self, batches):
        if (self.epoch, self.step) in which:
            names.extend(batches[0]["name"])
            bad = [images.float() * float("nan") for images in batches[0]["image"]]
            batches = [batches[0] | {"image": bad}]
        return update(self, batches)

    monkeypatch.setattr(Trainer, "make_update", spoilt)
    return names


def test_a_step_that_is_not_finite_is_left_out_and_counted(tmp_path, capsys, monkeypatch):
    """All of it: weights, averages and BatchNorm's statistics are those of a run without the step."""
    names = spoil_steps(monkeypatch, (1, 2))
    train([*SIX_STEPS, f"save_dir={tmp_path / 'bad'}"])
    assert f"the loss is nan in epoch 2, step 3 (images {names[0]}): the step is left out" in (
        tmp_path / "bad/train.log"
    ).read_text(encoding="utf-8")
    assert [row.get("bad_steps") for row in rows(tmp_path / "bad")] == [None, 1]

    monkeypatch.undo()
    update = Trainer.make_update

    def without(self, batches):
        if (self.epoch, self.step) == (1, 2):
            return Outcome(0.0, 0.0, bad=False)
        return update(self, batches)

    monkeypatch.setattr(Trainer, "make_update", without)
    train([*SIX_STEPS, f"save_dir={tmp_path / 'without'}"])
    bad, clean = state(tmp_path / "bad"), state(tmp_path / "without")
    for key in ("model", "ema"):
        assert all(torch.equal(value, clean[key][name]) for name, value in bad[key].items())


@pytest.mark.parametrize("most", [0, 2])
def test_too_many_such_steps_in_a_row_end_the_run(most, tmp_path, capsys, monkeypatch):
    names = spoil_steps(monkeypatch, (0, 4), *((1, step) for step in range(1, 6)))
    code, error = failure([*SIX_STEPS, f"trainer.max_bad_steps={most}", f"save_dir={tmp_path}"], capsys)
    assert code == 1
    where = "epoch 1, step 5" if most == 0 else "epoch 2, step 4"
    assert f"the loss is nan in {where} (images {names[-1]})" in error
    assert ("after 2 such steps in a row" in error) == (most == 2)
    kept = state(tmp_path)
    moments = [value for of in kept["optimizer"]["state"].values() for value in of.values()]
    assert kept["epoch"] == (0 if most == 0 else 1)
    assert all(x.isfinite().all() for x in [*kept["model"].values(), *kept["ema"].values(), *moments])


def test_loader_processes_live_as_long_as_the_training(tmp_path, monkeypatch):
    get, seen = TrainingSet.__getitem__, tmp_path / "processes"

    def noted(self, key):
        with seen.open("a") as stream:
            stream.write(f"{key[0]} {os.getpid()}\n")
        return get(self, key)

    monkeypatch.setattr(TrainingSet, "__getitem__", noted)
    train([*SMALL, "trainer.epochs=3", "num_workers=2", f"save_dir={tmp_path / 'r'}"])
    noted_by = [tuple(map(int, line.split())) for line in seen.read_text().splitlines()]
    processes = {process for _, process in noted_by}
    assert sorted(epoch for epoch, _ in noted_by) == [0] * 6 + [1] * 6 + [2] * 6
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


def test_what_is_frozen_is_stored_once(tmp_path, capsys):
    folder = tmp_path / "r"
    words = [*SMALL, "model.freeze_trunk=true", "trainer.ema_decay=0.9", f"save_dir={folder}"]
    train([*words, "trainer.epochs=1"])
    kept = state(folder)
    frozen = [name for name in read_weights(folder / "best.pt").state if name.startswith("encoder.trunk.")]
    assert frozen
    assert not [key for key in ("model", "ema") for name in kept[key] if name in frozen]
    whole = read_weights(folder / "last.pt").state
    assert whole.keys() == read_weights(folder / "best.pt").state.keys()
    before = (folder / "frozen.safetensors").stat().st_mtime_ns
    train(["--resume", folder, "trainer.epochs=2"])
    assert (folder / "frozen.safetensors").stat().st_mtime_ns >= before
    again = read_weights(folder / "last.pt").state
    assert all(torch.equal(again[name], whole[name]) for name in frozen)
    head = "decoder.heads.0.weight"
    assert not torch.equal(again[head], whole[head])
    (folder / "frozen.safetensors").unlink()
    code, error = failure(["--resume", folder, "trainer.epochs=3"], capsys)
    assert (code, "frozen.safetensors" in error) == (1, True)


def test_without_validation_the_best_is_written_once_at_the_end(tmp_path, monkeypatch):
    written = []
    save = RunFolder.save_best
    monkeypatch.setattr(RunFolder, "save_best", lambda self, *args: (written.append(1), save(self, *args)))
    train([*SMALL, "trainer.epochs=3", "trainer.selection=last", f"save_dir={tmp_path / 'r'}"])
    assert len(written) == 1
    assert (tmp_path / "r" / "best.safetensors").is_file()


def test_save_every_writes_every_so_many_epochs_and_the_last(tmp_path, monkeypatch):
    written = []
    save = RunFolder.save_last
    monkeypatch.setattr(
        RunFolder, "save_last", lambda self, config, of: (written.append(of["epoch"]), save(self, config, of))
    )
    train([*SMALL, "trainer.epochs=5", "trainer.save_every=2", f"save_dir={tmp_path / 'r'}"])
    assert written == [0, 2, 4, 5]
    assert [row["epoch"] for row in rows(tmp_path / "r")] == [1, 2, 3, 4, 5]


def test_a_second_writer_is_refused(copy, capsys):
    with RunFolder(copy).lock():
        code, error = failure(["--resume", copy, "trainer.epochs=3"], capsys)
    assert code == 1
    assert str(copy) in error
    assert "writing" in error
    train(["--resume", copy, "trainer.epochs=3"])  # the lock is gone with its holder


def test_another_folder_takes_the_run_over_with_its_best(copy, tmp_path):
    new = tmp_path / "new"
    best = (copy / "best.safetensors").read_bytes()
    old = state(copy)
    old["best"] = 2.0  # which no later epoch reaches
    torch.save(old, copy / "last.pt")
    train(["--resume", copy, "trainer.epochs=3", f"save_dir={new}"])
    assert (new / "best.safetensors").read_bytes() == best
    assert [row["epoch"] for row in rows(new)] == [1, 2, 3]
    assert [row["epoch"] for row in rows(copy)] == [1, 2]
    assert state(copy)["epoch"] == 2


@pytest.mark.parametrize(
    ("batch", "processes", "remedy"),
    [(3, 2, "another number of processes"), (1, 2, "another number"), (4, 1, "--batch_size 3")],
)
def test_a_step_takes_as_many_images_as_before(batch, processes, remedy, copy):
    asked = config_of("train", [f"trainer.batch_size={batch}"])
    with pytest.raises(ConfigError, match=rf"takes 3 images a step.*{remedy}"):
        resumed_config(read_saved(copy), asked, {"trainer.batch_size"}, processes)


def test_the_same_step_on_more_processes(copy):
    asked = config_of("train", ["trainer.batch_size=1"])
    assert resumed_config(read_saved(copy), asked, {"trainer.batch_size"}, 3).trainer.batch_size == 1


def test_other_training_images_are_refused_and_a_copy_elsewhere_taken(tmp_path, capsys):
    data = write_folder(tmp_path / "a", 6, lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    words = [*TINY_OVERRIDES, "dataset=custom", "dataset.image_size=32", "device=cpu", "trainer.batch_size=2"]
    folder = tmp_path / "r"
    train([*words, f"dataset.data_path={data}", "trainer.epochs=1", f"save_dir={folder}"])
    copy = write_folder(tmp_path / "b", 6, lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    train(["--resume", folder, "trainer.epochs=2", "--data_path", copy])
    (copy / "train.txt").write_text("im_0\nim_1\nim_2")
    code, error = failure(["--resume", folder, "trainer.epochs=3"], capsys)
    assert (code, "the training images in" in error) == (1, True)
    assert len(rows(folder)) == 2


def test_files_follow_the_umask(done):
    mask = os.umask(0)
    os.umask(mask)
    for name in ("last.pt", "best.pt", "best.safetensors", "config.yaml", "metrics.jsonl", "curves.png"):
        assert stat.S_IMODE((done / name).stat().st_mode) == 0o666 & ~mask, name


class Listed:
    """A logger of one's own."""

    rows: list[dict] = []  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log(self, row):
        Listed.rows.append({**row, "folder": self.folder})

    def close(self):
        Listed.rows.append({"closed": True})


def test_a_logger_of_ones_own_is_told_every_epoch(tmp_path):
    name = "tests.engine.test_record:Listed"
    import importlib

    seen = importlib.import_module("tests.engine.test_record").Listed.rows
    seen.clear()
    train([*SMALL, "trainer.epochs=2", f"logger={name}", f"save_dir={tmp_path / 'r'}"])
    assert [row.get("epoch") for row in seen] == [1, 2, None]
    assert seen[0]["folder"] == tmp_path / "r"


def test_tensorboard_is_written_or_asked_for(tmp_path, capsys):
    words = [*SMALL, "trainer.epochs=1", "logger=tensorboard", f"save_dir={tmp_path / 'r'}"]
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        code, error = failure(words, capsys)
        assert (code, 'pip install "sam-spl[tensorboard]"' in error) == (2, True)
    else:
        train(words)
        assert list((tmp_path / "r").glob("events.out.tfevents.*"))


def test_reading_refuses_what_is_no_run(tmp_path, done):
    with pytest.raises(InputError, match=r"is not the last\.pt of a run"):
        read_saved(done / "best.pt")
    (tmp_path / "last.pt").write_bytes((done / "last.pt").read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        read_saved(tmp_path)


def test_a_finished_run_taken_to_another_folder_can_go_on_there(copy, tmp_path):
    train(["--resume", copy, f"save_dir={tmp_path / 'new'}"])
    assert state(tmp_path / "new")["epoch"] == 2
    train(["--resume", tmp_path / "new", "trainer.epochs=3"])
    assert [row["epoch"] for row in rows(tmp_path / "new")] == [1, 2, 3]


def test_fewer_epochs_than_are_done_are_refused(copy, capsys):
    code, error = failure(["--resume", copy, "trainer.epochs=1"], capsys)
    assert (code, "this run has 2 epochs already, not 1" in error) == (2, True)


@pytest.mark.parametrize("name", ["last.pt", "last.previous.pt", "best.pt", "best.safetensors"])
def test_weights_in_a_folder_are_not_replaced_unless_asked(name, copy, capsys):
    for other in {"last.pt", "last.previous.pt", "best.pt", "best.safetensors"} - {name}:
        (copy / other).unlink()
    before = (copy / name).read_bytes()
    words = [*SMALL, "trainer.epochs=1", f"save_dir={copy}"]
    code, error = failure(words, capsys)
    assert (code, f"holds a run already ({name})" in error) == (2, True)
    assert ("--resume" in error) == name.startswith("last")  # what cannot be resumed is not said to be
    assert (copy / name).read_bytes() == before


class Failing:
    """A logger that cannot be made."""

    def __init__(self, folder: Path) -> None:
        raise ConfigError("logger: no room.")


def test_what_fails_late_leaves_the_run_that_would_be_replaced(copy, capsys):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    words = [*SMALL, "trainer.epochs=1", "overwrite=true", f"save_dir={copy}"]
    code, _ = failure([*words, "logger=tests.engine.test_record:Failing"], capsys)
    assert code == 2
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


class Writing:
    """A logger that writes a file as soon as it is made."""

    def __init__(self, folder: Path) -> None:
        (folder / "events").write_text("")


def test_a_refused_run_leaves_nothing_of_its_logger(copy, capsys):
    words = [*SMALL, f"save_dir={copy}", "logger=tests.engine.test_record:Writing"]
    code, error = failure(words, capsys)
    assert (code, "holds a run already" in error) == (2, True)
    assert not (copy / "events").exists()


def test_replacing_a_run_removes_the_tests_of_its_weights(copy):
    (copy / "test-best-x").mkdir()
    (copy / "test-best-x" / "results.json").write_text("{}")
    train([*SMALL, "trainer.epochs=1", "overwrite=true", f"save_dir={copy}"])
    assert not (copy / "test-best-x").exists()


def test_replacing_and_resuming_at_once_is_refused(copy, capsys):
    code, error = failure(["--resume", copy, "overwrite=true", "trainer.epochs=3"], capsys)
    assert (code, "Give one of them" in error) == (2, True)


def test_a_run_that_somebody_continued_meanwhile_is_not_rewound(copy):
    from sam_spl.engine import training
    from sam_spl.runtime import World

    asked = config_of("train", ["--resume", str(copy), "trainer.epochs=3"])
    config, saved = training.resolve(asked, {"resume", "trainer.epochs"}, 1)
    train(["--resume", copy, "trainer.epochs=4"])
    with pytest.raises(InputError, match="another process has written"):
        training.run(config, saved, World(0, 1, torch.device("cpu")), {})
    assert state(copy)["epoch"] == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("best", "x"),
        ("ema", [1]),
        ("history", [{}]),
        ("history", [{"epoch": 1, "loss": torch.zeros(2)}]),
        ("epoch", -1),
        ("processes", 0),
        ("frozen", "x"),
        ("description", {"trained_on": "abc"}),
    ],
)
def test_an_edited_file_is_told_of_in_one_line(key, value, copy, capsys):
    content = state(copy)
    content[key] = value
    torch.save(content, copy / "last.pt")
    code, _ = failure(["--resume", copy, "trainer.epochs=3"], capsys)
    assert code == 1


def test_a_file_does_not_read_the_environment(copy, capsys, monkeypatch):
    monkeypatch.setenv("SECRET", "word")
    content = state(copy)
    content["config"]["dataset"]["title"] = "${oc.env:SECRET}"
    torch.save(content, copy / "last.pt")
    code, error = failure(["--resume", copy, "trainer.epochs=3"], capsys)
    assert (code, "config is missing or malformed" in error) == (1, True)
    assert "word" not in (copy / "config.yaml").read_text()


def test_there_is_a_best_where_no_validation_image_has_a_target(tmp_path):
    folder = tmp_path / "r"
    train(
        [
            *SMALL,
            "trainer.epochs=2",
            "dataset.synthetic.empty=1.0",
            "model.head_bias=-20",
            f"save_dir={folder}",
        ]
    )
    assert rows(folder)[-1]["iou"] is None
    assert (folder / "best.safetensors").is_file()
