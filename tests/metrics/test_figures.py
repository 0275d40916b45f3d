"""The table of figures: complete, and the only place of titles and units."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from sam_spl.metrics import Counter, protocols_named
from sam_spl.metrics.curves import CURVE_FIELDS, STEPS, curve_figures
from sam_spl.metrics.figures import FIGURES, MAIN, figures, hierarchical_figures
from sam_spl.results.summary import summarise
from sam_spl.results.text import summary_text


def test_every_formula_has_its_entry_and_every_entry_its_formula():
    ones = defaultdict(lambda: np.ones(()))
    computed = {
        *figures(ones),
        *hierarchical_figures(ones),
        *curve_figures(np.ones((STEPS, len(CURVE_FIELDS))), 1, 1, 2)["figures"],
        "pd_by_size",  # a family, one a size class
    }
    assert computed == set(FIGURES)
    assert all(figure.key == key and figure.definition.endswith(".") for key, figure in FIGURES.items())
    worse = {key for key, figure in FIGURES.items() if not figure.higher_is_better}
    assert worse == {"fa", *(key for key in FIGURES if key.endswith("_err"))}


@pytest.mark.parametrize(
    ("key", "value", "text", "full"),
    [
        ("iou", 0.72361, "72.36", "72.36 % [70.00, 75.12]"),
        ("fa", 12.3456e-6, "12.35", "12.35 x 1e-6 [700000.00, 751234.00]"),
        ("auc_target", 0.98765, "0.9877", "0.9877 [0.7000, 0.7512]"),
        ("pd", None, "-", "-"),
        ("pd", float("nan"), "-", "-"),
    ],
)
def test_a_figure_is_written_in_its_unit(key, value, text, full):
    assert FIGURES[key].text(value) == text
    assert FIGURES[key].full(value, (0.7, 0.751234)) == full
    assert FIGURES[key].full(value) == full.split(" [")[0]


def test_result_files_and_tables_take_titles_units_and_definitions_from_the_table():
    counter = Counter(protocols_named(["native", "sam_spl"]), detailed=True)
    mask = np.zeros((32, 32), bool)
    mask[4:7, 4:7] = True
    counts = counter.unpack(np.array([counter.row(0, {"own": 1.0 * mask, "input": 0.0 * mask}, mask)]))
    report = summarise(counts, ["a"], protocols_named(["native", "sam_spl"]), bootstrap=10)
    assert report["figures"] == {key: figure.describe() for key, figure in FIGURES.items()}
    assert report["figures"]["fa"]["scale"] == 1e6
    printed = summary_text(report)
    for figure in (*MAIN, FIGURES["pixel_accuracy"], FIGURES["hiou"], FIGURES["pd_at_fa"]):
        assert f"\n{figure.title}" in printed
    assert all(f" {figure.heading}" in printed for figure in MAIN)
    assert FIGURES["pd_at_fa"].note == "best threshold on these images"
    assert FIGURES["pd_at_fa"].note in printed


def test_a_budget_that_no_threshold_keeps_is_told_with_the_lowest_fa():
    """A false alarm of 4 pixels in 1024, at probability 1: Pd is 1, but at no threshold within 10e-6."""
    mask, prob = np.zeros((32, 32), bool), np.zeros((32, 32))
    mask[4:7, 4:7] = True
    prob[mask], prob[20:22, 20:22] = 1, 1
    counter = Counter(detailed=True)
    for false, expected in (
        (True, "not reached   the lowest Fa of any threshold is 3906.25 x 1e-6"),
        (False, "100.00 %   best threshold on these images"),
    ):
        counts = counter.unpack(np.array([counter.row(0, {"own": prob if false else prob * mask}, mask)]))
        printed = summary_text(summarise(counts, ["a"], protocols_named(["native"])))
        (line,) = (line for line in printed.splitlines() if line.startswith("Pd at Fa <= 10e-6"))
        assert line.endswith(expected)
