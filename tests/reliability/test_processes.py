"""N processes with batches of B are one process with batches of N x B, to 1e-5 in float32."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sam_spl.data.normalise import Normalise
from sam_spl.engine.batch_norm import GlobalBatchNorm
from sam_spl.engine.losses import SegmentationLoss
from sam_spl.engine.trainer import Trainer
from sam_spl.engine.update import Update
from sam_spl.runtime import World
from tests.conftest import ROOT, train
from tests.engine.test_distributed import TORCHRUN
from tests.reliability.kills import MODEL

COMMON = [
    "dataset.image_size=64",
    "dataset.synthetic.train=8",
    "dataset.synthetic.val=4",
    "trainer.epochs=2",
    "device=cpu",
    "precision=fp32",
    "optimizer.name=sgd",
    "optimizer.args={momentum: 0.9}",  # Adan's steps do not show a gradient's scale
    "optimizer.lr=0.01",
]
#: Rounding stays rounding in these. SAM-SPL's, of BatchNorm over a few values, grows: see DOUBLE.
NETWORKS = {
    "datransnet": ["model=datransnet", "recipe=datransnet"],
    "small": [MODEL, "recipe=scratch", "loss=soft_iou"],
}


def figures(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows], torch.load(folder / "last.pt", weights_only=True)["model"]


def greatest_difference(one: Path, other: Path) -> float:
    """Of losses and weights, absolute or relative to the greatest value of each, whichever is less."""
    (losses, weights), (others, other_weights) = figures(one), figures(other)
    found = max(abs(a - b) / max(abs(a), 1) for a, b in zip(losses, others, strict=True))
    for name, value in weights.items():
        if value.is_floating_point():
            scale = value.abs().max().clamp_min(1)
            found = max(found, float((value - other_weights[name]).abs().max() / scale))
    return found


@pytest.fixture(scope="module", params=[pytest.param("datransnet", marks=pytest.mark.slow), "small"])
def alone(request, tmp_path_factory) -> tuple[list[str], Path]:
    """The words of a run, and what one process makes of it with batches of 4."""
    words = [*NETWORKS[request.param], *COMMON]
    if request.param == "small":
        # Dropout draws other numbers in each process.
        words += ["model.dropout=0.0"]
    folder = tmp_path_factory.mktemp("alone") / request.param
    train([*words, "trainer.batch_size=4", f"save_dir={folder}"])
    return words, folder


def test_two_processes_equal_one(alone, command, tmp_path):
    words, folder = alone
    start = [*TORCHRUN, "--nproc_per_node=2", "training.py", *words, "trainer.batch_size=2"]
    done = command(*start, f"save_dir={tmp_path / 'two'}", env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "BatchNorm counts the images of all processes (trainer.sync_bn=auto)" in done.stdout
    assert greatest_difference(folder, tmp_path / "two") < 1e-5


#: Three updates in float64, but for the loss, whose float32 is all that differs.
DOUBLE = """
import sys
import torch
from torch.nn.parallel import DistributedDataParallel
from sam_spl.data.normalise import Normalise
from sam_spl.engine.batch_norm import over_all_processes
from sam_spl.engine.losses import SegmentationLoss
from sam_spl.engine.optim import Average
from sam_spl.engine.update import Update
from sam_spl.models.registry import build_model
from sam_spl.runtime import World, distributed
from tests.conftest import TINY

class Exact(Normalise):
    def batch(self, images):
        return super().batch(images).double()

generator = torch.Generator().manual_seed(1)
images = torch.randint(0, 255, (3, 4, 64, 64), generator=generator, dtype=torch.uint8)
masks = torch.rand((3, 4, 1, 64, 64), generator=generator) > 0.95

def updated(world, per_batch, accumulate):
    torch.manual_seed(0)
    model = build_model("sam_spl_t", **TINY).double().train()
    network = model
    if world.size > 1:
        model = network = over_all_processes(model, world.device)
        network = DistributedDataParallel(model, find_unused_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    average = Average(model, 0.9)
    loss = SegmentationLoss(bce=1.0, iou=1.0, iou_over="batch")
    update = Update(model, network, loss, Exact(), optimizer, average, 0.5, world)
    losses = []
    for image, mask in zip(images, masks):
        share = slice(world.rank, None, world.size)
        parts = zip(image[share].split(per_batch), mask[share].split(per_batch))
        batches = [{"image": [i], "mask": m, "name": ["x"] * len(i), "bad": []} for i, m in parts]
        losses.append(update(batches).loss)
    return losses, model.state_dict(), average.module.state_dict()

with distributed("cpu") as world:
    shared = updated(world, 2, 1)
    alone = updated(World(0, 1, world.device), 4, 1)
losses = torch.tensor([shared[0], alone[0]])
greatest = 0.0
for one, other in zip(shared[1:], alone[1:]):
    for name, value in one.items():
        if value.is_floating_point():
            difference = float((value - other[name]).abs().max())
            greatest = max(greatest, difference)
            assert difference < 1e-5 * max(1, float(value.abs().max())), (name, difference)
print("agreed", losses.tolist(), greatest)
"""


def test_sam_spl_on_two_processes_is_the_same_to_rounding(tmp_path, command):
    """Weights, BatchNorm's statistics and averages after three updates with clipped gradients."""
    script = tmp_path / "double.py"
    script.write_text(DOUBLE)
    done = command(*TORCHRUN, "--nproc_per_node=2", script, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agreed") == 2


@pytest.mark.slow
def test_without_synchronised_batchnorm_they_do_not(command, tmp_path):
    """The comparison sees what is left out."""
    words = [*NETWORKS["small"], *COMMON, "model.dropout=0.0"]
    train([*words, "trainer.batch_size=4", f"save_dir={tmp_path / 'one'}"])
    start = [*TORCHRUN, "--nproc_per_node=2", "training.py", *words, "trainer.batch_size=2"]
    done = command(*start, "trainer.sync_bn=false", f"save_dir={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    assert greatest_difference(tmp_path / "one", tmp_path / "two") > 1e-3


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def started_on_each(commands: Iterable[list[str]]) -> None:
    """Run commands side by side, all of which have to end well."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for command in commands
    ]
    outputs = [node.communicate(timeout=200)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(outputs)


@pytest.mark.slow
def test_two_machines_equal_one(tmp_path):
    """A launcher on each of two addresses, as on two nodes of a cluster."""
    words = [*NETWORKS["small"], *COMMON, "model.dropout=0.0"]
    train([*words, "trainer.batch_size=4", f"save_dir={tmp_path / 'one'}"])
    port = free_port()
    started_on_each(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"),
            *(f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}"),
            *(f"--local-addr=127.0.0.{rank + 1}", "training.py", *words, "trainer.batch_size=2"),
            f"save_dir={tmp_path / 'two'}",
        ]
        for rank in (0, 1)
    )
    assert greatest_difference(tmp_path / "one", tmp_path / "two") < 1e-5


def test_processes_that_say_themselves_who_they_are_equal_one(tmp_path):
    """As srun starts them, without torchrun."""
    words, folder = [*NETWORKS["small"], *COMMON, "model.dropout=0.0"], tmp_path / "one"
    train([*words, "trainer.batch_size=4", f"save_dir={folder}"])
    port = free_port()
    started_on_each(
        [
            *("env", f"RANK={rank}", f"LOCAL_RANK={rank}", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1"),
            *(f"MASTER_PORT={port}", sys.executable, "training.py", *words, "trainer.batch_size=2"),
            f"save_dir={tmp_path / 'two'}",
        ]
        for rank in (0, 1)
    )
    assert greatest_difference(folder, tmp_path / "two") < 1e-5


ENDING = """
import os, signal
from tests.reliability.small import Small

class Ending(Small):
    "Is told to end in the second update of its second epoch, if asked to."
    steps = 0

    def forward(self, image):
        Ending.steps += self.training
        if self.training and Ending.steps == 4 and "END" in os.environ:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(image)
"""


@pytest.mark.slow
def test_the_loss_of_an_epoch_that_was_interrupted_is_of_all_its_images(command, tmp_path):
    network = tmp_path / "ending.py"
    network.write_text(ENDING)
    words = [
        f"model={network}:Ending",
        "recipe=scratch",
        *COMMON,
        "model.dropout=0.0",
        "trainer.batch_size=2",
    ]
    start = [*TORCHRUN, "--nproc_per_node=2", "training.py", *words, "--resume", "auto"]
    command(*start, f"save_dir={tmp_path / 'parts'}", env={"END": "1"})
    for name in ("parts", "whole"):
        done = command(*start, f"save_dir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
    assert "resumed after epoch 1" in (tmp_path / "parts/train.log").read_text(encoding="utf-8")
    (losses, _), (others, _) = (figures(tmp_path / name) for name in ("parts", "whole"))
    assert losses == pytest.approx(others, rel=1e-12)


def test_another_number_of_processes_goes_on_and_says_what_changes(command, tmp_path):
    words = [*NETWORKS["small"], *COMMON, "model.dropout=0.0"]
    folder = tmp_path / "run"
    train([*words, "trainer.batch_size=4", f"save_dir={folder}"])
    own = [word for word in words if word == MODEL]
    more = ["--resume", folder, "trainer.epochs=3", "trainer.batch_size=2", *own]
    done = command(*TORCHRUN, "--nproc_per_node=2", "training.py", *more, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "resumed on 2 process(es), before on 1: an update takes as many images" in done.stdout
    train([*words, "trainer.batch_size=4", "trainer.epochs=3", f"save_dir={tmp_path / 'one'}"])
    losses, others = (figures(one)[0] for one in (folder, tmp_path / "one"))
    assert losses[:2] == pytest.approx(others[:2], rel=0.2)  # of another schedule: two epochs, not three
    assert len(losses) == len(others) == 3


def test_random_numbers_of_an_update_follow_from_seed_epoch_step_and_process():
    def drawn(rank: int, seed: int = 0, epoch: int = 0, step: int = 0) -> float:
        torch.manual_seed(7)
        world = World(rank, 4, torch.device("cpu"))
        trainer = SimpleNamespace(world=world, config=SimpleNamespace(seed=seed), epoch=epoch, step=step)
        Trainer.seed_others(trainer)
        return float(torch.rand(()))

    torch.manual_seed(7)
    expected = float(torch.rand(()))
    assert drawn(0) == drawn(0, 1, 2, 3) == expected  # its own go on, and into last.pt
    cases = [(1, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1)]
    assert len({drawn(*case) for case in cases}) == len(cases)
    assert drawn(1) == drawn(1)


WORLD = World(0, 1, torch.device("cpu"))


def _network() -> nn.Module:
    torch.manual_seed(3)
    norm = nn.GroupNorm(2, 8)  # images do not meet in it
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)
    ).double()


class _Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = _network()

    def forward(self, image):
        return [self.net(image.double())]


def _batch(images: torch.Tensor, masks: torch.Tensor) -> dict:
    return {"image": [images], "mask": masks, "name": ["x"] * len(images), "bad": []}


@pytest.mark.parametrize("sizes", [[8], [4, 4], [2, 2, 2, 2], [3, 3, 2]])
@pytest.mark.parametrize("clip", [0.0, 1e-2])
def test_accumulated_batches_are_one_large_one(sizes, clip):
    """Also where the last one of an epoch is smaller."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 255, (8, 16, 16), generator=generator, dtype=torch.uint8)
    masks = torch.rand((8, 1, 16, 16), generator=generator) > 0.9

    def updated(parts: list[int]) -> tuple[list[torch.Tensor], float, float]:
        model = _Maps()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = SegmentationLoss(bce=1.0, iou=1.0, iou_over="image")
        update = Update(
            *(model, model, loss, Normalise((0.5,), (0.2,), 1), optimizer, None, clip, WORLD),
        )
        batches = [_batch(i, m) for i, m in zip(images.split(parts), masks.split(parts), strict=True)]
        outcome = update(batches)
        return [p.detach() for p in model.parameters()], outcome.loss, outcome.norm

    (expected, loss, norm), (got, got_loss, got_norm) = updated([8]), updated(sizes)
    assert got_loss == pytest.approx(loss, rel=1e-6)
    assert got_norm == pytest.approx(norm, rel=1e-6)
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batchnorm_over_one_process_is_pytorchs(momentum):
    torch.manual_seed(1)
    theirs = nn.BatchNorm2d(5, momentum=momentum).double()
    with torch.no_grad():
        theirs.weight.uniform_(0.5, 2)
        theirs.bias.normal_()
    import copy

    ours = GlobalBatchNorm.like(copy.deepcopy(theirs))
    for _ in range(3):
        x = torch.randn(4, 5, 6, 7, dtype=torch.float64, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        a, b = theirs(x), ours(y)
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)
        weight = torch.randn_like(a)
        (a * weight).sum().backward()
        (b * weight).sum().backward()
        torch.testing.assert_close(y.grad, x.grad, rtol=1e-9, atol=1e-12)
    for (name, one), other in zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12, msg=name)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
