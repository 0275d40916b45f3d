"""What the page of ``sam-spl demo`` shows: predictions of a file, kept while the threshold moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.errors import InputError
from sam_spl.predict.detections import Detection
from sam_spl.predict.frames import read
from sam_spl.predict.inputs import Source
from sam_spl.predict.predictor import Prediction, Predictor
from sam_spl.predict.record import COLUMNS as TABLE
from sam_spl.report.render import marked

#: Of each detection, as in the table that ``sam-spl predict`` writes, less the frame and its track.
COLUMNS = TABLE[1:-1]
Row = list[float | int | None]
#: Detections that are shown of one frame. At thresholds near 0 noise makes many thousands of them.
MOST = 500


@dataclass(frozen=True)
class Limits:
    """What is read of one file.

    Attributes:
        how: how values get to [0, 1], as :func:`sam_spl.predict.frames.to_unit` has it.
        frames: at most so many of a video or stack, from the first on.
        megapixels: of an image, and of all frames that are kept together. Each pixel takes 5 to 16 bytes.
    """

    how: str = "auto"
    frames: int = 100
    megapixels: float = 50.0


@dataclass(eq=False)
class Seen:
    """What the network says of a file: all that another threshold needs.

    Attributes:
        name: of the file.
        scale: how values got to [0, 1], the rule that was applied.
        predictions: of each frame, in order.
        expected: how many there will be, by what the file says; at least 1.
        rest: why there are not all frames of the file; else empty.
        done: no further frame will come.
    """

    name: str
    scale: str = ""
    predictions: list[Prediction] = field(default_factory=list)
    expected: int = 1
    rest: str = ""
    done: bool = False

    def __str__(self) -> str:
        """One line: the file, its size, and what of it was predicted."""
        height, width = self.predictions[0].prob.shape
        parts = [f"{self.name}: {width}x{height} pixels, values to [0, 1]: {self.scale}"]
        count = len(self.predictions)
        if not self.done:
            parts.append(f"frame {count} of {max(count, self.expected)} is predicted")
        elif count > 1 or self.rest:
            parts.append(f"{count} frame{'' if count == 1 else 's'}")
        return "; ".join([*parts, self.rest] if self.rest else parts)


def look(predictor: Predictor, path: Path, limits: Limits) -> Iterator[Seen]:
    """Predict the frames of a file, as many as ``limits`` allow.

    Yields:
        The same object after each frame and at the end, with one more prediction each time.

    Raises:
        InputError: no frame can be read or predicted; the message names the file.
    """
    seen, kept = Seen(path.name), 0
    try:
        for frame in read(Source(path, path.name, path.stem), limits.how, limits.megapixels):
            pixels = frame.image.shape[0] * frame.image.shape[1]
            count = len(seen.predictions)
            if count and (count == limits.frames or kept + pixels > 1e6 * limits.megapixels):
                seen.rest = "the file holds more, sam-spl predict takes all"
                break
            seen.scale, seen.expected = frame.scale, min(frame.of, limits.frames)
            kept += pixels
            seen.predictions.append(predictor(frame.image))
            yield seen
    except InputError as error:
        if not seen.predictions:
            raise InputError(f"{path.name}: {error}") from error
        seen.rest = str(error)
    seen.done = True
    yield seen


@dataclass(frozen=True)
class View:
    """A frame at a threshold.

    Attributes:
        overlay: RGB uint8, its detections outlined and numbered.
        rows: what is known of each of them, in the order of :data:`COLUMNS`.
        title: how many there are, at which threshold.
    """

    overlay: NDArray[np.uint8]
    rows: list[Row]
    title: str


def view(prediction: Prediction, threshold: float) -> View:
    """What is found at a threshold, without the network."""
    # One more than is shown, which tells whether there are more.
    found = replace(prediction, threshold=threshold, top=MOST + 1).detections
    more = len(found) > MOST
    if more:
        found = replace(prediction, threshold=threshold, top=MOST).detections
    boxes = np.array([one.box for one in found], np.int32).reshape(-1, 4)
    title = f"{len(found)} detection{'' if len(found) == 1 else 's'} at threshold {threshold:g}"
    return View(
        marked(prediction.image, boxes, [one.id for one in found]),
        [_row(one) for one in found],
        f"{title}, those with the highest peaks of more" if more else title,
    )


def shades(prediction: Prediction) -> NDArray[np.uint8]:
    """The probability map as a picture of the overlay's size: black is 0, white is 1."""
    return marked(cv2.cvtColor(prediction.prob, cv2.COLOR_GRAY2RGB), np.zeros((0, 4), np.int32), [])


def _row(one: Detection) -> Row:
    row, column = (round(value, 2) for value in one.centroid)
    probs = (round(value, 5) for value in (one.mean_prob, one.peak_prob))
    return [one.id, row, column, *one.box, one.area, *probs, None if one.scr is None else round(one.scr, 2)]
