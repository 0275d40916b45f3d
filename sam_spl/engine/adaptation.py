"""From weights and frames of a camera, without labels, to weights for that camera."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl import config as settings
from sam_spl.data.config import DatasetConfig
from sam_spl.data.targets import Targets
from sam_spl.engine.config import LossConfig, OptimizerConfig, TestConfig, TrainConfig, TrainerConfig
from sam_spl.engine.record import RunFolder
from sam_spl.engine.testing import test
from sam_spl.engine.training import train
from sam_spl.errors import ConfigError, InputError
from sam_spl.files import atomic
from sam_spl.models.registry import ModelConfig
from sam_spl.predict.frames import Frame, expected_frames, read
from sam_spl.predict.inputs import list_files, name_sources
from sam_spl.predict.predictor import Prediction, Predictor, load
from sam_spl.resize import Image
from sam_spl.results.folder import Result
from sam_spl.runtime import one_opencv_thread

log = logging.getLogger(__name__)

#: Folder of the frames that were taken and their masks, in the run folder.
FRAMES = "frames"
#: What becomes of detections in the frames: painted over, targets, or background to be passed over.
DETECTIONS = ("erase", "keep", "background")
_DOUBT = 0.1  # probability from which erasing takes a pixel for part of a target
_TESTED, _EACH = 100, 10  # images that old and new weights are tested on, and how often each frame at most
_CROP = 192  # side in pixels of what a network without a size of its own is trained on


@dataclass(frozen=True)
class Adaptation:
    """How a detector is fitted to a camera.

    Attributes:
        epochs: how often the network sees ``images`` implanted frames.
        images: an epoch.
        batch_size: as in training.
        lr: the largest learning rate.
        most_frames: of what is given, so many are used, evenly spread.
        targets: that are put into the frames.
        scenes: share of generated scenes among the images, so that the network keeps what it knows of others.
        detections: what becomes of what the weights find in the frames, one of :data:`DETECTIONS`.
    """

    epochs: int
    images: int
    batch_size: int
    lr: float
    most_frames: int
    targets: Targets
    scenes: float
    detections: str


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    Attributes:
        weights: the new file.
        frames: how many were used.
        found: detections in them, by the weights' threshold.
        before: a test of the old weights on implanted frames that were not trained on.
        after: the same test of the new weights.
    """

    weights: Path
    frames: int
    found: int
    before: Result
    after: Result


def adapt(
    words: list[str],
    weights: Path,
    folder: Path,
    how: Adaptation,
    *,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
) -> Adapted:
    """Fine-tune weights on frames with generated targets in them.

    Args:
        words: images, folders, patterns, videos and stacks, as for prediction.
        weights: to start from.
        folder: of the run; the frames that were taken are in its ``frames``.
        how: see :class:`Adaptation`.
        device: as in training.
        precision: as in training.
        seed: of the implanted targets and of the training.
        overwrite: replace the run that the folder holds.

    Raises:
        ConfigError: a value that is not valid, or the folder holds a run.
        InputError: no frame can be read, or files are not what they should be.
    """
    _check(words, weights, folder, overwrite=overwrite)
    predictor = load(weights, device, precision)
    config = _training(predictor, weights, folder, how, device, precision, seed, overwrite)
    with one_opencv_thread():
        frames, found = _take(words, folder / FRAMES, predictor, how)
    run = train(config)
    held_out = max(1, frames // 5)
    synthetic = config.dataset.synthetic | {"test": min(_TESTED, _EACH * held_out)}
    dataset = replace(config.dataset, synthetic=synthetic)

    def tested(of: Path, name: str) -> Result:
        result = test(
            TestConfig(
                weights=str(of),
                dataset=dataset,
                device=device,
                output_dir=str(folder / name),
                report=0,
                overlays=0,
                bootstrap=0,
                curves=False,
            )
        )
        assert result is not None
        return result

    return Adapted(run.best, frames, found, tested(weights, "test-before"), tested(run.best, "test-after"))


def _training(
    predictor: Predictor,
    weights: Path,
    folder: Path,
    how: Adaptation,
    device: str,
    precision: str,
    seed: int,
    overwrite: bool,
) -> TrainConfig:
    """The run: the input as the weights have it, and what the recipes from scratch have in common."""
    made = vars(predictor.model)["built_from"]
    size = predictor.image_size
    dataset = DatasetConfig.named(
        "implanted",
        data_path=str(folder / FRAMES),
        image_size=size or _CROP,
        native_test=size is None,
        mean=list(predictor.normalise.mean),
        std=list(predictor.normalise.std),
        resize=predictor.resize,
        augment="target_crop" if size else "native_crop",
    )
    counts = {"train": how.images, "val": 0, "test": 0}  # tests follow when the frames are there
    return TrainConfig(
        model=ModelConfig(made["model"], arguments=made["arguments"]),
        dataset=replace(dataset, synthetic=counts | asdict(how.targets) | {"scenes": how.scenes}),
        loss=settings.read(LossConfig, settings.group_file("loss", "bce_iou"), at="loss"),
        trainer=TrainerConfig(
            epochs=how.epochs, batch_size=how.batch_size, selection="last", ema_decay=0.99, clip_grad=5.0
        ),
        optimizer=OptimizerConfig(
            name="adan", lr=how.lr, eta_min=0.0, warmup_epochs=min(1.0, how.epochs / 4), per_step=True
        ),
        weights=str(weights),
        save_dir=str(folder),
        device=device,
        precision=precision,
        seed=seed,
        overwrite=overwrite,
    )


def _check(words: list[str], weights: Path, folder: Path, *, overwrite: bool) -> None:
    """Nothing that is used is replaced, and nothing that another command wrote.

    Raises:
        ConfigError: it would be.
        InputError: there are no frames.
    """
    files, _ = list_files(words, folder)
    place = (folder / FRAMES).resolve()
    if any(file.resolve().is_relative_to(place) for file in files):
        raise ConfigError(f"output: the frames lie in {place}, which is written anew. Choose another folder.")
    if weights.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"output: {folder} holds the weights to start from. Choose another folder.")
    run = RunFolder(folder)
    if not overwrite:
        run.check_free()
    if place.exists() and not (overwrite and (folder / "config.yaml").is_file()):
        raise ConfigError(f"output: {place} is there already, and of no run. Choose another folder.")


def _take(words: list[str], folder: Path, predictor: Predictor, how: Adaptation) -> tuple[int, int]:
    """Write frames, and the masks of targets that stay in them; how many frames, and detections in them."""
    written = folder.with_name(f"{folder.name}.part")
    try:
        number, found = _write_frames(words, written, predictor, how)
        shutil.rmtree(folder, ignore_errors=True)
        written.rename(folder)
    finally:
        shutil.rmtree(written, ignore_errors=True)
        with suppress(OSError):  # an output folder that this made, and nothing came of it
            folder.parent.rmdir()
    return number, found


def _write_frames(words: list[str], folder: Path, predictor: Predictor, how: Adaptation) -> tuple[int, int]:
    number = found = 0
    for frame in _spread(words, folder.parent, how.most_frames):
        number += 1
        name, image = f"{frame.name}.png", frame.image
        if image.dtype == np.float32:  # scaled from files whose values do not fill their type
            image = np.round(image * 65535).astype(np.uint16)
        prediction = predictor(image)
        mask, targets = _sure(prediction)
        found += targets
        if how.detections == "keep":
            _write(folder / "masks" / name, mask.astype(np.uint8) * 255)
        elif how.detections == "erase":
            image = _erased(image, prediction.prob > _DOUBT)
        _write(folder / "images" / name, image)
    if not number:
        raise InputError(f"input: no frame of {', '.join(words)} can be read.")
    return number, found


def _sure(found: Prediction) -> tuple[NDArray[np.bool_], int]:
    """The targets above the threshold in their whole width, down to one half, and how many they are."""
    wide = (found.prob > min(0.5, found.threshold)).astype(np.uint8)
    regions = cv2.connectedComponents(wide, connectivity=8)[1]
    sure = np.unique(regions[found.prob > found.threshold])
    return np.isin(regions, sure), len(sure)


def _erased(image: Image, found: NDArray[np.bool_]) -> Image:
    """The image with what was found painted over from its surroundings."""
    around = cv2.dilate(found.astype(np.uint8), np.ones((5, 5), np.uint8))
    channels = np.moveaxis(image[..., None] if image.ndim == 2 else image, -1, 0)
    painted = [cv2.inpaint(np.ascontiguousarray(one), around, 5, cv2.INPAINT_TELEA) for one in channels]
    return painted[0] if image.ndim == 2 else np.stack(painted, -1)


def _spread(words: list[str], output: Path, most: int) -> Iterator[Frame]:
    """At most ``most`` frames, as far apart as their number allows. What cannot be read is skipped."""
    files, problems = list_files(words, output)
    sources = name_sources(files, {})
    expected = sum(map(expected_frames, sources))
    step, position = max(1.0, expected / most), 0.0
    seen = given = 0
    for source in sources:
        try:
            for frame in read(source):
                if seen >= position and given < most:
                    yield frame
                    given, position = given + 1, position + step
                seen += 1
        except InputError as error:
            problems.append(str(error))
    for problem in problems:
        log.warning("skipped: %s", problem)


def _write(path: Path, image: NDArray[Any]) -> None:
    """A PNG file of 8 or 16 bits."""
    data = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])[1]
    with atomic(path) as temporary:
        temporary.write_bytes(data.tobytes())
