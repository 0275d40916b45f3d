"""From weights and held-out images to weights that state their threshold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

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


def calibrate_weights(config: TestConfig, *, budget: float, target: Path) -> Calibrated:
    """Choose the threshold of weights and write them with it.

    Images are predicted as in testing: values over the full scale of 8 or 16 bits, the network's own input
    size, whole frames. The file states that with the threshold.

    Args:
        config: of a test of the weights on these images. Those that the weights were trained on are left out.
        budget: share of frames that may have a false alarm.
        target: file that is written.

    Raises:
        InputError: all of the images are training images, or it cannot be known which are; they are too few;
            or files are not what they should be.
    """
    read = read_weights(config.weights)
    images = held_out(config.dataset, config.split, read.description, seed=config.seed)
    require_images(images.part.count, budget)
    require_writable(target)
    with distributed(config.device) as world, one_opencv_thread():
        tested = testing.open_test(config, world.at(config.precision), images.part)
        counts = testing.count(tested)
    assert counts.curves is not None
    targets = sum(image.targets for image in counts.images(OWN))
    found = calibrate(counts.curves, targets, budget)
    about = asdict(found) | {
        "confidence": CONFIDENCE,
        "dataset": images.data.title,
        "lists": images.data.lists,
        "split": config.split,
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
