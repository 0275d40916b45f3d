"""``predict(PredictConfig(...))``: every frame of the inputs, into a folder; what the command calls."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sam_spl import __version__
from sam_spl.errors import ConfigError, InputError
from sam_spl.files import write_text
from sam_spl.metrics.calibration import unlike
from sam_spl.models.registry import channels_of
from sam_spl.predict.compiled import compiled
from sam_spl.predict.config import PredictConfig, side
from sam_spl.predict.detections import Detection
from sam_spl.predict.engines import precision_name
from sam_spl.predict.frames import Frame, expected_frames, read
from sam_spl.predict.inputs import (
    PARTS,
    SETTINGS,
    VIDEOS,
    Source,
    is_text,
    list_files,
    name_sources,
    shown,
)
from sam_spl.predict.outputs import WRITTEN, Pictures, output_folder, remove
from sam_spl.predict.predictor import Prediction, Predictor, load
from sam_spl.predict.record import Joined, Part, Record, Stamp, sequence, stamp_of
from sam_spl.predict.tracking import Tracker
from sam_spl.progress import Progress
from sam_spl.runtime import World, distributed, ended_like_interrupted
from sam_spl.weights.formats import find_weights, sha256

_BATCH = 4  # frames that a GPU predicts together
_LOOK = 0.2  # seconds between looks at whether other processes have ended


def predict(config: PredictConfig) -> None:
    """Predict all frames that the output folder does not hold yet, and say what there is.

    Processes that torchrun has started share the files.

    Raises:
        ConfigError: settings that do not go together.
        InputError: no input, weights, device or folder that can be used, or no frame that could be predicted.
    """
    folder = Path(os.path.expanduser(config.output))  # which leaves ~name of no user as it is
    if not is_text(folder):
        raise InputError(f"output: {shown(folder)} is not UTF-8, give a folder whose name is.")
    files, problems = list_files([os.path.expanduser(word) for word in config.input], folder)
    with distributed(config.device) as world:
        predictor = _predictor(config, world)
        settings = _settings(config, predictor)
        held = output_folder(folder, settings, overwrite=config.overwrite) if world.main else nullcontext()
        with held:
            world.barrier()
            record = Record(folder)
            for end in (folder / PARTS).glob("*.end") if world.main else ():
                end.unlink()
            world.barrier()  # before anyone adds to the record, and after what ended earlier runs is gone
            sources = name_sources(files, record.names())
            share = _share(sources, record, world, track=config.track)
            if world.main and (before := record.frames(sources)):
                print(f"{_number(before, 'frame')} predicted before, going on")
            _compile(config, predictor, world, share)
            run = _Run(config, predictor, folder, record, world)
            for problem in problems if world.main else ():
                run.skip(problem)
            try:
                with ended_like_interrupted():
                    done = _wait(folder, world, run.predict(share))
            except KeyboardInterrupt:
                if not world.main:
                    raise
                until = Record(folder).join(track=config.track).frames
                raise KeyboardInterrupt(
                    f"the tables hold the {until} frames that are done, the same command goes on from here."
                ) from None
            if world.main:
                _finish(config, folder, settings, predictor, done)


@dataclass
class Done:
    """What a process has done.

    Attributes:
        frames: how many were predicted.
        seconds: that this took, reading and writing included.
        network: seconds of these in the network.
        flooded: frames of which one detection covers more than half.
        skipped: what was not predicted and why, a line each.
    """

    frames: int = 0
    seconds: float = 0.0
    network: float = 0.0
    flooded: int = 0
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Item:
    """A frame, or the end of a video or stack (no frame and no detections).

    ``earlier`` are the detections of a frame that an earlier run has predicted.
    """

    source: Source
    stamp: Stamp
    frame: Frame | None = None
    earlier: list[Detection] | None = None


class _Run:
    """Predicts this process's share of the sources."""

    def __init__(
        self, config: PredictConfig, predictor: Predictor, folder: Path, record: Record, world: World
    ) -> None:
        self.config, self.predictor, self.record = config, predictor, record
        self.pictures = Pictures(folder, config.save)
        self.part = Part(folder, world.rank, record.run + 1)
        self.size = config.batch_size or usual_batch(predictor.world)
        self.trackers: defaultdict[str, Tracker] = defaultdict(Tracker)
        self.done = Done()
        self.progress = Progress("predicting", "frames", shown=world.main)

    def skip(self, what: str) -> None:
        """Say what is not predicted, and why."""
        what = shown(what)
        self.done.skipped.append(what)
        tqdm.write(f"skipped: {what}", file=sys.stderr)

    def predict(self, sources: Sequence[Source]) -> Done:
        """Predict what is left of the sources, in order."""
        started = time.perf_counter()
        self.progress.expect(len(sources))
        items = self._items(sources)
        try:
            while self._batch(items):
                pass  # in a function, so that no large frame is kept while the next is read
            self.pictures.finish()
        finally:
            self.pictures.discard()
            self.part.close()
            self.progress.close()
        self.done.seconds = time.perf_counter() - started
        return self.done

    def _batch(self, items: Iterator[_Item]) -> int:
        """Predict and write the next frames; how many there were."""
        batch = list(islice(items, self.size))
        new = [item.frame for item in batch if item.frame and item.earlier is None]
        predictions = dict(zip(map(id, new), self._predictions(new), strict=True))
        for item in batch:
            self._take(item, predictions.get(id(item.frame)))
        return len(batch)

    def _items(self, sources: Sequence[Source]) -> Iterator[_Item]:
        """Every frame that is left, and those before it that its track or its video needs."""
        for source in sources:
            stamp, known = stamp_of(source), self.record.now(source)
            earlier = self.record.earlier(known) if known else iter(())
            if known and known.complete:
                if not known.several:
                    yield from (_Item(source, stamp, earlier=found) for _, found in earlier)
                continue
            count, several, following = 0, False, next(earlier, None)
            try:
                for frame in read(source, self.config.range, self.config.max_megapixels):
                    if frame.index == 0:
                        self.progress.expect(frame.of - 1)
                    found = None
                    if following and following[0] == (frame.index or 0):
                        found, following = following[1], next(earlier, None)
                    count, several = count + 1, frame.index is not None
                    yield _Item(source, stamp, frame, found)
                    del frame
            except InputError as error:
                self.skip(f"{source.path}: {error}{f'. {count} frames are kept' if several else ''}")
            if several:
                yield _Item(source, stamp)

    def _predictions(self, frames: Sequence[Frame]) -> list[Prediction | None]:
        """None for a frame that cannot be predicted."""
        if not frames:
            return []
        started = time.perf_counter()
        try:
            predictions = self.predictor.batch([frame.image for frame in frames])
        except InputError as error:
            if len(frames) > 1:  # which of them is it?
                return [one for frame in frames for one in self._predictions([frame])]
            self.skip(f"{frames[0].source} ({frames[0].name}): {error}")
            return [None]
        self.done.network += time.perf_counter() - started
        return list(predictions)

    def _take(self, item: _Item, prediction: Prediction | None) -> None:
        """Write a frame's pictures, then its line."""
        if item.frame is None and item.earlier is None:
            self.pictures.finish()
            self.part.end(item.source, item.stamp)
            return
        if item.frame is not None:
            self.progress.add()
        failed = item.earlier is None and prediction is None
        if failed and item.frame is not None and item.frame.rate is None:
            return  # of a video, the frame is shown
        found = prediction.detections if prediction else item.earlier or []
        numbers = [one.id for one in found]
        if self.config.track:
            of = sequence(item.source.file, item.frame.index if item.frame else None)
            numbers = self.trackers[of].update(found)
        if item.frame is not None:
            self.pictures.draw(item.frame, found, numbers)
        if item.frame is not None and prediction is not None:
            self.pictures.write(item.frame, prediction)
            self.part.frame(item.source, item.stamp, item.frame, found)
            self.done.frames += 1
            height, width = item.frame.image.shape[:2]
            self.done.flooded += any(one.area > height * width / 2 for one in found)


def _predictor(config: PredictConfig, world: World) -> Predictor:
    if not world.main:
        logging.getLogger("sam_spl").setLevel(logging.ERROR)  # one process says it for all
    return load(
        config.weights,
        str(world.device),
        config.precision,
        engine=config.engine,
        dataset=config.dataset,
        train_size=config.train_size,
        image_size=side(config.image_size, "image_size"),
        network=config.model,
        threshold=config.threshold,
        min_area=config.min_area,
        top=config.top,
        tta=config.tta,
        tile=side(config.tile, "tile"),
    )


def _compile(config: PredictConfig, predictor: Predictor, world: World, share: Sequence[Source]) -> None:
    """Compile the network where it sees all frames at one size and it pays."""
    size, model = predictor.image_size, predictor.model
    if size is None:
        if config.compile == "true":
            raise ConfigError("compile: frames of many sizes. Set image_size, or leave compile=true out.")
        return
    shape = (config.batch_size or usual_batch(predictor.world), channels_of(model), size, size)
    frames = sum(map(expected_frames, share))
    for turn in (world.main, not world.main):  # the others take what the first has made
        if turn:
            predictor.model = compiled(model, shape, predictor.world, wanted=config.compile, images=frames)
        world.barrier()


def usual_batch(world: World) -> int:
    """Frames that are predicted together: a CPU gains nothing."""
    return 1 if world.device.type == "cpu" else _BATCH


def _settings(config: PredictConfig, predictor: Predictor) -> dict[str, Any]:
    """What results depend on."""
    keys = ("min_area", "top", "tta", "tile", "range", "save", "track")
    return {
        "weights": sha256(find_weights(config.weights)),
        "threshold": predictor.threshold,
        "image_size": predictor.image_size,
        "precision": precision_name(predictor.model, predictor.world),
        **{key: getattr(config, key) for key in keys},
    }


def _share(sources: Sequence[Source], record: Record, world: World, *, track: bool) -> list[Source]:
    """The sources of this process that are not complete; of tracked ones, whole sequences."""
    units: dict[str, list[Source]] = {}
    for source in sources:
        alone = not track or source.path.suffix.lower() in VIDEOS
        units.setdefault(source.file if alone else sequence(source.file, None), []).append(source)

    def complete(source: Source) -> bool:
        known = record.now(source)
        return known is not None and known.complete

    left = [unit for unit in units.values() if not all(map(complete, unit))]
    return [source for unit in left[world.rank :: world.size] for source in unit]


def _finish(
    config: PredictConfig, folder: Path, settings: Mapping[str, Any], predictor: Predictor, done: Done
) -> None:
    """Join what all processes have written, and say what there is.

    Raises:
        InputError: nothing could be predicted, now or before.
    """
    joined = Record(folder).join(track=config.track)
    if not joined.frames:
        remove(folder)
        raise InputError(f"no frame could be predicted: {len(done.skipped)} skipped, named above.")
    world = predictor.world
    about: dict[str, Any] = {"weights_file": str(find_weights(config.weights)), "version": __version__}
    about |= {"device": str(world.device), "frames": joined.frames}
    about |= {"detections": joined.detections, "ranges": joined.ranges, "skipped": done.skipped}
    write_text(folder / SETTINGS, json.dumps({"settings": settings, **about}, indent=1) + "\n")

    ranges = ", ".join(f"{rule} ({count})" for rule, count in joined.ranges.most_common())
    frames, found = _number(joined.frames, "frame"), _number(joined.detections, "detection")
    print(f"{frames}, {found}, {len(done.skipped)} skipped")
    if done.frames:
        each, network = (1e3 * seconds / done.frames for seconds in (done.seconds, done.network))
        print(
            f"{done.frames} predicted now: {each:.0f} ms each, {network:.0f} of them in the network "
            f"({world.device}, {precision_name(predictor.model, world)})"
        )
    print(f"values to [0, 1]: {ranges}")
    if done.flooded:
        print(
            f"note: in {_number(done.flooded, 'frame')} one detection covers more than half of the picture: "
            "these weights do not fit such pictures"
        )
    if promise := _promise(config, predictor, joined):
        print(f"note: {promise}")
    written = [name for name in WRITTEN if name not in (PARTS, SETTINGS) and (folder / name).exists()]
    print(f"{', '.join(written)} are in {folder}")


def _number(count: int, of: str) -> str:
    return f"{count} {of}{'' if count == 1 else 's'}"


def _promise(config: PredictConfig, predictor: Predictor, joined: Joined) -> str | None:
    """What keeps these frames from what calibration promised of the threshold; None if nothing does."""
    if predictor.calibration is None or predictor.threshold != predictor.calibration.get("threshold"):
        return None
    sides = {predictor.tile_of(height, width) for height, width in joined.sizes}
    return unlike(
        predictor.calibration,
        {
            "image_size": predictor.image_size,
            "precision": precision_name(predictor.model, predictor.world),
            "tta": config.tta,
            "tile": max(sides, key=lambda side: side or 0, default=None),
            "range": next((rule for rule in joined.ranges if rule != "full"), "full"),
        },
    )


def _wait(folder: Path, world: World, done: Done) -> Done:
    """What all processes have done, on the main one, when they have ended.

    By files: one process may be busy with a film for hours, which is too long for a collective operation.
    """
    if not world.main:
        write_text(_end_of(folder, world.rank), json.dumps(asdict(done)))
        return done
    for rank in range(1, world.size):
        while not (end := _end_of(folder, rank)).exists():
            time.sleep(_LOOK)
        other = Done(**json.loads(end.read_text("utf-8")))
        end.unlink()
        done.frames, done.network = done.frames + other.frames, done.network + other.network
        done.flooded += other.flooded
        done.seconds, done.skipped = max(done.seconds, other.seconds), [*done.skipped, *other.skipped]
    return done


def _end_of(folder: Path, rank: int) -> Path:
    return folder / PARTS / f"{rank}.end"
