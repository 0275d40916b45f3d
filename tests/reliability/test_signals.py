"""Signals end a run at its next step, with everything saved and an exit code of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sam_spl.cli.main import run
from sam_spl.engine import training
from sam_spl.engine.record import read_saved
from sam_spl.engine.stopping import Stop
from sam_spl.engine.trainer import Trainer
from tests.conftest import ROOT, train
from tests.engine.test_distributed import TORCHRUN
from tests.reliability.kills import MODEL, WORDS, differs, record


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of three epochs, never broken."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train([*WORDS, f"save_dir={folder}"])
    return folder


def in_a_step(monkeypatch, epoch: int, step: int, *signals: signal.Signals) -> None:
    """Send signals to this process while it makes an update."""
    update = Trainer.make_update

    def disturbed(self, batches):
        if (self.epoch, self.step) == (epoch, step):
            for one in signals:
                os.kill(os.getpid(), one)
        return update(self, batches)

    monkeypatch.setattr(Trainer, "make_update", disturbed)


def ended(words: list[str], capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        run(["train", *words])
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_ends_the_run_after_its_step_and_nothing_is_done_twice(
    name, whole, tmp_path, capsys, monkeypatch
):
    handler = signal.getsignal(signal.Signals[name])
    in_a_step(monkeypatch, 1, 2, signal.Signals[name])
    code, told = ended([*WORDS, f"save_dir={tmp_path}"], capsys)
    assert code == 75
    assert f"interrupted: {name}: 1 of 3 epochs and 3 of 4 steps of the next are saved. Go on with: " in told
    assert told.strip().endswith(f"sam-spl train --resume {tmp_path} {MODEL}")
    assert "Traceback" not in told
    log = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert f"WARNING the run ends: {name}: 1 of 3 epochs and 3 of 4 steps" in log.splitlines()[-1]
    assert (tmp_path / "curves.png").is_file()
    saved = read_saved(tmp_path)
    assert (saved.state["epoch"], saved.state["within"]["step"]) == (1, 3)
    assert signal.getsignal(signal.Signals[name]) == handler  # as it was before

    monkeypatch.undo()
    train([MODEL, "--resume", tmp_path])
    assert differs(record(whole), record(tmp_path)) == []


def test_a_signal_in_the_last_step_of_an_epoch(whole, tmp_path, capsys, monkeypatch):
    in_a_step(monkeypatch, 0, 3, signal.SIGTERM)
    assert ended([*WORDS, f"save_dir={tmp_path}"], capsys)[0] == 75
    monkeypatch.undo()
    train([MODEL, "--resume", tmp_path])
    assert differs(record(whole), record(tmp_path)) == []


def test_a_signal_in_validation_does_not_wait_for_its_end(whole, tmp_path, capsys, monkeypatch):
    count, waited = Trainer._count, []

    def slow(self, val_set):
        if self.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
            waited.append(True)
        return count(self, val_set)

    monkeypatch.setattr(Trainer, "_count", slow)
    code, told = ended([*WORDS, f"save_dir={tmp_path}"], capsys)
    assert (code, waited) == (75, [])
    assert "1 of 3 epochs and 4 of 4 steps of the next are saved" in told
    monkeypatch.undo()
    train([MODEL, "--resume", tmp_path])
    assert differs(record(whole), record(tmp_path)) == []


def test_a_signal_after_the_last_epoch_is_not_lost(whole, tmp_path, capsys, monkeypatch):
    """The tests of ``test_on`` and the other jobs of a sweep are not begun."""
    finish = Trainer.finish_epoch

    def disturbed(self, scored):
        if self.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        finish(self, scored)

    monkeypatch.setattr(Trainer, "finish_epoch", disturbed)
    code, told = ended([*WORDS, f"save_dir={tmp_path}"], capsys)
    assert (code, "SIGTERM: 3 of 3 epochs are saved" in told) == (75, True)
    assert differs(record(whole), record(tmp_path)) == []


def test_a_signal_in_the_tests_after_the_training(whole, tmp_path, capsys, monkeypatch):
    tested = training.test

    def disturbed(*of, **more):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(5)
        return tested(*of, **more)

    monkeypatch.setattr(training, "test", disturbed)
    words = [*WORDS, "dataset.synthetic.test=2", "test_on=[same]", f"save_dir={tmp_path}"]
    code, told = ended(words, capsys)
    assert (code, "interrupted: SIGUSR1: 3 of 3 epochs are saved. Go on with: " in told) == (75, True)
    assert not list(tmp_path.glob("test-*"))
    monkeypatch.undo()
    train([MODEL, "--resume", tmp_path])
    assert len(list(tmp_path.glob("test-*/results.json"))) == 1


def test_a_signal_in_a_sweep_says_that_others_wait(tmp_path, capsys, monkeypatch):
    in_a_step(monkeypatch, 0, 1, signal.SIGTERM)
    code, told = ended(["-m", *WORDS, "seed=1,2", f"save_dir={tmp_path}"], capsys)
    assert code == 75
    assert told.strip().endswith("(1 more jobs wait; this command with resume=auto goes on)")


@pytest.mark.parametrize("step", [1, 3])
def test_a_run_by_minutes_ends_the_epoch_in_which_they_are_over(step, tmp_path, capsys, monkeypatch):
    """The signal comes in its last update, in and at the end of an epoch; the epoch is still validated."""
    update = Trainer.make_update

    def last(self, batches):
        if self.step == step:
            self.minutes = 1.0
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, batches)

    monkeypatch.setattr(Trainer, "make_update", last)
    words = [*WORDS, "trainer.minutes=1", f"save_dir={tmp_path}", "resume=auto"]
    code, told = ended(words, capsys)
    assert (code, f"SIGTERM: 0 epochs and {step + 1} of 4 steps of the next are saved" in told) == (75, True)
    monkeypatch.undo()
    train(words)
    (row,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert row["images_seen"] == 3 * (step + 1) and row["iou"] is not None
    assert (tmp_path / "best.safetensors").is_file()


def test_a_run_by_minutes_goes_on_whatever_its_number_of_epochs(tmp_path, monkeypatch):
    update = Trainer.make_update

    def timed(self, batches):
        self.minutes += 0.25
        return update(self, batches)

    monkeypatch.setattr(Trainer, "make_update", timed)
    words = [*WORDS, "trainer.epochs=1", f"save_dir={tmp_path}", "resume=auto"]
    for minutes, epochs in ((2, 2), (2, 2), (4, 4)):
        train([*words, f"trainer.minutes={minutes}"])
        assert read_saved(tmp_path).state["epoch"] == epochs
    log = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert log.count("all 2 minutes were done before; trainer.minutes=N goes on") == 1


def test_a_second_ctrl_c_ends_at_once(tmp_path, capsys, monkeypatch):
    in_a_step(monkeypatch, 1, 2, signal.SIGINT, signal.SIGINT)
    code, told = ended([*WORDS, f"save_dir={tmp_path}"], capsys)
    assert code == 130
    assert "interrupted: 1 of 3 epochs are saved. Go on with: " in told
    assert read_saved(tmp_path).state["within"]["step"] == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR1"])
def test_a_loader_process_in_its_first_moment_takes_no_signal(name):
    """It has the handler of the process that it was forked from, until it sets its own."""
    stop = Stop()
    with stop.listening(), stop.at_once():
        if not (child := os.fork()):
            code = 1
            try:
                os.kill(os.getpid(), signal.Signals[name])
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stop.asked is None


def start(*words: object, **more: object) -> subprocess.Popen[str]:
    """A command of its own, in a group of its own."""
    return subprocess.Popen(
        [*map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **more,
    )


def comes(what: Callable[[], bool], within: float = 120) -> None:
    """Wait until something is so."""
    until = time.monotonic() + within
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


LONG = [*WORDS, "trainer.epochs=100000"]


def test_the_whole_group_gets_the_signal(tmp_path):
    """As a terminal and a scheduler send it: loader processes get it too, and say nothing."""
    words = [*LONG, "num_workers=2", "trainer.save_every=1000000", f"save_dir={tmp_path}"]
    process = start(sys.executable, "training.py", *words)
    comes(lambda: (tmp_path / "metrics.jsonl").exists() and bool((tmp_path / "metrics.jsonl").read_text()))
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "Traceback" not in output
    assert "interrupted: SIGINT: " in output
    assert f"python training.py --resume {tmp_path}" in output
    assert read_saved(tmp_path).state["epoch"] >= 1


def test_torchrun_passes_the_signal_on_and_all_processes_end(tmp_path):
    words = [*LONG, "trainer.save_every=1000000", f"save_dir={tmp_path}"]
    launcher = start(*TORCHRUN, "--nproc_per_node=2", "training.py", *words)
    comes(lambda: (tmp_path / "metrics.jsonl").exists() and bool((tmp_path / "metrics.jsonl").read_text()))
    launcher.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=90)
    assert output.count("interrupted: SIGTERM: ") == 1, output
    assert read_saved(tmp_path).state["epoch"] >= 1
    assert not _processes_of(tmp_path)


def test_processes_end_with_their_launcher(tmp_path):
    """A launcher that is killed cannot pass anything on: Linux tells its processes."""
    words = [*LONG, "trainer.save_every=1000000", f"save_dir={tmp_path}"]
    launcher = start(*TORCHRUN, "--nproc_per_node=2", "training.py", *words)
    comes(lambda: (tmp_path / "metrics.jsonl").exists() and bool((tmp_path / "metrics.jsonl").read_text()))
    assert _processes_of(tmp_path)
    launcher.kill()
    comes(lambda: not _processes_of(tmp_path), 60)
    assert read_saved(tmp_path).state["epoch"] >= 1


def _processes_of(folder: Path) -> list[int]:
    """Processes that have the folder in their command, launchers aside."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_bytes()
            zombie = ") Z " in (place / "stat").read_text()
        except OSError:
            continue
        if str(folder).encode() in line and b"torch.distributed.run" not in line and not zombie:
            found.append(int(place.name))
    return found


DYING = """
import os, signal
from tests.reliability.small import Small

class Dying(Small):
    "Dies in the 5th step of what torchrun starts first."
    steps = 0

    def forward(self, image):
        if self.training:
            Dying.steps += 1
            first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
            if Dying.steps == 5 and first and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(image)
"""


@pytest.mark.slow
def test_torchruns_restarts_go_on_from_the_checkpoint(tmp_path, command):
    network = tmp_path / "dying.py"
    network.write_text(DYING)
    words = [f"model={network}:Dying", *WORDS[1:], f"save_dir={tmp_path / 'run'}", "--resume", "auto"]
    done = command(*TORCHRUN, "--nproc_per_node=2", "--max-restarts=1", "training.py", *words)
    assert done.returncode == 0, done.stderr
    assert "resumed after epoch " in done.stdout
    log = (tmp_path / "run/train.log").read_text(encoding="utf-8")
    assert [log.count(f"INFO epoch {number}/3") for number in (1, 2, 3)] == [1, 1, 1]
