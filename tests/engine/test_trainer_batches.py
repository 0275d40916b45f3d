"""Which images make an epoch's updates, for a network that trains on more than one image at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import train, write_folder
from tests.engine.test_record import failure, state

NETWORK = """
import torch
from torch import nn


class Pairs(nn.Module):
    in_channels = 1
    smallest_batch = 2

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(1, 1, 3, padding=1)
        self.register_buffer("batches", torch.zeros(10))  # that it trained on, by their number of images

    def forward(self, image):
        if self.training:
            self.batches[len(image)] += 1
        return [self.head(image)]
"""


@pytest.fixture
def words(tmp_path) -> list[str]:
    """Seven training images, and a network that wants two at once and counts what it gets."""
    lists = {"train": list(range(7)), "test": [7]}
    data = write_folder(tmp_path / "set", count=8, lists=lists)
    (tmp_path / "pairs.py").write_text(NETWORK)
    return [
        f"model={tmp_path}/pairs.py:Pairs",
        f"dataset.data_path={data}",
        *("dataset=custom", "recipe=scratch", "dataset.image_size=32", "trainer.augment=resize"),
        *("trainer.epochs=2", "device=cpu", "precision=fp32", f"save_dir={tmp_path}/run"),
    ]


@pytest.mark.parametrize(
    ("batch", "accumulate", "sizes"),
    [(3, 1, [3, 3]), (2, 1, [2, 2, 2]), (4, 1, [4, 3]), (2, 2, [2, 2, 2]), (7, 1, [7]), (9, 1, [7])],
)
def test_a_single_image_at_the_end_of_an_epoch_is_left_out(words, batch, accumulate, sizes, tmp_path):
    train([*words, f"trainer.batch_size={batch}", f"trainer.accumulate={accumulate}"])
    batches = state(tmp_path / "run")["model"]["batches"]
    assert batches.tolist() == [2 * sizes.count(size) for size in range(10)]  # two epochs


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["trainer.batch_size=1"], r"trainer\.batch_size: 1 is too small, .*Pairs trains on batches of 2"),
        (["trainer.val_share=0.9", "trainer.batch_size=4"], "1 training images are too few for 1 process"),
    ],
)
def test_batches_that_are_too_small_are_told_before_anything_is_written(
    words, more, message, tmp_path, capsys
):
    code, error = failure([*words, *more], capsys)
    assert code == 1
    assert re.search(message, error)
    assert not Path(tmp_path / "run").exists()
