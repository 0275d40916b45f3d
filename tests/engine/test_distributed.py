"""Real processes over gloo: the published torchrun command, and scores that do not depend on their number."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from sam_spl.cli.main import finish
from sam_spl.errors import InputError
from sam_spl.runtime import (
    World,
    choose_algorithms,
    distributed,
    pick_device,
    pick_precision,
    promise_float32,
)
from tests.conftest import ROOT, TINY_OVERRIDES, write_folder

TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nnodes=1",
    "--rdzv-backend=c10d",
    "--rdzv-endpoint=localhost:0",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Seven images to test on: a number that neither two nor three processes divide."""
    root = tmp_path_factory.mktemp("ddp") / "mine"
    return write_folder(
        root, count=14, size=(64, 64), lists={"train": list(range(7)), "test": list(range(7, 14))}
    )


@pytest.fixture(scope="module")
def run_folder(data, command) -> Path:
    """Trained by two processes with the published command."""
    folder = data.parent / "run"
    flags = (
        f"--batch_size 2 --image_size 64 --lr 1e-3 --epoch 2 --dataset custom --data_path {data} "
        f"--save_dir {folder} --use_ddp --device cpu trainer.selection=test"
    )
    done = command(*TORCHRUN, "--nproc_per_node=2", "training.py", *flags.split(), *TINY_OVERRIDES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1  # one process speaks
    assert "2 processes" in done.stdout
    assert f"Test with: python testing.py --weights {folder}" in done.stdout  # as it was started
    return folder


def test_two_processes_write_one_run(run_folder):
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"last.pt", "best.pt", "best.safetensors", "config.yaml", "train.log"} <= {
        p.name for p in run_folder.iterdir()
    }


@pytest.mark.parametrize("processes", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_scores_have_the_same_digits_with_any_number_of_processes(
    processes, run_folder, data, command, tmp_path
):
    flags = f"--dataset custom --data_path {data} --device cpu --weights {run_folder} output_dir={tmp_path}"
    start = [*TORCHRUN, f"--nproc_per_node={processes}"] if processes > 1 else [sys.executable]
    done = command(*start, "testing.py", *flags.split())
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["scores"]["images"] == 7
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: row["iou"])  # scored by two processes while training
    assert {key: result["scores"][key] for key in ("iou", "niou", "f1", "pd", "fa")} == {
        key: best[key] for key in ("iou", "niou", "f1", "pd", "fa")
    }


def _error_lines(done) -> list[str]:
    """What the processes say of an error, without what torchrun says of them."""
    return [line for line in done.stderr.splitlines() if line.startswith(("error:", "[rank"))]


def test_an_error_of_all_processes_is_told_once(command):
    done = command(*TORCHRUN, "--nproc_per_node=2", "training.py", "--dataset", "nosuch")
    (line,) = _error_lines(done)
    assert line.startswith("error: dataset: 'nosuch' is unknown")
    assert "exitcode  : 2" in done.stderr.partition("Root Cause")[2]


def test_an_error_of_one_process_ends_the_others_without_traceback(run_folder, data, command):
    """Rank 0 alone looks at the folder, which holds a run; the other process waits for it."""
    words = (
        f"--batch_size 2 --image_size 64 --epoch 2 --dataset custom --data_path {data} --use_ddp --device cpu"
    )
    start = [*TORCHRUN, "--nproc_per_node=2", "training.py", *words.split(), *TINY_OVERRIDES]
    done = command(*start, "--save_dir", run_folder)
    (line,) = _error_lines(done)
    assert line.startswith(f"error: save_dir: {run_folder} holds a run already")
    assert "exitcode  : 2" in done.stderr.partition("Root Cause")[2]


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")

    def faulty():
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        finish(faulty)


def test_gradients_of_two_processes_are_the_mean_of_their_batches(command, tmp_path):
    script = tmp_path / "gradients.py"
    script.write_text(
        f"""
import sys
import torch
from torch.nn.parallel import DistributedDataParallel
sys.path.insert(0, {str(ROOT)!r})
from sam_spl.runtime import distributed
from sam_spl.models.registry import build_model
from tests.conftest import TINY

torch.manual_seed(0)
model = build_model("sam_spl_t", **TINY).double().eval()  # BatchNorm in evaluation: images do not meet
images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
with distributed("cpu") as world:
    sum(x.mean() for x in model(images)).backward()
    alone = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    shared = DistributedDataParallel(model)
    sum(x.mean() for x in shared(images[world.rank : world.rank + 1])).backward()
    for a, p in zip(alone, model.parameters()):
        torch.testing.assert_close(a, p.grad, rtol=1e-9, atol=1e-14)
    assert world.mean(float(world.rank)) == 0.5
    flags = torch.tensor([world.rank == 1, False, True])
    assert world.any(flags).tolist() == [True, False, True]
    assert world.gather([world.rank]) == [[0], [1]]
    del shared
print("agreed")
"""
    )
    done = command(*TORCHRUN, "--nproc_per_node=2", str(script))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agreed") == 2


def test_devices_that_are_not_there_are_refused():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="cuda:99 is not there"):
        pick_device("cuda:99")
    with pytest.raises(InputError, match="is not a device"):
        pick_device("gpu0")


def test_float32_is_float32():
    torch.backends.cudnn.allow_tf32 = True
    with distributed("cpu"):
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32


def test_precision():
    cpu = torch.device("cpu")
    assert pick_precision("fp32", cpu) is None
    assert pick_precision("bf16", cpu) is torch.bfloat16
    with World(0, 1, cpu, torch.bfloat16).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with World(0, 1, cpu, None).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.fixture
def flags(monkeypatch):
    """PyTorch's global choices are after the test what they were before it."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    yield
    cudnn.benchmark, cudnn.deterministic = before
    torch.use_deterministic_algorithms(False)
    promise_float32()


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_tf32_is_of_cuda_alone_and_holds_from_a_forward_pass_to_the_next(flags):
    with pytest.raises(InputError, match="tf32 needs a CUDA device, not cpu"):
        World(0, 1, torch.device("cpu")).at("tf32")
    world = World(0, 1, torch.device("cuda"), torch.bfloat16).at("tf32")
    assert (world.precision, world.precision_name) == (None, "tf32")
    for one, tf32 in ((world, True), (world.at("fp32"), False), (world, True), (world.at("bf16"), False)):
        one.autocast()
        assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == tf32


def test_deterministic_chooses_algorithms_on_cuda_and_nothing_on_a_cpu(flags):
    with distributed("cpu", deterministic=True):
        assert not torch.are_deterministic_algorithms_enabled()
    choose_algorithms(deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()  # or maxima could not be trained
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    choose_algorithms(deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (True, False)
