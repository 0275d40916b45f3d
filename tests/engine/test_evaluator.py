"""Batches of equal sizes, counting beside the forward pass, and maps from the process that predicted them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from sam_spl.data.dataset import MOST_PIXELS, EvaluationSet, collate_evaluation
from sam_spl.data.normalise import Normalise
from sam_spl.data.sources import Joined
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.engine.evaluator import evaluate
from sam_spl.metrics import PROTOCOLS, protocols_named
from sam_spl.runtime import World

CPU = World(0, 1, torch.device("cpu"), None)


class _Zeros(nn.Module):
    """A network that pads by its own rule: with zeros, which no batch may put in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 9, padding=4)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        self.shapes.append(tuple(image.shape))
        return [self.conv(image) * 20]


@pytest.fixture
def images() -> EvaluationSet:
    """Seven images of three sizes, mixed."""
    a, b, c = (SyntheticSource(3, size, seed=1) for size in ((40, 50), (40, 64), (33, 50)))
    source = Joined([a, b, a, c], ["a", "b", "c", "d"])
    return EvaluationSet(source, None, Normalise((0.2,), (0.3,), 1))


def _counts(images, batch_size, **arguments):
    torch.manual_seed(0)
    model, maps = _Zeros(), {}
    with torch.no_grad():
        counts = evaluate(
            model,
            images,
            CPU,
            protocols=protocols_named(PROTOCOLS),
            detailed=True,
            input_size=48,
            batch_size=batch_size,
            keep=maps.__setitem__,
            **arguments,
        )
    return counts, maps, model.shapes


def test_images_of_equal_size_are_predicted_together_and_answers_stay_the_same(images):
    one, maps_of_one, shapes_of_one = _counts(images, 1)
    several, maps, shapes = _counts(images, 12)
    assert (len(shapes_of_one), sorted(shape[0] for shape in shapes)) == (12, [3, 3, 6])
    assert list(several.indices) == list(range(12))
    for index, prob in maps.items():  # convolutions of other batch sizes may round otherwise
        np.testing.assert_allclose(prob, maps_of_one[index], atol=1e-5)
        assert prob.shape == images[index]["size"]
    for view in one.views:
        np.testing.assert_array_equal(several.views[view], one.views[view])
    np.testing.assert_array_equal(several.curves, one.curves)


def test_a_batch_ends_where_its_pixels_would_be_too_many():
    side = int((MOST_PIXELS // 2.5) ** 0.5)  # two fit
    sample = {"image": torch.zeros(1, side, side), "index": 0}
    batches = collate_evaluation([{**sample, "index": k} for k in range(5)])
    assert [batch["index"] for batch in batches] == [[0, 1], [2, 3], [4]]
    huge = {"image": torch.zeros(1, 1, 1).expand(1, 10_000, 10_000), "index": 0}
    assert len(collate_evaluation([huge | {"image": huge["image"][..., :400]}])) == 1


def test_the_order_of_counting_does_not_depend_on_time(images):
    """The first image is counted last: its counts still are the first."""
    expected, _, _ = _counts(images, 12)
    later, seen, lock = threading.Event(), [], threading.Lock()

    def keep(index: int, prob: np.ndarray) -> None:
        if index == 0:
            later.wait(30)
        with lock:
            seen.append(index)
            if len(seen) == len(images) - 1:
                later.set()

    torch.manual_seed(0)
    with torch.no_grad():
        counts = evaluate(_Zeros(), images, CPU, detailed=True, batch_size=12, keep=keep)
    assert seen[-1] == 0
    np.testing.assert_array_equal(counts.indices, expected.indices)
    np.testing.assert_array_equal(counts.curves, expected.curves)


def test_a_fault_while_counting_stops_the_evaluation(images):
    def keep(index: int, prob: np.ndarray) -> None:
        if index == 4:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        evaluate(_Zeros(), images, CPU, keep=keep)
