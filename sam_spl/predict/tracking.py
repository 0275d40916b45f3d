"""One id per target over the frames of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sam_spl.errors import ConfigError
from sam_spl.predict.detections import Detection

_GAIN = 0.5  # of the newest displacement in a velocity: centroids of small targets jump by half a pixel


@dataclass
class Track:
    """What is known of one target.

    Attributes:
        id: from 1, in the order of appearance; never given again.
        position: (row, column) where it was seen last.
        velocity: pixels a frame; 0 until it is seen twice.
        frames: since it was seen last, 1 in the next frame.
        seen: how often it was.
    """

    id: int
    position: NDArray[np.float64]
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    frames: int = 0
    seen: int = 1

    @property
    def expected(self) -> NDArray[np.float64]:
        """(row, column) in this frame, at constant velocity."""
        return self.position + self.frames * self.velocity

    def see(self, position: NDArray[np.float64]) -> None:
        """Go on at ``position`` in this frame."""
        gain = 1.0 if self.seen == 1 else _GAIN
        self.velocity = self.velocity + gain * (position - self.expected) / self.frames
        self.position, self.frames, self.seen = position, 0, self.seen + 1


class Tracker:
    """Give detections the ids of their targets, frame by frame.

    Each track expects its target at constant velocity. Of all pairs of a track and a detection inside the
    track's gate, those are taken that explain the frame best: the sum over the pairs of 1 - (distance / gate
    radius)^2 is the largest possible. A detection that is left over begins a track.

    Args:
        gate: pixels that a target may be from where it is expected (a new one: from where it was first
            seen), for each frame since it was last seen.
        max_missed: frames in a row that a target may be missed in without losing its id.

    Attributes:
        tracks: those that go on, in the order of their ids.

    Raises:
        ConfigError: a gate that is not above 0, or a negative number of frames.
    """

    def __init__(self, gate: float = 10.0, max_missed: int = 3) -> None:
        if not gate > 0:
            raise ConfigError(f"gate: {gate!r} is not valid, give a number of pixels above 0.")
        if max_missed < 0:
            raise ConfigError(f"max_missed: {max_missed!r} is not valid, give a number of frames, 0 or more.")
        self.gate, self.max_missed = gate, max_missed
        self.tracks: list[Track] = []
        self._next = 1

    def update(self, detections: Sequence[Detection]) -> list[int]:
        """Take the next frame's detections, none for an empty frame.

        Returns:
            The id of each detection's track, all different.
        """
        for track in self.tracks:
            track.frames += 1
        positions = np.array([one.centroid for one in detections], np.float64).reshape(-1, 2)
        ids = [0] * len(positions)
        for track, index in self._pairs(positions):
            track.see(positions[index])
            ids[index] = track.id
        for index in (index for index, given in enumerate(ids) if not given):
            ids[index] = self._next
            self.tracks.append(Track(self._next, positions[index]))
            self._next += 1
        self.tracks = [track for track in self.tracks if track.frames <= self.max_missed]
        return ids

    def _pairs(self, positions: NDArray[np.float64]) -> list[tuple[Track, int]]:
        if not self.tracks or not len(positions):
            return []
        expected = np.stack([track.expected for track in self.tracks])
        radius = self.gate * np.array([track.frames for track in self.tracks])
        distance = np.linalg.norm(expected[:, None] - positions, axis=-1)  # (tracks, detections)
        # A pair on its gate or outside gains nothing, so it may be assigned and is dropped.
        gain = np.maximum(1 - (distance / radius[:, None]) ** 2, 0)
        rows, columns = linear_sum_assignment(gain, maximize=True)
        taken = gain[rows, columns] > 0
        return [
            (self.tracks[row], int(column)) for row, column in zip(rows[taken], columns[taken], strict=True)
        ]
