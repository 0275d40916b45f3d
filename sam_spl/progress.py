"""How far a long loop is: a bar in a terminal, a line a minute where the output goes into a file."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType

from tqdm import tqdm

_EVERY = 60.0  # seconds between lines: a job's log of ten hours has 600


class Progress:
    """Counts what is done of a whole, on stderr; nothing stays there of a bar.

    Args:
        title: what is done.
        unit: of what is counted.
        total: how many there are; :meth:`expect` adds to it.
        done: how many were done before.
        shown: by one process of several.
    """

    def __init__(self, title: str, unit: str, total: int = 0, *, done: int = 0, shown: bool = True) -> None:
        self._title, self._unit, self._total, self._done = title, unit, total, done
        self._bar = tqdm(
            total=total, initial=done, desc=title, unit=unit, leave=False, disable=None if shown else True
        )
        self._in_lines = shown and bool(self._bar.disable)  # which it is by itself outside of a terminal
        self._started = self._told = time.monotonic()

    def add(self, count: int = 1, note: str = "") -> None:
        """So many more are done; ``note`` is shown beside them."""
        self._done += count
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        now = time.monotonic()
        if self._in_lines and now - self._told >= _EVERY:
            self._told = now
            took = timedelta(seconds=round(now - self._started))
            parts = [f"{self._title}: {self._done} of {self._total} {self._unit}", f"{took}"]
            print(", ".join([*parts, *([note] if note else [])]), file=sys.stderr, flush=True)

    def expect(self, count: int) -> None:
        """There are so many more than was known."""
        self._total += count
        self._bar.total = self._total

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
