"""Signals that ask a run to end: it ends at its next step, with everything saved."""

from __future__ import annotations

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
        again = self.asked is not None and number == signal.SIGINT
        self.asked = signal.Signals(number).name
        if again:
            raise KeyboardInterrupt
        if self._at_once:
            self._at_once = False  # once: what cleans up is not to be disturbed
            raise Stopped(self.asked)
