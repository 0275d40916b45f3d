"""Processes agree on a name that no earlier start has used, whatever it has left in the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from sam_spl.errors import InputError
from sam_spl.rendezvous import agreed_name

MINUTE = timedelta(minutes=1)


def start(store: dist.Store, ranks: range | list[int], size: int, timeout: timedelta = MINUTE) -> list[str]:
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: agreed_name(store, rank, size, timeout), ranks))


@pytest.mark.parametrize("size", [2, 5])
def test_every_start_agrees_on_a_name_of_its_own(size):
    store = dist.HashStore()
    names = [start(store, range(size), size) for _ in range(4)]
    assert [len(set(of_one)) for of_one in names] == [1] * 4
    assert len({of_one[0] for of_one in names}) == 4


def test_a_start_that_broke_off_leaves_nothing_behind_that_counts():
    store = dist.HashStore()
    moment = timedelta(seconds=0.3)
    for ranks in ([0, 2], [1, 2], [0]):  # not all of three came
        with pytest.raises(InputError, match=r"have not come. Start all of them again"):
            start(store, ranks, 3, moment)
    assert len(set(start(store, [2, 1, 0], 3))) == 1
