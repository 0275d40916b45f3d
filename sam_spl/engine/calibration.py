"""From weights and held-out images to weights that state their threshold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from sam_spl.data.config import DatasetConfig
from sam_spl.data.held_out import HeldOut, held_out
from sam_spl.engine import testing
from sam_spl.engine.config import TestConfig
from sam_spl.files import require_writable
from sam_spl.metrics.calibration import CONFIDENCE, Calibration, calibrate, require_images
from sam_spl.metrics.dataset_counts import OWN
from sam_spl.runtime import distributed, one_opencv_thread
from sam_spl.weights.formats import read_weights, save_weights


@dataclass(frozen=True)
class Calibrated:
    """A threshold, its promise, and the images that it is from."""

    found: Calibration
    images: HeldOut


def calibrate_weights(
    weights: Path,
    dataset: DatasetConfig,
    *,
    split: str,
    budget: float,
    device: str,
    precision: str,
    target: Path,
) -> Calibrated:
    """Choose the threshold of weights and write them with it.

    Images are predicted as in testing: values over the full scale of 8 or 16 bits, the network's own input
    size, whole frames. The file states that with the threshold.

    Args:
        weights: a file of ours or of a published code.
        dataset: whose images it is chosen on. Those that the weights were trained on are left out.
        split: train, val, test or all.
        budget: share of frames that may have a false alarm.
        device: as for testing.
        precision: as for prediction.
        target: file that is written.

    Raises:
        InputError: all of the images are training images, or it cannot be known which are; they are too few;
            or files are not what they should be.
    """
    config = TestConfig(
        weights=str(weights), dataset=dataset, split=split, device=device, report=0, overlays=0
    )
    read = read_weights(weights)
    images = held_out(dataset, split, read.description, seed=config.seed)
    require_images(images.part.count, budget)
    require_writable(target)
    with distributed(device) as world, one_opencv_thread():
        tested = testing.open_test(config, world.at(precision), images.part)
        counts = testing.count(tested)
    assert counts.curves is not None
    targets = sum(image.targets for image in counts.images(OWN))
    found = calibrate(counts.curves, targets, budget)
    about = asdict(found) | {
        "confidence": CONFIDENCE,
        "dataset": images.data.title,
        "lists": images.data.lists,
        "split": split,
        "fingerprint": images.part.fingerprint,
        "chose_weights": images.chose,
        "settings": {
            "range": "full",
            "image_size": tested.image_size,
            "tile": None,
            "tta": False,
            "precision": tested.world.precision_name,
        },
    }
    description = tested.description | {"threshold": found.threshold, "calibration": about}
    save_weights(target, read.state, description)
    return Calibrated(found, images)
