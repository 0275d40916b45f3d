"""Pictures for papers show what was counted: checked on the figures themselves, not on their pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_hex
from mpl_toolkits.mplot3d import Axes3D

from sam_spl.metrics import protocols_named
from sam_spl.metrics.curves import HALF, levels
from sam_spl.report.figures import grid, roc_and_pr, surfaces, write_figures
from sam_spl.report.page import Sample
from sam_spl.results.summary import summarise
from tests.report.conftest import NAMES, counts_of


@pytest.fixture(scope="module")
def details(predicted):
    report = summarise(counts_of(*predicted, ["native"]), NAMES, protocols_named(["native"]))
    return report["details"]


def test_every_picture_is_written_as_png_and_pdf(predicted, details, tmp_path):
    files = write_figures(tmp_path, details, predicted[0][:2])
    names = ("roc", "pr", "grid", "surfaces")
    assert [path.name for path in files] == [f"{name}.{form}" for name in names for form in ("png", "pdf")]
    assert all(path.read_bytes().startswith(b"%PDF") for path in files if path.suffix == ".pdf")
    pictures = {path.stem: cv2.imread(str(path)) for path in files if path.suffix == ".png"}
    assert pictures["roc"].shape[1] == pictures["grid"].shape[1] == 1440  # 7.2 inches at 200 dots
    assert not np.array_equal(pictures["roc"], pictures["pr"])
    assert len(write_figures(tmp_path / "no", details, [])) == 4  # without images curves only


@pytest.mark.parametrize(
    ("name", "panel", "x", "y", "area"),
    [
        ("roc", 0, ("target", "fa"), ("target", "pd"), "auc_target"),
        ("roc", 1, ("pixel", "fpr"), ("pixel", "tpr"), "auc_pixel"),
        ("pr", 0, ("target", "pd"), ("target", "precision"), "ap_target"),
        ("pr", 1, ("pixel", "tpr"), ("pixel", "precision"), "ap_pixel"),
    ],
)
def test_a_curve_goes_through_its_points_and_nothing_covers_it(details, name, panel, x, y, area):
    figure = roc_and_pr(details)[name]
    axis = figure.axes[panel]
    ((xs, ys),) = (line.get_data() for line in axis.lines)
    first = 1 if x[0] == "target" else 0  # at threshold 0 all is one component
    pairs = zip(details[f"{x[0]}_curve"][x[1]][first:], details[f"{y[0]}_curve"][y[1]][first:], strict=True)
    points = [(a, b) for a, b in pairs if a is not None and b is not None and (a > 0 or name == "pr")]
    assert len(points) > 20
    np.testing.assert_array_equal(np.stack([xs, ys], 1), points)
    assert axis.get_xscale() == ("log" if name == "roc" else "linear")
    assert f"{details['curves'][area]:.4f}" in axis.get_title()
    assert axis.get_legend() is None
    figure.draw_without_rendering()
    assert axis.title.get_window_extent().y0 >= axis.bbox.y1


def test_a_grid_shows_image_mask_and_prediction_with_every_target_boxed(predicted):
    samples, probs = predicted
    images = counts_of(samples[:3], probs[:3], ["native"]).images()
    figure = grid(samples[:3])
    rows = np.array(figure.axes[:9]).reshape(3, 3)
    for row, sample, counted in zip(rows, samples, images, strict=False):
        shown = [axis.images[0].get_array() for axis in row]
        np.testing.assert_array_equal(shown[1], sample.mask)
        np.testing.assert_array_equal(shown[2], sample.level > HALF)
        assert row[0].get_ylabel() == sample.name
        of_mask, of_prediction = (
            [to_hex(box.get_edgecolor()) for box in axis.patches] for axis in (row[1], row[2])
        )
        assert of_mask.count("#009e73") == counted.detected
        assert of_mask.count("#e69f00") == counted.targets - counted.detected
        assert of_prediction == of_mask + ["#d55e00"] * counted.false_alarms
    assert sum(image.targets for image in images) > 2 < sum(image.false_alarms for image in images)


def test_surfaces_keep_the_peaks_of_small_targets(monkeypatch):
    """Of 400x400 pixels every fifth is drawn, at the largest value around it: one pixel is seen."""
    drawn = []
    monkeypatch.setattr(Axes3D, "plot_surface", lambda self, *values, **_: drawn.append(values))
    image, mask, prob = np.zeros((400, 400), np.uint8), np.zeros((400, 400), bool), np.zeros((400, 400))
    mask[123, 234], prob[123, 234] = True, 0.8
    surfaces([Sample("a", image, mask, levels(prob))])
    for (x, y, values), top in zip(drawn, (0, 1, 0.8), strict=True):
        assert values.shape == (80, 80)
        assert values.max() == pytest.approx(top, abs=0.02)
        if top:
            at = np.unravel_index(values.argmax(), values.shape)
            assert (x[at], y[at]) == (230, 120)
