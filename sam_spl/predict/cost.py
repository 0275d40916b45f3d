"""What a network costs: parameters, multiplications, memory and time of one image."""

from __future__ import annotations

import copy
import ctypes
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sam_spl.models.registry import channels_of
from sam_spl.runtime import World, place


@dataclass(frozen=True)
class Cost:
    """What a network costs at batch 1.

    Attributes:
        parameters: numbers that it holds.
        trained: of those, the ones that training changes.
        used: of those, the ones that the finest logits depend on, which are what prediction needs.
        macs: multiplications with an addition in matrix products and convolutions, as computed here.
        memory: bytes that a pass needs at its peak, besides the weights; None where that is not measured.
        seconds: median time of a pass.
    """

    parameters: int
    trained: int
    used: int
    macs: int
    memory: int | None
    seconds: float


def cost_of(model: nn.Module, size: tuple[int, int], world: World, repeat: int) -> Cost:
    """Measure a network on one image.

    Args:
        model: on the CPU; left in evaluation mode, on the device.
        size: (H, W) of the image in pixels.
        world: device and precision.
        repeat: passes that are timed, after two that are not.
    """
    model.eval()
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    used, macs = used_parameters(model), macs_of(model, size)
    placed = place(model, world.device)
    image = torch.rand(1, channels_of(model), *size, device=world.device)
    image = image.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> None:
        with world.autocast():
            placed(image)
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)

    memory = _peak(run, world.device)
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return Cost(parameters, trained, used, macs, memory, median(times))


def used_parameters(model: nn.Module) -> int:
    """The numbers that the finest logits are computed from; heads for training alone are not among them."""
    copied = copy.deepcopy(model).eval().requires_grad_(True)
    parameters = list(copied.parameters())
    if not parameters:
        return 0
    logits = copied(torch.rand(1, channels_of(model), 64, 64))[0]
    gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
    return sum(p.numel() for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None)


def macs_of(model: nn.Module, size: tuple[int, int]) -> int:
    """Multiplications, with an addition each, of one image (H, W): matrix products and convolutions."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)  # the counter follows gradients otherwise
    image = torch.rand(1, channels_of(model), *size)
    # Attention as plain products: the counter does not know every fast kernel.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        copied(image)
    return counter.get_total_flops() // 2


def _peak(run: Callable[[], None], device: torch.device) -> int | None:
    """Bytes that the first pass adds at its peak: CUDA's count, or Linux's of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    resident = _reset_peak() if device.type == "cpu" else None
    run()
    return None if resident is None else max(0, _status("VmHWM") - resident)


def _reset_peak() -> int | None:
    """Start Linux's record of this process's largest memory again; the memory now, None elsewhere."""
    with suppress(OSError, AttributeError, ValueError):
        if os.name == "posix":
            ctypes.CDLL(None).malloc_trim(0)  # what loading has freed would hide part of a pass
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return None


def _status(key: str) -> int:
    """A size of ``/proc/self/status``, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
