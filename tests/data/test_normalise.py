from __future__ import annotations

import numpy as np
import pytest
import torch

from sam_spl.data.config import DatasetConfig
from sam_spl.data.normalise import Normalise, normalise_of
from sam_spl.errors import ConfigError


def test_normalise_equals_its_formula_for_every_depth_and_channel_count():
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    three = Normalise((0.5, 0.4, 0.3), (0.1, 0.2, 0.4))
    for channel, (mean, std) in enumerate(((0.5, 0.1), (0.4, 0.2), (0.3, 0.4))):
        expected = (torch.from_numpy(grey).float() / 255 - mean) / std
        torch.testing.assert_close(three(grey)[channel], expected)
        torch.testing.assert_close(three(grey.astype(np.uint16) * 257)[channel], expected)
    assert Normalise((0.0,), (1.0,), 1)(np.dstack([grey] * 3)).shape == (1, 2, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colour", [(), (3,)])
def test_a_batch_equals_its_images_bit_for_bit(channels, dtype, colour):
    rng = np.random.default_rng(0)
    values = rng.random((4, 37, 53, *colour))
    images = (values if dtype == np.float32 else values * np.iinfo(dtype).max).astype(dtype)
    for mean, std in (((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.31,), (0.17,)), ((0.0,), (1.0,))):
        if len(mean) > channels:
            continue
        normalise = Normalise(mean, std, channels)
        batch = normalise.batch(torch.from_numpy(images))
        one_by_one = torch.stack([normalise(image) for image in images])
        assert torch.equal(batch, one_by_one)
        assert batch.stride() == one_by_one.contiguous(memory_format=torch.channels_last).stride()


def test_a_network_of_one_channel_takes_the_mean_of_three_values():
    assert normalise_of({"mean": [0.1, 0.2, 0.6], "std": [0.3, 0.3, 0.3]}, 1) == Normalise((0.3,), (0.3,), 1)
    sirst = DatasetConfig.named("sirst")
    assert normalise_of(sirst, 3) == Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 3)
    for mean in ([0.1, 0.2], [0.1] * 4):
        with pytest.raises(ConfigError, match="need 1 or 3 values"):
            normalise_of({"mean": mean, "std": mean}, 3)
