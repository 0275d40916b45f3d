"""The output folder of ``sam-spl predict``: who may write there, and the pictures of each frame."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.errors import InputError
from sam_spl.files import atomic, lock, write_text
from sam_spl.predict.detections import Detection
from sam_spl.predict.frames import Frame
from sam_spl.predict.inputs import PARTS, PICTURES, SETTINGS
from sam_spl.predict.predictor import Prediction
from sam_spl.predict.record import COCO, TABLE
from sam_spl.report.render import marked, write_png

MASKS, OVERLAYS, PROBS = PICTURES
#: What a run writes into its folder.
WRITTEN = (*PICTURES, TABLE, COCO, PARTS, SETTINGS)


class Pictures:
    """Writes the pictures of frames, all below one folder.

    Args:
        folder: of the output.
        save: which of :data:`sam_spl.predict.config.SAVED`.
    """

    def __init__(self, folder: Path, save: Collection[str]) -> None:
        self.folder, self.save = folder, save
        self._root = folder.resolve()
        self._known: set[Path] = set()  # folders that lie below it
        self._video: _Video | None = None

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """The mask (0 and 255) and the probabilities (16-bit PNG: x 65535; NPY: float32) of a frame.

        Raises:
            InputError: the folder cannot be written, or a link in it leads elsewhere.
        """
        if "mask" in self.save:
            self._image(
                self._place(MASKS, f"{frame.name}.png"), prediction.mask.view(np.uint8) * np.uint8(255)
            )
        if "prob" in self.save:
            prob = np.rint(prediction.prob * np.float32(65535)).astype(np.uint16)
            self._image(self._place(PROBS, f"{frame.name}.png"), prob)
        if "npy" in self.save:
            with (
                atomic(self._place(PROBS, f"{frame.name}.npy")) as temporary,
                temporary.open("wb") as stream,
            ):
                np.save(stream, prediction.prob)

    def draw(self, frame: Frame, detections: Sequence[Detection], numbers: Sequence[int]) -> None:
        """The image of a frame with its detections outlined and numbered: a picture, or a frame of a video.

        Raises:
            InputError: as :meth:`write`.
        """
        if "overlay" not in self.save:
            return
        boxes = np.array([one.box for one in detections], np.int32).reshape(-1, 4)
        picture = marked(frame.image, boxes, numbers)
        if frame.rate is None:
            write_png(self._place(OVERLAYS, f"{frame.name}.png"), picture)
            return
        if self._video is None:
            target = self._place(OVERLAYS, f"{frame.name.rpartition('/')[0]}.mp4")
            self._video = _Video(target, frame.rate, picture)
        self._video.write(picture)

    def finish(self) -> None:
        """Close the video that is being written, if there is one."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def discard(self) -> None:
        """Remove what is written of a video that an error or the user has interrupted."""
        if self._video is not None:
            self._video.remove()
            self._video = None

    @staticmethod
    def _image(path: Path, image: NDArray[Any]) -> None:
        data = cv2.imencode(".png", image)[1]
        with atomic(path) as temporary:
            temporary.write_bytes(data.tobytes())

    def _place(self, kind: str, name: str) -> Path:
        path = self.folder / kind / name
        if path.parent not in self._known:
            if not path.parent.resolve().is_relative_to(self._root):
                raise InputError(f"{path.parent} leads out of {self.folder} by a link. Remove the link.")
            self._known.add(path.parent)
        return path


class _Video:
    """A video that appears under its name when it is whole.

    MPEG-4 in an MP4 file, which the codecs that come with OpenCV write and read.
    """

    def __init__(self, path: Path, rate: float, picture: NDArray[np.uint8]) -> None:
        self.path, self.temporary = path, path.with_name(f".{path.stem}.part.mp4")
        height, width = picture.shape[:2]
        self.size = (width + width % 2, height + height % 2)  # the codec takes even sizes
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.temporary.unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot(error.strerror) from error
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self.temporary), code, rate, self.size)
        if not self._writer.isOpened():
            raise self._cannot("no codec for MPEG-4 here, or no space. --save mask leaves overlays out")

    def write(self, picture: NDArray[np.uint8]) -> None:
        right, bottom = self.size[0] - picture.shape[1], self.size[1] - picture.shape[0]
        if min(right, bottom) < 0 or max(right, bottom) > 1:  # a video that changes its size
            picture, right, bottom = cv2.resize(picture, self.size), 0, 0
        padded = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        self._writer.write(cv2.cvtColor(padded, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        self._writer.release()
        try:
            os.replace(self.temporary, self.path)
        except OSError as error:
            raise self._cannot(error.strerror) from error

    def remove(self) -> None:
        self._writer.release()
        with suppress(OSError):
            self.temporary.unlink()

    def _cannot(self, reason: str | None) -> InputError:
        return InputError(f"cannot write {self.path}: {reason}.")


@contextmanager
def output_folder(folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> Iterator[None]:
    """Hold an output folder for this run, which goes on with what an earlier one left there.

    Args:
        folder: of the output.
        settings: on which results depend.
        overwrite: remove what an earlier run left.

    Raises:
        InputError: another process is writing there, the folder holds results of other settings, or files
            that are no results of ``predict`` but have their names.
    """
    with lock(folder):
        held = [name for name in WRITTEN if os.path.lexists(folder / name)]
        before = settings_in(folder)
        if held and before is None:
            raise InputError(
                f"{folder} holds {held[0]}, but no {SETTINGS} of sam-spl predict. Choose another folder."
            )
        if overwrite:
            remove(folder)
        elif before is not None:
            changed = [key for key in settings if before.get(key) != settings[key]]
            if changed:
                shown = ", ".join(
                    f"{key} {_short(before.get(key))} (now {_short(settings[key])})" for key in changed
                )
                raise InputError(
                    f"{folder} holds what was predicted with {shown}. Add --overwrite to replace it, or "
                    "choose another folder."
                )
        write_text(folder / SETTINGS, json.dumps({"settings": settings}, indent=1) + "\n")
        yield


def _short(value: Any) -> str:
    """A value, or the first digits of a SHA-256."""
    text = str(value)
    return f"of SHA-256 {text[:12]}..." if re.fullmatch(r"[0-9a-f]{64}", text) else text


def settings_in(folder: Path) -> Mapping[str, Any] | None:
    """The settings of the run that wrote a folder; None where none did."""
    with suppress(OSError, ValueError):
        settings = json.loads((folder / SETTINGS).read_text("utf-8")).get("settings")
        if isinstance(settings, dict):
            return settings
    return None


def remove(folder: Path) -> None:
    """Remove what runs have written, and nothing else."""
    for path in (folder / name for name in WRITTEN):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
