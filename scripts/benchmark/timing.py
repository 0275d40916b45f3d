"""The clock: work in turn, round by round, and the stages of a piece of work."""

from __future__ import annotations

import contextlib
import io
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

import torch

K = TypeVar("K", bound=Hashable)


@dataclass
class Times:
    """Seconds of the first call, which warms up, and of the rounds after it; and of the stages in them."""

    first: float = 0.0
    rounds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def interleaved(
    work: Mapping[K, Callable[[], object]],
    repeat: int,
    device: torch.device,
    *,
    limit: float = float("inf"),
) -> dict[K, Times]:
    """Time each in turn in every round, so that a drift of the machine affects all equally.

    Args:
        work: by name; a dictionary that it returns holds the seconds of its stages.
        repeat: rounds.
        device: whose queue is waited for.
        limit: no round is begun after so many seconds, but for the first.
    """
    times = {name: Times() for name in work}
    started = time.perf_counter()
    for round_ in range(repeat + 1):
        if round_ > 1 and time.perf_counter() - started > limit:
            break
        for name, call in work.items():
            synchronise(device)
            start = time.perf_counter()
            stages = call()
            synchronise(device)
            seconds = time.perf_counter() - start
            if not round_:
                times[name].first = seconds
                continue
            times[name].rounds.append(seconds)
            for stage, of in stages.items() if isinstance(stages, dict) else ():
                times[name].stages[stage].append(of)
    return times


class Stopwatch:
    """Seconds by stage. On an accelerator each stage waits until its own work is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what the block takes to a stage."""
        synchronise(self.device)
        start = time.perf_counter()
        try:
            yield
        finally:
            synchronise(self.device)
            self.seconds[name] += time.perf_counter() - start

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls are added to a stage."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return call


def synchronise(device: torch.device) -> None:
    """Wait for what a device has queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without tables, progress bars and warnings of what is measured."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
