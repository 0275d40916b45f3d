"""What fails while a run is under way: it goes on where it can, says so, and loses nothing that was good."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sam_spl.cli.main import run
from sam_spl.data.sources import Decoded
from sam_spl.engine.record import read_saved
from sam_spl.engine.trainer import Trainer
from sam_spl.errors import InputError
from sam_spl.files import atomic
from sam_spl.weights.formats import read_weights
from tests.conftest import ROOT, TINY_OVERRIDES, train, write_folder
from tests.engine.test_distributed import TORCHRUN
from tests.reliability.kills import MODEL, WORDS, differs, record


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of three epochs without a fault."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train([*WORDS, f"save_dir={folder}"])
    return folder


def before_step(monkeypatch, epoch: int, step: int, do) -> None:
    """Do something before an update is made."""
    update = Trainer.make_update

    def disturbed(self, batches):
        if (self.epoch, self.step) == (epoch, step):
            do(self)
        return update(self, batches)

    monkeypatch.setattr(Trainer, "make_update", disturbed)


def failure(words: list, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        run(["train", *map(str, words)])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return end.value.code, error


def log_of(folder: Path) -> str:
    return (folder / "train.log").read_text(encoding="utf-8")


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """What a full disk and a quota do, by the system itself."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


#: A network whose weights files are larger than any other file of its run.
LARGE = [*TINY_OVERRIDES, *WORDS[1:]]


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_full_disk_keeps_the_last_good_file_and_the_run_going(epoch, tmp_path, capsys, monkeypatch):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with files_no_larger_than(2**40):
        before_step(
            monkeypatch, epoch, 1, lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limit))
        )
        code, error = failure([*LARGE, f"save_dir={tmp_path}"], capsys)
    assert code == 1
    assert "error: the training is done, and its " in error
    assert f"cannot write {tmp_path}/" in error
    assert "is not saved" in error
    assert "last.pt is not written, the one before stays" in log_of(tmp_path)
    assert "epoch 3/3" in log_of(tmp_path)
    assert read_saved(tmp_path).state["epoch"] == epoch
    assert not list(tmp_path.glob(".*"))
    for name in ("best.pt", "best.safetensors"):
        if (tmp_path / name).exists():
            assert read_weights(tmp_path / name).description["epoch"] <= epoch

    monkeypatch.undo()
    train(["--resume", tmp_path])  # there is space again
    assert read_saved(tmp_path).state["epoch"] == 3


def test_a_disk_that_has_space_again_leaves_no_error(tmp_path, monkeypatch):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with files_no_larger_than(2**40):
        update = Trainer.make_update

        def disturbed(self, batches):
            size = 2**20 if self.epoch == 1 else 2**40
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit))
            return update(self, batches)

        monkeypatch.setattr(Trainer, "make_update", disturbed)
        train([*LARGE, f"save_dir={tmp_path / 'run'}"])
    assert "last.pt is not written" in log_of(tmp_path / "run")
    monkeypatch.undo()
    train([*LARGE, f"save_dir={tmp_path / 'clean'}"])
    assert differs(record(tmp_path / "clean"), record(tmp_path / "run")) == []


def test_a_logger_without_space_is_warned_of_and_the_run_goes_on(tmp_path):
    logger = tmp_path / "full.py"
    logger.write_text(FULL)
    train([*WORDS, f"logger={logger}:Full", f"save_dir={tmp_path / 'run'}"])
    assert log_of(tmp_path / "run").count("WARNING the logger cannot write epoch 2: [Errno 28] No space") == 1
    assert "epoch 3/3" in log_of(tmp_path / "run")
    assert log_of(tmp_path / "run").count("WARNING the logger cannot be closed: [Errno 28] No space") == 1


FULL = """
import errno, os

class Full:
    def __init__(self, folder):
        pass

    def log(self, row):
        if row["epoch"] == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
"""


def test_the_disk_is_named_as_the_system_does(tmp_path):
    with (
        pytest.raises(InputError, match=r"No space left on device\. Choose a folder"),
        atomic(tmp_path / "x") as file,
    ):
        file.symlink_to("/dev/full")
        file.write_text("x" * 10**6)
    assert not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_written_does_not_disturb(tmp_path, capsys, monkeypatch):
    def fill(trainer):
        (handler,) = (
            one for one in logging.getLogger("sam_spl").handlers if isinstance(one, logging.FileHandler)
        )
        handler.stream.close()
        handler.stream = open("/dev/full", "a")  # noqa: SIM115

    before_step(monkeypatch, 1, 1, fill)
    train([*WORDS, f"save_dir={tmp_path}"])
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert told.err.count("train.log cannot be written") == 1
    assert "epoch 3/3" in told.out


def test_a_file_that_cannot_be_replaced_leaves_the_others(whole, tmp_path, capsys, monkeypatch):
    def occupy(trainer):
        (tmp_path / "metrics.jsonl").unlink()
        (tmp_path / "metrics.jsonl").mkdir()

    before_step(monkeypatch, 1, 1, occupy)
    code, error = failure([*WORDS, f"save_dir={tmp_path}"], capsys)
    assert (code, error.count("error: ")) == (1, 1)
    assert "the training is done, and its metrics.jsonl is not saved" in error
    assert differs(record(whole)["last"], torch_state(tmp_path)) == []


def torch_state(folder: Path) -> object:
    (folder / "metrics.jsonl").rmdir()
    (folder / "metrics.jsonl").write_text("")
    return record(folder)["last"]


@pytest.mark.parametrize("another", [False, True])
def test_a_run_folder_that_vanished_is_not_made_again(another, tmp_path, capsys, monkeypatch):
    folder, moved = tmp_path / "run", tmp_path / "moved"

    def move(trainer):
        folder.rename(moved)
        if another:
            folder.mkdir()

    before_step(monkeypatch, 1, 1, move)
    code, error = failure([*WORDS, f"save_dir={folder}"], capsys)
    assert code == 1
    assert error.startswith(f"error: {folder}: the run folder was moved, replaced or removed")
    assert folder.exists() == another
    assert not another or not list(folder.iterdir())
    assert read_saved(moved).state["epoch"] == 1


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """More than what is kept decoded: files are read when their turn comes."""
    monkeypatch.setattr(Decoded, "load", lambda self, index: None)
    return write_folder(tmp_path / "mine", lists={"train": [0, 1, 2, 3], "test": [4, 5]})


def folder_words(images: Path, save_dir: Path) -> list[str]:
    set_ = ["dataset=custom", f"dataset.data_path={images}"]
    return [
        MODEL,
        "recipe=scratch",
        *set_,
        *WORDS[2:3],
        *WORDS[5:],
        "trainer.batch_size=2",
        f"save_dir={save_dir}",
    ]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_corrupt_file_in_the_middle_ends_the_run_by_name(
    kind, workers, images, tmp_path, capsys, monkeypatch
):
    file = images / kind / "im_2.png"
    before_step(monkeypatch, 0, 1, lambda _: file.write_bytes(file.read_bytes()[:40]))
    code, error = failure([*folder_words(images, tmp_path / "run"), f"num_workers={workers}"], capsys)
    assert (code, error.count("\n")) == (1, 1)
    assert str(file) in error
    assert read_saved(tmp_path / "run").state["epoch"] == 1


def test_or_it_is_left_out_and_counted(images, tmp_path, monkeypatch):
    file = images / "images/im_2.png"
    good = file.read_bytes()
    before_step(monkeypatch, 0, 1, lambda _: file.write_bytes(good[:40]))
    before_step(monkeypatch, 2, 1, lambda _: file.write_bytes(good))
    train(
        [*folder_words(images, tmp_path / "run"), "on_bad_sample=skip", "trainer.epochs=4", "num_workers=1"]
    )
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[1]["bad_samples"] == 1
    assert "bad_samples" not in rows[0]
    assert "bad_samples" not in rows[3]
    told = [line for line in log_of(tmp_path / "run").splitlines() if "on_bad_sample=skip" in line]
    assert len(told) == 1
    assert str(file) in told[0]


def test_what_cannot_be_read_from_the_start_is_left_out_too(tmp_path, capsys):
    images = write_folder(tmp_path / "mine", lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    file = images / "images/im_2.png"
    file.write_bytes(file.read_bytes()[:40])
    words = folder_words(images, tmp_path / "run")
    code, error = failure(words, capsys)
    assert (code, str(file) in error, (tmp_path / "run").exists()) == (1, True, False)
    train([*words, "on_bad_sample=skip"])
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["bad_samples"] for row in rows] == [1, 1, 1]


def test_a_set_that_is_gone_is_not_skipped_through(images, tmp_path, capsys, monkeypatch):
    before_step(monkeypatch, 0, 1, lambda _: shutil.rmtree(images / "images"))
    code, error = failure([*folder_words(images, tmp_path / "run"), "on_bad_sample=skip"], capsys)
    assert code == 1
    assert "im_" in error


def test_a_loader_process_that_is_killed_is_started_again(whole, tmp_path, monkeypatch):
    """In the middle of an update, of which half must not be left undone."""
    killed = []

    def kill_one(trainer):
        victim = trainer.loader()._iterator._workers[0].pid
        os.kill(victim, signal.SIGKILL)
        os.waitid(os.P_PID, victim, os.WEXITED | os.WNOWAIT)
        killed.append(victim)

    before_step(monkeypatch, 1, 1, kill_one)
    train([*WORDS, "num_workers=2", f"save_dir={tmp_path}"])
    assert f"(DataLoader worker (pid(s) {killed[0]}) exited unexpectedly): started again" in log_of(tmp_path)
    assert differs(record(whole), record(tmp_path)) == []


@pytest.mark.parametrize("error", [ConnectionResetError("reset by peer"), EOFError()])
def test_a_loader_process_may_die_while_its_image_is_on_its_way(error, whole, tmp_path, monkeypatch):
    """The main process, which fetches it, is told by the connection and not by PyTorch."""
    fetch, fetched = Trainer._groups_of, []

    def broken(self, loader):
        for group in fetch(self, loader):
            fetched.append(group)
            if len(fetched) == 6:
                raise error
            yield group

    monkeypatch.setattr(Trainer, "_groups_of", broken)
    train([*WORDS, "num_workers=1", f"save_dir={tmp_path}"])
    assert log_of(tmp_path).count("started again") == 1
    assert differs(record(whole), record(tmp_path)) == []


def test_a_fault_of_ones_own_code_in_a_loader_process_is_no_death(tmp_path, monkeypatch):
    import sam_spl.data.dataset as module

    def faulty(*_):
        raise RuntimeError("of my augmentation")

    monkeypatch.setattr(module.TrainingSet, "__getitem__", faulty)
    with pytest.raises(RuntimeError, match="of my augmentation"):
        train([*WORDS, "num_workers=1", f"save_dir={tmp_path}"])
    assert "started again" not in log_of(tmp_path)
    assert log_of(tmp_path).rstrip().endswith("RuntimeError: of my augmentation")  # with its traceback


def test_loader_processes_that_all_die_end_the_run(tmp_path, capsys, monkeypatch):
    import sam_spl.data.dataset as module

    monkeypatch.setattr(module.TrainingSet, "__getitem__", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    code, error = failure([*WORDS, "num_workers=1", f"save_dir={tmp_path}"], capsys)
    assert code == 1
    assert "error: loader processes end as soon as they are started" in error
    assert log_of(tmp_path).count("started again") == 3


HUNGRY = """
import torch
from tests.reliability.small import Small

class Hungry(Small):
    def forward(self, image):
        torch.empty(2**60, dtype=torch.uint8)  # the allocator's own error
        return super().forward(image)
"""


def test_out_of_memory_says_what_to_lower_and_a_sweep_goes_on_without_it(tmp_path, capsys, monkeypatch):
    networks, kept = [], []
    fit = Trainer.fit

    def seen(trainer):
        kept.append(sum(one() is not None for one in networks))
        networks.append(weakref.ref(trainer.model))
        fit(trainer)

    monkeypatch.setattr(Trainer, "fit", seen)
    network = tmp_path / "hungry.py"
    network.write_text(HUNGRY)
    code, error = failure(
        ["-m", f"model={network}:Hungry,{MODEL.removeprefix('model=')}", *WORDS[1:], f"save_dir={tmp_path}"],
        capsys,
    )
    assert code == 1
    assert (
        "error: out of memory on cpu with batches of 3 images of 32 pixels. Lower trainer.batch_size" in error
    )
    assert "1 of 2 failed" in error
    assert kept == [0, 0]  # a failed network's memory is free for the next
    (good,) = tmp_path.glob("*Small*/last.pt")
    assert read_saved(good).state["epoch"] == 3


def test_a_damaged_run_keeps_no_other_run_of_a_sweep_waiting(tmp_path, capsys):
    words = ["-m", *WORDS, "optimizer.lr=1e-3,1e-2", f"save_dir={tmp_path}", "resume=auto"]
    train([*words, "trainer.epochs=1"])
    one, other = sorted(tmp_path.iterdir())
    for file in one.glob("last*.pt"):
        file.write_bytes(b"damaged")
    words.remove("device=cpu")  # which is saved with the others
    code, error = failure([*words, "trainer.epochs=2"], capsys)
    assert code == 1
    assert (
        f"error: resume: {one}/last.previous.pt is damaged: its checksums do not fit. Start the run" in error
    )
    assert "1 of 2 failed" in error
    assert read_saved(other).state["epoch"] == 2


STALLING = """
import time
from sam_spl.cli.main import run
from sam_spl.data.dataset import {set} as Images
import sam_spl.engine.watchdog as watchdog
watchdog.WARN_AFTER = 0.5
load = Images.__getitem__
seen = []

def hanging(self, key):
    seen.append(key)
    if len(seen) > {after}:
        time.sleep(600)  # a mount that answers no more
    return load(self, key)

Images.__getitem__ = hanging
import sys
run(["train", *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("images", "after", "where"), [("TrainingSet", 14, "step "), ("EvaluationSet", 3, "validation. ")]
)
def test_a_mount_that_stalls_is_told_of_and_ends_the_run(images, after, where, tmp_path):
    script = tmp_path / "stalling.py"
    script.write_text(STALLING.format(set=images, after=after))
    done = subprocess.run(
        [sys.executable, str(script), *WORDS, "trainer.stall_minutes=0.04", f"save_dir={tmp_path / 'run'}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "no image has come for 0 s: is the data set within reach?" in done.stdout + done.stderr or (
        "no image has come for 1 s" in done.stdout + done.stderr
    )
    last = done.stderr.strip().splitlines()[-1]
    begins = "error: no image has come for 0.0 minutes (trainer.stall_minutes), in epoch 2, "
    assert last.startswith(begins + where)
    assert last.endswith(f"go on with --resume {tmp_path / 'run'}")
    assert log_of(tmp_path / "run").splitlines()[-1].endswith(last.replace("error: ", "ERROR the run ends: "))
    assert read_saved(tmp_path / "run").state["epoch"] == 1


FALLING = """
import os
import signal
from tests.reliability.small import Small

class Falling(Small):
    steps = 0

    def forward(self, image):
        if self.training:
            Falling.steps += 1
            if Falling.steps == 4 and os.environ["RANK"] == "1":
                {deed}
        return super().forward(image)
"""


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", ["error: another process of this run has ended"]),
        pytest.param("raise ZeroDivisionError", ["ZeroDivisionError"], marks=pytest.mark.slow),
    ],
)
def test_one_process_that_ends_ends_all(deed, told, tmp_path, command):
    network = tmp_path / "falling.py"
    network.write_text(FALLING.format(deed=deed))
    words = [f"model={network}:Falling", *WORDS[1:], f"save_dir={tmp_path / 'run'}"]
    done = command(*TORCHRUN, "--nproc_per_node=2", "training.py", *words, timeout=120)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "error: " in line or "ZeroDivisionError" in line]
    assert all(any(one in line for line in lines) for one in told) or "SIGKILL" in done.stderr
    assert "ConnectionResetError" not in done.stderr
    assert read_saved(tmp_path / "run").state["epoch"] == 1


def test_weights_that_explode_within_an_epoch_do_not_take_the_place_of_both_saves(tmp_path, capsys):
    words = [*WORDS, "optimizer.name=sgd", "optimizer.args={}", "optimizer.lr=1e30", "trainer.clip_grad=0"]
    code, error = failure([*words, "trainer.save_every_steps=1", f"save_dir={tmp_path}"], capsys)
    assert code == 1
    assert (
        "keeps the weights of epoch 0, step 1, and last.previous.pt beside it those of the save before"
        in error
    )
    weights = torch.load(tmp_path / "last.previous.pt", weights_only=True)["model"]
    assert max(float(value.abs().max()) for value in weights.values()) < 10


DISTURBED = """
import multiprocessing, os, time
from pathlib import Path
import torch
from tests.reliability.small import Small

class Disturbed(Small):
    "Its second process is slower, and loses a loader process; both write down their weights."

    def forward(self, image):
        if self.training:
            rank = os.environ["RANK"]
            sums = Path(__file__).with_name(f"sums{rank}")
            with sums.open("a") as file:
                print(repr(sum(p.double().abs().sum().item() for p in self.parameters())), file=file)
            with sums.with_name(f"draws{rank}").open("a") as file:
                print(hash(bytes(torch.get_rng_state())), file=file)
            if rank == "1":
                time.sleep(0.05)
                if len(sums.read_text().splitlines()) == 6:
                    multiprocessing.active_children()[0].kill()
        return super().forward(image)
"""


@pytest.mark.slow
def test_processes_stay_alike_by_minutes_and_where_one_loses_a_loader(tmp_path, command):
    """One clock for all, and no talk between processes of what befell one of them."""
    network = tmp_path / "disturbed.py"
    network.write_text(DISTURBED)
    words = [f"model={network}:Disturbed", *WORDS[1:], f"save_dir={tmp_path / 'run'}", "num_workers=1"]
    done = command(
        *(*TORCHRUN, "--nproc_per_node=2", "training.py", *words, "trainer.minutes=0.05"),
        env={"PYTHONHASHSEED": "0"},
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    one, other = ((tmp_path / f"sums{rank}").read_text().splitlines() for rank in (0, 1))
    assert len(one) > 8
    assert one == other
    one, other = ((tmp_path / f"draws{rank}").read_text().splitlines() for rank in (0, 1))
    assert len({*one, *other}) == len(one) + len(other)  # Dropout leaves out other values in each


def test_an_epoch_that_the_clock_cuts_and_weights_that_find_nothing_are_told_of(tmp_path):
    train([*WORDS, "trainer.minutes=1e-6", f"save_dir={tmp_path / 'run'}"])
    log = log_of(tmp_path / "run")
    assert "epoch 1 (" in log
    assert "of 1e-06 min, 3 of 12 images) loss" in log
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert row["iou"] < 0.01
    assert "the best IoU on validation images is 0.00" in log
