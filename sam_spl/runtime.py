"""Device, precision, determinism and processes: the one place that reads the environment."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import cv2
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.nn.functional import all_reduce
from torch.distributed.rendezvous import rendezvous

from sam_spl.errors import ConfigError, InputError
from sam_spl.rendezvous import agreed_name

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGE = 192 * 2**20  # bytes: above any tensor of a frame of 1920 x 1088


@dataclass(frozen=True)
class World:
    """This process among all of a run.

    Attributes:
        rank: 0 writes files and talks.
        size: number of processes.
        device: this process's device.
        precision: dtype of autocast, None for float32.
        tf32: float32 is multiplied as TF32, of 10 bits, on CUDA.
    """

    rank: int
    size: int
    device: torch.device
    precision: torch.dtype | None = None
    tf32: bool = False

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    @property
    def precision_name(self) -> str:
        """The dtype of the forward pass, as results state it."""
        return "tf32" if self.tf32 else str(self.precision or torch.float32).removeprefix("torch.")

    def at(self, precision: str) -> World:
        """This process, computing at another precision: ``auto``, ``fp32``, ``tf32``, ``bf16`` or ``fp16``.

        Raises:
            InputError: TF32 elsewhere than on CUDA.
        """
        if precision == "tf32":
            if self.device.type != "cuda":
                raise InputError(
                    f"precision: tf32 needs a CUDA device, not {self.device.type}. Choose fp32, bf16 or auto."
                )
            return replace(self, precision=None, tf32=True)
        return replace(self, precision=pick_precision(precision, self.device), tf32=False)

    def autocast(self) -> torch.autocast:
        """Context of the forward pass. How float32 is multiplied holds for the backward pass too."""
        multiply_float32(tf32=self.tf32)
        return torch.autocast(
            self.device.type, self.precision or torch.bfloat16, enabled=self.precision is not None
        )

    def any(self, flags: Tensor) -> Tensor:
        """Whether each flag is set in any process, on the device."""
        if self.size == 1:
            return flags
        numbers = flags.to(torch.float32)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
        return numbers > 0

    def any_of(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        if self.size == 1:
            return flag
        return bool(self.any(torch.tensor([flag], device=self.device)).item())

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
def distributed(device: str, *, use_ddp: bool = False, deterministic: bool = False) -> Iterator[World]:
    """Join torchrun's processes, if there are any, and choose the device.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        use_ddp: the user expects torchrun.
        deterministic: on CUDA, use algorithms that give equal bits in every run; PyTorch warns of operations
            that have none. False: the fastest, measured for each size. A CPU's results are
            equal in every run with both.

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
        choose_algorithms(deterministic=deterministic)
    world = World(rank, size, chosen)
    if size == 1:
        yield world
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_launcher()
    on_gpu = chosen.type == "cuda"
    timeout = timedelta(minutes=30)
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        store = PrefixStore(agreed_name(store, rank, size, timeout), store)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=timeout,
        device_id=chosen if on_gpu else None,
    )
    try:
        yield world
    finally:
        gc.collect()  # a DistributedDataParallel that outlives its group may abort the process
        dist.destroy_process_group()


def sum_of_processes(x: Tensor) -> Tensor:
    """The sum over the processes of a run, through which gradients flow; ``x`` itself where it is one."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    summed: Tensor = all_reduce(x.contiguous())
    return summed


def end_with_launcher(patience: float = 120.0) -> None:
    """Have Linux send SIGTERM to this process when the one that started it, torchrun say, ends.

    While it waits for another process it does not see the signal: ``patience`` seconds later it is ended.
    """
    if sys.platform != "linux":
        return
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))

    def outlive() -> None:
        while os.getppid() == launcher:
            time.sleep(min(patience, 5.0))
        time.sleep(patience)
        os._exit(1)

    threading.Thread(target=outlive, daemon=True).start()


def start_loader_process(_: int) -> None:
    """In a loader process: leave Ctrl-C and SIGUSR1, which reach the whole group, to the main process.

    Objects that the two share are left alone too: where the garbage collector looks at one, a page is copied.
    """
    gc.freeze()
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return "DefaultCPUAllocator" in text or "not enough memory" in text or "CUDA out of memory" in text


@contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, by which systems and schedulers end a process, do what Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which takes signals
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let OpenCV work in one thread: images are small, and loader processes share the cores."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def keep_onnxruntime_to_itself() -> None:
    """Before its first import: it writes a number of this computer into the home folder, for its maker.

    ``ORT_DISABLE_TELEMETRY`` may say otherwise.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@contextmanager
def quiet_ffmpeg() -> Iterator[None]:
    """Open a video without what OpenCV and FFmpeg write to the console about a damaged one.

    FFmpeg stays quiet from the first use on, unless ``OPENCV_FFMPEG_LOGLEVEL`` says otherwise.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, with channels last in memory, where convolutions are fastest."""
    if device.type == "cpu":
        keep_freed_memory()
    # PyTorch's stubs do not declare memory_format.
    placed: nn.Module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def keep_freed_memory() -> None:
    """Let the C library keep what PyTorch frees on a CPU, for the next tensor.

    glibc gives large blocks back to the system at once, and each new one then comes page by page: a fifth of
    DATransNet's forward pass. Tensors of very large frames go back all the same: kept, they leave gaps that
    the next one does not fit, and double the memory at 2048 x 2048. Other libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def cache_folder() -> Path:
    """Where what can be made again is kept for the next run: ``SAM_SPL_CACHE``, else the user's cache."""
    own, users = os.environ.get("SAM_SPL_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).expanduser() if own else Path(users or Path.home() / ".cache") / "sam_spl"


def cpp_compiler() -> str | None:
    """The C++ compiler that PyTorch would compile with, if there is one."""
    return shutil.which(os.environ.get("CXX") or "g++") or shutil.which("clang++")


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


def choose_algorithms(*, deterministic: bool) -> None:
    """On CUDA, algorithms that give equal bits in every run, or the fastest for each size, by trying."""
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    # Operations that have no such algorithm, some maxima and reflections, are named in a warning.
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


def promise_float32() -> None:
    """Multiply float32 as float32 on CUDA: cuDNN rounds it to TF32's 10 bits by default."""
    multiply_float32(tf32=False)


def multiply_float32(*, tf32: bool) -> None:
    """Multiply float32 as TF32 on CUDA, or as float32."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


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
