"""Training on a GPU: float16 with a scaled loss, runs that repeat each other, resuming, and NCCL."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import sam_spl
from sam_spl.data.normalise import Normalise
from sam_spl.engine import update
from sam_spl.runtime import World
from tests.conftest import TINY_OVERRIDES, Run, config_of, results_in, train, write_folder
from tests.engine.test_distributed import TORCHRUN

SMALL = [
    *TINY_OVERRIDES,
    "recipe=scratch",
    "dataset.image_size=64",
    "dataset.synthetic.train=8",
    "dataset.synthetic.val=2",
    "trainer.batch_size=4",
    "optimizer.lr=1e-3",
    "precision=fp32",
]


def _losses(folder: Path, *words: str) -> list[float]:
    """The loss of each epoch of a run, whose words are added to ``SMALL``."""
    train([*SMALL, f"save_dir={folder}", *words])
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _repeats(losses: list[float], device: str) -> object:
    """What a run with the same seed has to give.

    Equal losses on a CPU. On CUDA the gradients of interpolation and padding are summed in no fixed order, so
    their last bits differ, and the difference grows with every step. Another seed changes the losses by more
    than 1e-2.
    """
    return losses if device == "cpu" else pytest.approx(losses, rel=1e-3)


def test_one_seed_gives_one_run(device, tmp_path):
    words = [f"device={device}", "trainer.epochs=2"]
    losses = _losses(tmp_path / "a", *words)
    assert _losses(tmp_path / "b", *words) == _repeats(losses, device)
    assert _losses(tmp_path / "c", *words, "seed=1") != pytest.approx(losses, rel=1e-2)


def test_a_resumed_run_gives_the_losses_of_an_uninterrupted_one(device, tmp_path):
    words = [f"device={device}", "trainer.ema_decay=0.5", "optimizer.schedule=multistep"]
    losses = _losses(tmp_path / "a", *words, "trainer.epochs=3")
    _losses(tmp_path / "b", *words, "trainer.epochs=1")
    assert _losses(tmp_path / "b", "resume=auto", *words, "trainer.epochs=3") == _repeats(losses, device)


def test_float16_trains_with_a_scaled_loss(device, tmp_path):
    words = [f"device={device}", "trainer.epochs=2"]
    single = _losses(tmp_path / "single", *words)
    half = _losses(tmp_path / "half", *words, "precision=fp16")
    assert half == pytest.approx(single, rel=0.02)
    assert half != single
    last = torch.load(tmp_path / "half" / "last.pt", weights_only=True)
    assert last["scaler"]["scale"] >= 1024
    assert (tmp_path / "half" / "best.safetensors").is_file()


def test_a_step_whose_gradients_overflow_is_left_out(device, tmp_path, monkeypatch):
    monkeypatch.setattr(update, "GradScaler", partial(update.GradScaler, init_scale=2.0**100))
    train([*SMALL, f"save_dir={tmp_path}", f"device={device}", "trainer.epochs=1", "precision=fp16"])
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert last["scaler"]["scale"] == 2.0**98  # halved at each of the two steps
    assert last["optimizer"]["state"] == {}


def test_gradients_that_no_scale_mends_are_bad_steps(device):
    model = torch.nn.Conv2d(1, 1, 1).to(device)
    model.weight.register_hook(lambda gradient: gradient * math.nan)
    world = World(0, 1, torch.device(device), torch.float16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = update.Update(
        *(model, model, lambda logits, mask: (logits - mask).square().mean(), Normalise((0.0,), (1.0,), 1)),
        *(optimizer, None, 0.0, world),
    )
    batch = {"image": [torch.ones(1, 8, 8, dtype=torch.uint8)], "mask": torch.ones(1, 1, 8, 8), "name": ["x"]}
    bad = [step([batch]).bad for _ in range(20)]
    assert bad == [False] * 17 + [True] * 3  # from 2^16 the scale is halved down to 1, then to a half


@pytest.fixture
def alone(device, tmp_path):
    """A group of one process, over NCCL on CUDA. Its world says two, so that everything is gathered."""
    if device == "cuda":
        torch.cuda.set_device(0)
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group({"cpu": "gloo", "cuda": "nccl"}[device], store=store, rank=0, world_size=1)
    yield World(0, 2, torch.device("cpu") if device == "cpu" else torch.device("cuda", 0))
    dist.destroy_process_group()


def test_collectives_run_on_the_device(alone):
    assert alone.any(torch.tensor([True, False], device=alone.device)).tolist() == [True, False]
    assert alone.mean(3.0) == 1.5
    batch_norm = torch.nn.BatchNorm2d(2).to(alone.device)
    alone.share_buffers(batch_norm)
    assert batch_norm.running_var.tolist() == [1, 1]
    alone.barrier()


def test_training_runs_in_a_group_of_processes(alone, device, tmp_path):
    words = [*SMALL, f"device={device}", "trainer.epochs=1", f"save_dir={tmp_path / 'run'}"]
    run = sam_spl.train(config_of("train", words), world=alone)
    (row,) = run.history
    assert row["loss"] > 0
    assert run.best.is_file()


@pytest.mark.parametrize(
    ("device", "processes"),
    [
        pytest.param("cpu", 1, marks=pytest.mark.slow),
        pytest.param("cuda", 1, marks=pytest.mark.gpu),
        pytest.param("cuda", 2, marks=pytest.mark.gpu),
    ],
    indirect=["device"],
)
def test_torchrun_trains_and_tests_on_the_device(processes, device, command: Run, tmp_path):
    """The published command; more processes on a CPU are in tests/engine/test_distributed.py."""
    if device == "cuda" and torch.cuda.device_count() < processes:
        pytest.skip(f"needs {processes} CUDA devices")
    data = write_folder(tmp_path / "mine", lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    start = [*TORCHRUN, f"--nproc_per_node={processes}"]
    flags = f"--batch_size 2 --image_size 64 --lr 1e-3 --epoch 1 --dataset custom --data_path {data}"
    folder = tmp_path / "run"
    words = [*flags.split(), "--save_dir", folder, "--device", device, "--use_ddp", *TINY_OVERRIDES]
    done = command(*start, "training.py", *words)
    assert done.returncode == 0, done.stderr
    assert f"on {device}" in done.stdout
    words = f"--dataset custom --data_path {data} --weights {folder} --device {device}".split()
    done = command(*start, "testing.py", *words)
    assert done.returncode == 0, done.stderr
    assert results_in(folder)["scores"]["images"] == 2
