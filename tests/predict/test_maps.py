"""Answers that are not finite are named; the size of the map that a protocol asks for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sam_spl.data.dataset import EvaluationSet
from sam_spl.data.normalise import Normalise
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.engine.evaluator import evaluate
from sam_spl.errors import InputError
from sam_spl.predict.maps import map_size, probabilities, probability
from sam_spl.predict.predictor import Predictor
from sam_spl.runtime import World


class _Sure(nn.Module):
    """Answers with its image, and one value of its own in the second one it sees."""

    in_channels = 1

    def __init__(self, value: float, after: int) -> None:
        super().__init__()
        self.value, self.left = value, after

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        logits = image.clone()
        if not self.left:
            logits[..., 3, 5] = self.value
        self.left -= 1
        return [logits]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_an_answer_that_is_not_finite_stops_the_evaluation_and_names_the_image(value):
    source, world = SyntheticSource(3, 32, seed=0), World(0, 1, torch.device("cpu"), None)
    images = EvaluationSet(source, 32, Normalise((0.0,), (1.0,)))
    with pytest.raises(InputError, match=f"answer to {source.name(1)} is not finite"):
        evaluate(_Sure(value, after=1), images, world)
    evaluate(_Sure(1e30, after=1), images, world)
    with pytest.raises(InputError, match="answer to the image is not finite"):
        Predictor(_Sure(value, after=0), images.normalise, 32, world)(source.load(0)[0])


@pytest.mark.parametrize(
    ("resolution", "input_size", "size"),
    [("own", 512, (30, 40)), ("input", None, (32, 64)), ("input", 512, (512, 512)), ("256", 512, (256, 256))],
)
def test_a_resolution_is_a_size(resolution, input_size, size):
    assert map_size(resolution, torch.zeros(1, 32, 64), (30, 40), input_size) == size


def test_logits_are_interpolated_not_probabilities():
    """Half way between logits of 8 and -2 lies 3, a probability of 0.95; between the probabilities 0.56."""
    prob = probability(torch.tensor([[[8.0, -2.0]]]), (1, 3))
    assert prob.shape == (1, 3)
    assert prob[0, 1] == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-6)


def test_maps_of_a_batch_are_those_of_each_image():
    """For equal and for different sizes, some asked for twice; other batches may round otherwise."""
    logits = torch.randn(5, 24, 33, generator=torch.Generator().manual_seed(0)) * 4
    sizes = [(24, 33), (48, 40), (17, 19), (48, 40), (24, 33)]
    wanted = [(k, size) for k, size in enumerate(sizes)] + [(k, (31, 37)) for k in range(5)] + [(1, (48, 40))]
    for (number, size), prob in zip(wanted, probabilities(logits, wanted), strict=True):
        assert prob.shape == size
        np.testing.assert_allclose(prob, probability(logits[number, None], size), rtol=3e-7)
    single = torch.nn.functional.interpolate(logits[1, None, None], (48, 40), mode="bilinear")[0, 0].sigmoid()
    np.testing.assert_array_equal(probability(logits[1, None], (48, 40)), single.numpy())
