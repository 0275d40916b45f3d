"""A frame in tiles has the probabilities of the whole frame, in little memory."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from sam_spl.data.normalise import Normalise
from sam_spl.models.registry import build_model
from sam_spl.predict.predictor import Predictor
from sam_spl.predict.tiling import predict_tiled, spans
from sam_spl.runtime import World
from tests.conftest import ROOT

CPU = World(0, 1, torch.device("cpu"))


class _Local(nn.Module):
    """A convolution whose answer reaches ``radius`` pixels, and remembers the sizes it saw."""

    in_channels = 1

    def __init__(self, radius: int, stride: int = 1) -> None:
        super().__init__()
        torch.manual_seed(radius)
        self.conv = nn.Conv2d(1, 1, 2 * radius + 1, padding=radius)
        nn.init.normal_(self.conv.weight, std=3 / (2 * radius + 1))
        self.stride, self.seen = stride, []

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        self.seen.append(tuple(image.shape))
        height, width = image.shape[-2:]
        padded = nn.functional.pad(
            image, (0, -width % self.stride, 0, -height % self.stride), mode="replicate"
        )
        pooled = nn.functional.max_pool2d(padded, self.stride)
        logits = self.conv(nn.functional.interpolate(pooled, scale_factor=self.stride))
        return [logits[..., :height, :width]]


def _frame(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def _predictor(model: nn.Module, **options: object) -> Predictor:
    return Predictor(model, Normalise((0.5,), (0.3,), 1), options.pop("image_size", None), CPU, **options)


@pytest.mark.parametrize("tile", [32, 33, 64, 100, 128, 256, 1024])
@pytest.mark.parametrize("aligned", [False, True])
def test_the_weights_of_tiles_sum_up_to_one_and_are_zero_at_inner_edges(tile, aligned):
    grid = min(32, tile // 4) if aligned else 1
    overlap = min(tile // 4, 128)
    for length in [*range(1, 4 * tile, max(1, tile // 17)), tile, tile + 1, 10_000]:
        covers = spans(length, tile, grid)
        total = np.zeros(length)
        for of in covers:
            total[of.where] += of.weight
            assert of.start % grid == 0
            assert len(of.weight) == of.stop - of.start <= tile
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert (covers[0].start, covers[-1].stop) == (0, length)
        assert all(len(of.weight) == tile for of in covers[:-1])
        if length > tile:
            assert len(covers[-1].weight) > tile - grid
        margin = overlap // 4
        for before, after in pairwise(covers):
            assert before.stop - after.start >= overlap
            assert not before.weight[-margin:].any()
            assert not after.weight[:margin].any()


def test_weights_fall_linearly_over_half_of_what_tiles_share():
    before, after = spans(112, 64, 1)
    assert (before.start, before.stop, after.start, after.stop) == (0, 64, 48, 112)
    shared = [0] * 4 + [(k + 0.5) / 8 for k in range(8)] + [1] * 4
    np.testing.assert_allclose(after.weight, [*shared, *[1] * 48], atol=1e-7)
    np.testing.assert_allclose(before.weight, [*[1] * 48, *shared[::-1]], atol=1e-7)


@pytest.mark.parametrize("shape", [(200, 150), (65, 64), (64, 65), (40, 300), (1, 200), (133, 257, 3)])
@pytest.mark.parametrize("image_size", [None, 64])
def test_a_network_that_reaches_less_than_the_margin_gives_the_same_in_tiles(shape, image_size):
    model = _Local(4)  # tiles of 64 share 16 pixels, of which 4 at each inner edge do not count
    frame = _frame(*shape)
    whole = _predictor(model, tile=None)(frame).prob
    assert whole.std() > 0.05
    model.seen.clear()
    tiled = _predictor(model, tile=64, image_size=image_size)(frame).prob
    assert len(model.seen) > 1
    # Replication of a frame narrower than 64 pixels shows only there.
    rows, columns = (
        slice(0, side if side >= 64 or not image_size else max(0, side - 4)) for side in shape[:2]
    )
    np.testing.assert_allclose(tiled[rows, columns], whole[rows, columns], rtol=0, atol=1e-6)


def test_a_network_that_reaches_farther_differs_near_seams_only():
    model, frame = _Local(10), _frame(200, 150)
    whole, tiled = (_predictor(model, tile=tile)(frame).prob for tile in (None, 64))
    apart = np.abs(tiled - whole)
    near = np.zeros(frame.shape, bool)
    for axis, side in enumerate(frame.shape):
        covers = spans(side, 64, 16)
        for seam in (*(of.start for of in covers[1:]), *(of.stop for of in covers[:-1])):
            band = [slice(None)] * 2
            band[axis] = slice(seam - 10, seam + 10)
            near[tuple(band)] = True
    assert near.mean() < 0.9
    assert apart[~near].max() < 1e-6
    assert apart[near].max() > 1e-3


@pytest.mark.parametrize("shape", [(300, 410), (257, 128)])
def test_tiles_pool_the_same_pixels_as_the_frame(shape):
    """Starts are multiples of 32, and the last tile is padded where the whole frame is."""
    frame = _frame(*shape)
    whole, tiled = (_predictor(_Local(1, stride=4), tile=tile)(frame).prob for tile in (None, 128))
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-6)


def test_which_frames_are_tiled():
    def seen(height: int, width: int, **options: object) -> list[tuple[int, int]]:
        model = _Local(1)
        assert _predictor(model, **options)(_frame(height, width)).prob.shape == (height, width)
        return [size[-2:] for size in model.seen]

    assert seen(100, 128, image_size=64) == [(64, 64)]
    assert seen(100, 129, image_size=64) == [(64, 64)] * 6
    assert seen(10, 129, image_size=64) == [(64, 64)] * 3
    assert seen(100, 129, image_size=64, tile=None) == [(64, 64)]
    assert seen(129, 100, image_size=64, tile=128) == [(64, 64)] * 2
    assert seen(100, 128, image_size=64, tile=64) == [(64, 64)] * 6
    assert seen(1088, 1920) == [(1088, 1920)]
    assert seen(1025, 2048) == [(1024, 1024)] * 3 + [(993, 1024)] * 3
    assert seen(1025, 2048, tile=None) == [(1025, 2048)]
    assert seen(100, 100, tile=100) == [(100, 100)]


def test_tiles_go_through_the_network_together_where_asked():
    frame, sizes = _frame(200, 170), []

    def logits_of(pieces: list[np.ndarray]) -> torch.Tensor:
        sizes.append(len(pieces))
        return torch.from_numpy(np.stack(pieces)).float() / 25 - 5

    one = predict_tiled(frame, 64, logits_of, aligned=True)
    assert set(sizes) == {1}
    several = predict_tiled(frame, 64, logits_of, aligned=True, together=3)
    assert max(sizes) == 3
    np.testing.assert_array_equal(several, one)
    np.testing.assert_allclose(one, 1 / (1 + np.exp(5 - frame / 25.0)), atol=1e-6)


def test_a_transformer_agrees_with_itself_away_from_seams():
    """DATransNet sees the whole frame by its non-local block; the tiles' answer is close, not equal."""
    torch.manual_seed(0)
    model = build_model("datransnet").eval()
    frame = np.random.default_rng(1).normal(100, 8, (224, 224)).clip(0, 255).astype(np.uint8)
    whole, tiled = (_predictor(model, tile=tile)(frame).prob for tile in (None, 128))
    assert np.abs(tiled - whole).max() < 0.02
    assert np.corrcoef(tiled.ravel(), whole.ravel())[0, 1] > 0.99


SCENE = """
import resource, sys
import numpy as np, torch
sys.path.insert(0, {root!r})
from tests.predict.test_tiling import _Local, _predictor
frame = np.zeros((10_000, 10_000), np.uint8)
frame[::50] = np.arange(10_000) % 251
tta = {tta}
result = _predictor(_Local(4), threshold=0.9, tta=tta, image_size={image_size})(frame)
assert result.prob.shape == result.mask.shape == (10_000, 10_000)
whole = _predictor(_Local(4), tile=None, tta=tta)(frame[4000:4400, 4000:4400]).prob
assert np.abs(result.prob[4004:4396, 4004:4396] - whole[4:-4, 4:-4]).max() < 1e-6
print(len(result.detections), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("image_size", "tta"), [(None, False), (256, False), (None, True)])
def test_a_scene_of_a_hundred_million_pixels_takes_less_than_four_gigabytes(image_size, tta):
    code = SCENE.format(root=str(ROOT), image_size=image_size, tta=tta)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert not done.returncode, done.stderr
    found, gigabytes = done.stdout.split()
    assert int(found) > 0
    assert float(gigabytes) < 4
