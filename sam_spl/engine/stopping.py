"""Signals that ask a run to end, which it does at its next step; those of loader processes that die."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sam_spl.errors import Stopped

#: Ctrl-C; what schedulers send when the time is up; what they send ahead of it, if told to.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Stop:
    """Whether a signal has asked the run to end.

    Attributes:
        asked: name of the signal, None as long as there was none.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self._at_once = False
        self._process = os.getpid()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals while the block runs; a second Ctrl-C ends the process at once."""
        if threading.current_thread() is not threading.main_thread():  # which takes signals
            yield
            return
        before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While the block runs, a signal ends it where it is.

        Raises:
            Stopped: there was one, or is one now.
        """
        self._at_once = True
        try:
            if self.asked:
                raise Stopped(self.asked)
            yield
        finally:
            self._at_once = False

    def _take(self, number: int, _: object) -> None:
        if os.getpid() != self._process:  # a loader process in its first moment, before it leaves them
            return
        again = self.asked is not None and number == signal.SIGINT
        self.asked = signal.Signals(number).name
        if again:
            raise KeyboardInterrupt
        if self._at_once:
            self._at_once = False  # once: what cleans up is not to be disturbed
            raise Stopped(self.asked)


@contextmanager
def deaths_reported() -> Iterator[None]:
    """Of child processes, as before, after the block; within it :func:`leave_deaths` may be called."""
    handler = signal.getsignal(signal.SIGCHLD) if _takes_deaths() else None
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)


def leave_deaths() -> None:
    """Leave a dead loader process to whoever waits for its images, as PyTorch's loader does every 5 s.

    The handler that PyTorch installs with the first loader raises at once, wherever the program is, so an
    update or a file would be left half made.
    """
    if _takes_deaths():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _takes_deaths() -> bool:
    return hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
