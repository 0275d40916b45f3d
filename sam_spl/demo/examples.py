"""Generated frames to try the page with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.data.synthetic import SyntheticSource
from sam_spl.report.render import stretch, write_png

_SIDE, _FRAMES = 256, 24  # pixels; frames of the video
_RATE = 12.0  # frames a second
_STEP = (1, 2)  # rows and columns that the camera moves between two frames


@dataclass(frozen=True)
class Example:
    """A file to try, and a picture of it for the page."""

    file: Path
    picture: Path
    caption: str


def write_examples(folder: Path) -> list[Example]:
    """Write images of 8 and 16 bits and a video, all generated, into a folder."""
    scenes = SyntheticSource(5, _SIDE, seed=2, areas=(4, 60), scr=(6, 12))
    images: dict[str, NDArray[np.uint8 | np.uint16]] = {
        "8 bits": scenes.load(4)[0],
        "8 bits, clouds": scenes.load(0)[0],
        # As a camera of 14 bits has it: a small part of the scale is used.
        "16 bits": scenes.load(2)[0].astype(np.uint16) * 16 + 3000,
    }
    examples = []
    for caption, image in images.items():
        file = folder / f"{caption.replace(', ', '_').replace(' ', '_')}.png"
        file.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        examples.append(_example(file, image, caption))

    down, right = _STEP
    shape = (_SIDE + down * _FRAMES, _SIDE + right * _FRAMES)
    scene, _ = SyntheticSource(1, shape, seed=5, areas=(9, 60), scr=(8, 14), most_targets=6, empty=0).load(0)
    film = folder / "video.mp4"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"mp4v"), _RATE, (_SIDE, _SIDE))
    for k in range(_FRAMES):
        seen = scene[down * k : down * k + _SIDE, right * k : right * k + _SIDE]
        writer.write(cv2.cvtColor(seen, cv2.COLOR_GRAY2BGR))
    writer.release()
    return [*examples, _example(film, scene[:_SIDE, :_SIDE], f"video, {_FRAMES} frames")]


def _example(file: Path, image: NDArray[np.uint8 | np.uint16], caption: str) -> Example:
    picture = file.with_name(f"{file.stem}_shown.png")
    write_png(picture, cv2.cvtColor(stretch(image), cv2.COLOR_GRAY2RGB))
    return Example(file, picture, caption)
