"""What the processes of a run agree on before they meet, also after torchrun has started them again.

With ``--rdzv-backend=c10d`` torchrun's store outlives a restart, and what processes that have ended left
there would be taken for those of now: gloo connects to where nobody listens. So each start writes under a
name of its own.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

from sam_spl.errors import InputError

_PAUSE = 0.05  # seconds between two looks at the store


def agreed_name(store: Store, rank: int, size: int, timeout: timedelta) -> str:
    """A name that the processes of this start have in common, and none of an earlier one.

    Each process asks with a word that nobody has used, and takes no answer to another. Numbers would not do:
    torchrun counts restarts on each machine for itself.

    Args:
        store: of the run, as new or as an earlier start has left it.
        rank: of this process.
        size: number of processes.
        timeout: in which all have to ask.

    Raises:
        InputError: they do not.
    """
    until = time.monotonic() + timeout.total_seconds()
    word = uuid.uuid4().hex
    if rank:
        store.set(f"asks/{rank}", word)
        while True:
            asked, _, name = _read(store, f"answer/{rank}").partition(" ")
            if asked == word:
                store.set(f"knows/{rank}", name)
                return name
            _pause(until)
    missing = set(range(1, size))
    while missing:
        for one in missing:
            asked = _read(store, f"asks/{one}")  # of now, or left by a process that has ended
            if asked and _read(store, f"answer/{one}") != f"{asked} {word}":
                store.set(f"answer/{one}", f"{asked} {word}")
        missing = {one for one in missing if _read(store, f"knows/{one}") != word}
        if missing:
            _pause(until)
    return word


def _read(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def _pause(until: float) -> None:
    if time.monotonic() > until:
        raise InputError("the other processes of this run have not come. Start all of them again.")
    time.sleep(_PAUSE)
