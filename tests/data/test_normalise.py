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


def test_a_network_of_one_channel_takes_the_mean_of_three_values():
    assert normalise_of({"mean": [0.1, 0.2, 0.6], "std": [0.3, 0.3, 0.3]}, 1) == Normalise((0.3,), (0.3,), 1)
    sirst = DatasetConfig.named("sirst")
    assert normalise_of(sirst, 3) == Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 3)
    for mean in ([0.1, 0.2], [0.1] * 4):
        with pytest.raises(ConfigError, match="need 1 or 3 values"):
            normalise_of({"mean": mean, "std": mean}, 3)
