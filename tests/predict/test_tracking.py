"""A target keeps its id over the frames, in cases whose answer is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from sam_spl.errors import ConfigError
from sam_spl.predict.detections import Detection
from sam_spl.predict.tracking import Tracker


def _at(*positions: tuple[float, float]) -> list[Detection]:
    return [
        Detection(number, position, (0, 0, 1, 1), 1, 0.9, 0.9, None)
        for number, position in enumerate(positions, 1)
    ]


def test_targets_that_cross_at_constant_velocity_keep_their_ids():
    """One goes right, one left, half a pixel apart in rows: the nearer one is wrong at the crossing."""
    tracker = Tracker(gate=5)
    for frame in range(21):
        one, other = (50.0, 10 + 3.0 * frame), (50.5, 70 - 3.0 * frame)
        assert tracker.update(_at(one, other) if frame % 2 else _at(other, one)[::-1]) == [1, 2]
    np.testing.assert_allclose([track.velocity for track in tracker.tracks], [[0, 3], [0, -3]], atol=1e-9)


def test_a_target_keeps_its_id_over_as_many_missed_frames_as_stated():
    for missed in range(6):
        tracker = Tracker(gate=4, max_missed=3)
        assert [tracker.update(_at((20.0, 2.0 * frame))) for frame in range(5)] == [[1]] * 5
        assert [tracker.update([]) for _ in range(missed)] == [[]] * missed
        frame = 5 + missed  # where constant velocity has taken it, which is far from where it was seen last
        assert tracker.update(_at((20.0, 2.0 * frame))) == [1 if missed <= 3 else 2]
        assert len(tracker.tracks) == 1


def test_new_targets_get_new_ids_and_no_id_comes_back():
    tracker = Tracker(gate=3, max_missed=0)
    assert tracker.update(_at((10, 10), (40, 40))) == [1, 2]
    assert tracker.update(_at((70, 70), (40, 40), (10, 11))) == [3, 2, 1]
    assert tracker.update(_at((40, 40))) == [2]
    assert tracker.update(_at((10, 12), (70, 70), (40, 40))) == [4, 5, 2]
    assert tracker.update([]) == []
    assert tracker.update(_at((40, 40))) == [6]


def test_the_gate_is_a_distance_for_each_frame():
    for frames, distance, same in ((1, 4.9, True), (1, 5.1, False), (3, 14.9, True), (3, 15.1, False)):
        tracker = Tracker(gate=5)
        tracker.update(_at((30, 30)))
        for _ in range(frames - 1):
            tracker.update([])
        angle = 0.7
        moved = (30 + distance * np.sin(angle), 30 + distance * np.cos(angle))
        assert (tracker.update(_at(moved)) == [1]) is same


def test_a_target_in_place_is_not_given_up_for_one_more_pair():
    """Two shifted pairs are possible where one fits exactly and one target is gone."""
    tracker = Tracker(gate=5)
    assert tracker.update(_at((10, 10), (10, 14))) == [1, 2]
    assert tracker.update(_at((10, 14), (10, 18))) == [2, 3]


def test_a_lost_track_with_its_wide_gate_takes_no_detection_of_one_that_goes_on():
    tracker = Tracker(gate=5)
    assert tracker.update(_at((10, 10), (10, 16))) == [1, 2]
    for _ in range(2):
        assert tracker.update(_at((10, 16))) == [2]
    assert tracker.update(_at((10, 15))) == [2]


@pytest.mark.parametrize("seed", range(20))
def test_the_pairs_are_the_best_of_all(seed):
    """Against every assignment, and no id twice in a frame."""
    rng = np.random.default_rng(seed)
    tracker = Tracker(gate=4)
    before = rng.uniform(0, 12, (rng.integers(1, 6), 2))
    after = rng.uniform(0, 12, (rng.integers(1, 6), 2))
    first, second = (tracker.update(_at(*map(tuple, positions))) for positions in (before, after))
    assert first == list(range(1, len(before) + 1))
    assert len(set(second)) == len(second)

    gain = np.maximum(1 - (np.linalg.norm(before[:, None] - after, axis=-1) / 4) ** 2, 0)
    gain = gain if len(before) <= len(after) else gain.T
    best = max(
        sum(gain[row, column] for row, column in enumerate(columns))
        for columns in permutations(range(gain.shape[1]), gain.shape[0])
    )
    kept = [(number, after[k]) for k, number in enumerate(second) if number <= len(before)]
    reached = sum(1 - (np.linalg.norm(before[number - 1] - place) / 4) ** 2 for number, place in kept)
    assert reached == pytest.approx(best)


def test_many_frames_of_clutter_give_every_id_once_a_frame():
    rng, tracker, given = np.random.default_rng(0), Tracker(), set()
    for _ in range(60):
        ids = tracker.update(_at(*map(tuple, rng.uniform(0, 80, (rng.integers(0, 30), 2)))))
        assert len(set(ids)) == len(ids)
        new = {number for number in ids if number not in given}
        assert new == set(range(len(given) + 1, len(given) + len(new) + 1))
        given |= new
        assert len(tracker.tracks) <= 30 * 4


@pytest.mark.parametrize("options", [{"gate": 0}, {"gate": -1.0}, {"gate": float("nan")}, {"max_missed": -1}])
def test_settings_that_are_none_are_refused(options):
    with pytest.raises(ConfigError, match=r"is not valid, give a number"):
        Tracker(**options)
