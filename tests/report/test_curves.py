from __future__ import annotations

import cv2
import numpy as np
from matplotlib.figure import Figure

from sam_spl.report.curves import draw_curves


def test_curves_show_the_loss_of_each_epoch_and_scores_where_there_are_some(tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    rows = [
        {"epoch": 1, "loss": 0.5},
        {"epoch": 2, "loss": 0.3, "iou": 0.4, "pd": 0.9},
        {"epoch": 3, "loss": 0.2},
    ]
    draw_curves(rows, tmp_path / "curves.png")
    loss, scores = drawn[0].axes
    np.testing.assert_array_equal(loss.lines[0].get_data(), [[1, 2, 3], [0.5, 0.3, 0.2]])
    assert [line.get_data()[1].tolist() for line in scores.lines] == [[0.4], [0.9]]
    assert cv2.imread(str(tmp_path / "curves.png")).shape == (480, 1200, 3)
    draw_curves(rows[:1], tmp_path / "curves.png")
    assert len(drawn[1].axes) == 1
    alone = [loss.lines[0], scores.lines[0], drawn[1].axes[0].lines[0]]  # of 3, 1 and 1 epochs
    assert [line.get_marker() for line in alone] == ["", "o", "o"]
