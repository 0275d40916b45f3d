"""Device, precision, determinism and processes: the one place that reads the environment."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import cv2
import torch
import torch.distributed as dist
from torch import nn

from sam_spl.errors import ConfigError, InputError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all of a run.

    Attributes:
        rank: 0 writes files and talks.
        size: number of processes.
        device: this process's device.
        precision: dtype of autocast, None for float32.
    """

    rank: int
    size: int
    device: torch.device
    precision: torch.dtype | None = None

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    @property
    def precision_name(self) -> str:
        """The dtype of the forward pass, as results state it."""
        return str(self.precision or torch.float32).removeprefix("torch.")

    def autocast(self) -> torch.autocast:
        """Context of the forward pass."""
        return torch.autocast(
            self.device.type, self.precision or torch.bfloat16, enabled=self.precision is not None
        )

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        tensor = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return bool(tensor.item())

    def mean(self, value: float) -> float:
        """The mean over processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.item() / self.size

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank; any that can be pickled."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process rank 0's buffers: BatchNorm statistics differ by what each has seen."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def distributed(device: str, *, use_ddp: bool = False) -> Iterator[World]:
    """Join torchrun's processes, if there are any, and choose the device.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        use_ddp: the user expects torchrun.

    Raises:
        ConfigError: ``use_ddp`` without torchrun.
        InputError: a device that is not there.
    """
    size = world_size()
    rank, local_rank = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
    if use_ddp and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "--use_ddp: start the processes with torchrun: "
            "torchrun --nproc_per_node=4 training.py ... --use_ddp"
        )
    chosen = pick_device(device, local_rank if size > 1 else None)
    promise_float32()
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.deterministic = True  # a seed fixes a run
    world = World(rank, size, chosen)
    if size == 1:
        yield world
        return
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    try:
        yield world
    finally:
        gc.collect()  # a DistributedDataParallel that outlives its group may abort the process
        dist.destroy_process_group()


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let OpenCV work in one thread: images are small, and loader processes share the cores."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, with channels last in memory, where convolutions are fastest."""
    # PyTorch's stubs do not declare memory_format.
    placed: nn.Module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def world_size() -> int:
    """The number of processes that torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def loader_workers(asked: int | None, device: torch.device) -> int:
    """Loader processes: as asked, else 4 beside a GPU and none on a CPU, which they would share."""
    return asked if asked is not None else 0 if device.type == "cpu" else 4


def pick_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device that ``name`` means; under torchrun, CUDA processes take one each.

    Raises:
        InputError: it is not there, or no device is called so.
    """
    if name == "auto":
        present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        name = next(kind for kind, there in present.items() if there)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(
            f"device: {name!r} is not a device. Choose auto, cpu, cuda, cuda:N or mps."
        ) from error
    if device.type == "cpu":
        return device
    if device.type == "mps" and torch.backends.mps.is_available():
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and count:
        index = local_rank if local_rank is not None else device.index or 0
        if index < count:
            return torch.device("cuda", index)
    has = f"{count} CUDA device(s), numbered from 0" if count else "no CUDA device"
    raise InputError(
        f"device: {name} is not there; this machine has {has}. Choose --device auto or --device cpu."
    )


def promise_float32() -> None:
    """Multiply float32 as float32 on CUDA: cuDNN rounds it to TF32's 10 bits by default."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def pick_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast; ``auto`` is bf16 where the hardware supports it, else float32 (None)."""
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        elif device.type == "cpu":
            fast = any(
                getattr(torch.cpu, probe, bool)()
                for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
            )
        else:
            fast = False
        name = "bf16" if fast else "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
