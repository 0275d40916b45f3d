"""Someone who notices that nothing comes: a mount that hangs raises no error."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WARN_AFTER = 60.0  # seconds
_PATIENCE = 2.0  # seconds


class Watchdog:
    """Watches how long waiting takes, from a thread of its own.

    Args:
        warn: is told, once for each wait, that it takes longer than :data:`WARN_AFTER` seconds.
        limit: seconds of one wait after which the process ends with exit code 1; 0 for none. Nothing else
            helps: a thread that waits for a dead mount cannot be interrupted.
        last_words: what stands on the console then.
        write_down: takes them, too, if it can at once: its file may be on the mount that is dead.
    """

    def __init__(
        self,
        warn: Callable[[float], None],
        limit: float,
        last_words: Callable[[float], str],
        write_down: Callable[[str], None],
    ) -> None:
        self._warn, self._limit, self._last_words, self._write_down = warn, limit, last_words, write_down
        self._since: float | None = None
        self._warned = False

    @contextmanager
    def on_duty(self) -> Iterator[None]:
        """Watch while the block runs."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A wait, as long as the block runs."""
        self._warned, self._since = False, time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(min(WARN_AFTER, self._limit or WARN_AFTER) / 4):
            since = self._since
            waited = time.monotonic() - since if since is not None else 0.0
            if self._limit and waited > self._limit:
                words = self._last_words(waited)
                print(f"error: {words}", file=sys.stderr, flush=True)
                writer = threading.Thread(target=self._write_down, args=(words,), daemon=True)
                writer.start()
                writer.join(_PATIENCE)
                os._exit(1)
            if waited > WARN_AFTER and not self._warned:
                self._warned = True
                self._warn(waited)
