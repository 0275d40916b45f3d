"""What was predicted, frame by frame: written as frames come, and joined to a table at the end.

Each process appends a line of JSON for each frame to a file of its own, ``parts/RANK.jsonl``, when the
frame's pictures are there. Whatever ends a run, all lines but perhaps the last are whole, and the next run
goes on behind them. The table and the COCO file are made of the lines, in the order of the frames, so that
neither the number of processes nor interruptions change them.
"""

from __future__ import annotations

import csv
import json
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_spl.errors import InputError
from sam_spl.files import atomic
from sam_spl.predict.detections import Detection
from sam_spl.predict.frames import Frame
from sam_spl.predict.inputs import PARTS, Source
from sam_spl.predict.tracking import Tracker

TABLE, COCO = "detections.csv", "detections.json"
COLUMNS = (
    *("frame", "id", "row", "column", "left", "top", "width", "height"),
    *("area", "mean_prob", "peak_prob", "scr", "track"),
)

Line = dict[str, Any]
Stamp = list[int]


class Part:
    """The lines that this process appends.

    Args:
        folder: of the output.
        rank: of the process.
        run: number of this run in the folder.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, folder: Path, rank: int, run: int) -> None:
        self.path, self.run = folder / PARTS / f"{rank}.jsonl", run
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
            self._stream = os.fdopen(os.open(self.path, flags, 0o666), "r+b", buffering=0)
            if size := os.fstat(self._stream.fileno()).st_size:
                self._stream.seek(size - 1)
                if self._stream.read(1) != b"\n":  # a line that its run could not end
                    self._stream.write(b"\n")
        except OSError as error:
            raise self._cannot(error) from error

    def frame(self, source: Source, stamp: Stamp, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add a frame whose pictures are written."""
        line: Line = {"frame": frame.name, "index": frame.index, "size": frame.image.shape[:2]}
        line |= {"range": frame.scale, "detections": [asdict(one) for one in detections]}
        self._append(source, stamp, line)

    def end(self, source: Source, stamp: Stamp) -> None:
        """Say that a video or stack has no more frames."""
        self._append(source, stamp, {"end": True})

    def close(self) -> None:
        self._stream.close()

    def _append(self, source: Source, stamp: Stamp, line: Line) -> None:
        about = {"run": self.run, "source": str(source.path), "stamp": stamp}
        about |= {"file": source.file, "name": source.name}
        text = json.dumps(about | line, separators=(",", ":")).encode() + b"\n"
        try:
            if self._stream.write(text) != len(text):
                raise OSError(28, os.strerror(28))
        except OSError as error:
            raise self._cannot(error) from error

    def _cannot(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write {self.path}: {error.strerror}. Choose one that can be written, with free space."
        )


@dataclass
class Known:
    """What is recorded of one source.

    Attributes:
        source: the file, and the name of its outputs.
        stamp: of the file when it was predicted.
        run: number of the run that predicted it.
        complete: nothing of it is left to predict.
        several: it is a video or a stack.
        places: frame number, part and offset of each frame's line, one after the other.
    """

    source: Source
    stamp: Stamp
    run: int
    complete: bool = False
    several: bool = False
    places: array[int] = field(default_factory=lambda: array("q"))

    def rows(self) -> NDArray[np.int64]:
        """(frames, 3) of ``places``, in order of the frames."""
        rows = np.frombuffer(self.places, np.int64).reshape(-1, 3)
        return rows[np.argsort(rows[:, 0], kind="stable")]


@dataclass
class Joined:
    """What there is in all: numbers, also of frames by how their values got to [0, 1], and their sizes."""

    frames: int = 0
    detections: int = 0
    ranges: Counter[str] = field(default_factory=Counter)
    sizes: set[tuple[int, int]] = field(default_factory=set)


class Record:
    """The lines in an output folder.

    Attributes:
        known: by absolute path of the source.
        run: number of the latest run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.known, self.run = folder, dict[str, Known](), 0
        self._parts = sorted((folder / PARTS).glob("*.jsonl"))
        for number, part in enumerate(self._parts):
            offset = 0
            with part.open("rb") as stream:
                for raw in stream:
                    self._take(raw, number, offset)
                    offset += len(raw)

    def names(self) -> dict[str, str]:
        """Path -> name of each source."""
        return {path: known.source.name for path, known in self.known.items()}

    def now(self, source: Source) -> Known | None:
        """What is known of a source, unless the file has changed since."""
        known = self.known.get(str(source.path))
        return known if known and known.stamp == stamp_of(source) else None

    def frames(self, sources: Iterable[Source]) -> int:
        """How many frames of the sources are predicted."""
        return sum(len(known.places) // 3 for known in map(self.now, sources) if known)

    def earlier(self, known: Known) -> Iterator[tuple[int, list[Detection]]]:
        """Frame number and detections of each frame of a source, in order."""
        for line in self._lines([known]):
            yield line["index"] or 0, _detections(line)

    def join(self, *, track: bool) -> Joined:
        """Write the table and the COCO file.

        Args:
            track: give each target one number over the frames of its sequence.

        Raises:
            InputError: they cannot be written.
        """
        with (
            atomic(self.folder / TABLE) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(COLUMNS)
            joined = Joined()
            for line, tracks in self._tracked(track):
                rows = [_row(line["frame"], *one) for one in zip(_detections(line), tracks, strict=True)]
                table.writerows(rows)
                joined.frames, joined.detections = joined.frames + 1, joined.detections + len(rows)
                joined.ranges[line["range"]] += 1
                joined.sizes.add((line["size"][0], line["size"][1]))
        with atomic(self.folder / COCO) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.write('{"categories": [{"id": 1, "name": "target"}],\n"images": [\n')
            stream.writelines(_listed(self._images()))
            stream.write('],\n"annotations": [\n')
            stream.writelines(_listed(self._annotations(track)))
            stream.write("]}\n")
        return joined

    def _images(self) -> Iterator[Line]:
        for number, line in enumerate(self._lines(self._in_order()), 1):
            height, width = line["size"]
            image = {"id": number, "file_name": line["file"], "width": width, "height": height}
            yield image | {"frame": line["frame"], "index": line["index"], "range": line["range"]}

    def _annotations(self, track: bool) -> Iterator[Line]:
        count = 0
        for number, (line, tracks) in enumerate(self._tracked(track), 1):
            for one, of_track in zip(_detections(line), tracks, strict=True):
                count += 1
                found = {"id": count, "image_id": number, "category_id": 1, "bbox": one.box, "area": one.area}
                found |= {
                    "iscrowd": 0,
                    "score": _rounded(one.peak_prob),
                    "mean_prob": _rounded(one.mean_prob),
                }
                found |= {"centroid": [_rounded(value) for value in one.centroid], "scr": _rounded(one.scr)}
                yield found if of_track is None else found | {"track_id": of_track}

    def _tracked(self, track: bool) -> Iterator[tuple[Line, Sequence[int | None]]]:
        """Every line, and the track of each of its detections."""
        trackers: defaultdict[str, Tracker] = defaultdict(Tracker)
        for line in self._lines(self._in_order()):
            found = _detections(line)
            if track:
                yield line, trackers[sequence(line["file"], line["index"])].update(found)
            else:
                yield line, [None] * len(found)

    def _in_order(self) -> list[Known]:
        return sorted(self.known.values(), key=lambda known: known.source.order)

    def _lines(self, sources: Iterable[Known]) -> Iterator[Line]:
        with ExitStack() as stack:
            streams = [stack.enter_context(part.open("rb")) for part in self._parts]
            for known in sources:
                for _, part, offset in known.rows():
                    streams[part].seek(int(offset))
                    yield json.loads(streams[part].readline())

    def _take(self, raw: bytes, part: int, offset: int) -> None:
        """Learn of a line. A torn one, which no run could end, is none."""
        try:
            line = json.loads(raw)
        except ValueError:
            return
        path, run = line["source"], line["run"]
        self.run = max(self.run, run)
        known = self.known.get(path)
        if known is None or (line["stamp"] != known.stamp and run > known.run):  # or the file has changed
            source = Source(Path(path), line["file"], line["name"])
            known = self.known[path] = Known(source, line["stamp"], run)
        if line["stamp"] != known.stamp:
            return
        known.run = max(known.run, run)
        known.several |= line.get("index") is not None
        known.complete |= "end" in line or not known.several
        if "end" not in line:
            known.places.extend((line["index"] or 0, part, offset))


def stamp_of(source: Source) -> Stamp:
    """Size and time of change of a file, by which it is known again; empty where it is gone."""
    try:
        status = source.path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def sequence(file: str, index: int | None) -> str:
    """What frames that follow one another in time share: a video or stack, or the images of a folder."""
    return file if index is not None else f"{file.rpartition('/')[0]}/"


def _detections(line: Line) -> list[Detection]:
    return [
        Detection(**one | {"centroid": tuple(one["centroid"]), "box": tuple(one["box"])})
        for one in line["detections"]
    ]


def _row(frame: str, one: Detection, track: int | None) -> list[Any]:
    where = (*one.centroid, *one.box, one.area, one.mean_prob, one.peak_prob, one.scr, track)
    return [frame, one.id, *("" if value is None else _rounded(value) for value in where)]


def _rounded(value: float | int | None) -> float | int | None:
    """Five digits behind the point: the further ones depend on what was predicted together."""
    return round(value, 5) if isinstance(value, float) else value


def _listed(rows: Iterable[Line]) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield f"{',' if number else ''}{json.dumps(row)}\n"
