"""From weights and held-out images to weights that state their threshold."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from sam_spl.data.config import DatasetConfig
from sam_spl.engine import testing
from sam_spl.engine.config import TestConfig
from sam_spl.errors import InputError
from sam_spl.metrics.calibration import CONFIDENCE, Calibration, calibrate
from sam_spl.metrics.dataset_counts import OWN
from sam_spl.runtime import distributed, one_opencv_thread
from sam_spl.weights.formats import read_weights, save_weights

log = logging.getLogger(__name__)


def calibrate_weights(
    weights: Path, dataset: DatasetConfig, *, split: str, budget: float, device: str, target: Path
) -> Calibration:
    """Choose the threshold of weights and write them with it.

    Args:
        weights: a file of ours or of a published code.
        dataset: whose images it is chosen on.
        split: train, val, test or all.
        budget: share of frames that may have a false alarm.
        device: as for testing.
        target: file that is written.

    Raises:
        InputError: these images have trained the network or chosen its weights, they are too few, or files
            are not what they should be.
    """
    config = TestConfig(
        weights=str(weights), dataset=dataset, split=split, device=device, report=0, overlays=0
    )
    with distributed(device) as world, one_opencv_thread():
        tested = testing.open_test(config, world.at("fp32"))
        if seen := testing.seen(tested):
            raise InputError(f"split: {seen[0]}. A promise needs images that are new to the weights.")
        if split == "val" and "val" in str(tested.description.get("selected_by")):
            log.warning("the val images chose the epoch of these weights: the promise is a little optimistic")
        counts = testing.count(tested)
    assert counts.curves is not None
    targets = sum(image.targets for image in counts.images(OWN))
    found = calibrate(counts.curves, targets, budget)
    about = asdict(found) | {
        "confidence": CONFIDENCE,
        "dataset": tested.data.title,
        "lists": tested.data.lists,
        "split": split,
        "fingerprint": tested.part.fingerprint,
    }
    description = tested.description | {"threshold": found.threshold, "calibration": about}
    save_weights(target, read_weights(weights).state, description)
    return found
