"""Two things tested on the same images: whether they differ by more than chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from sam_spl.errors import ConfigError, InputError
from sam_spl.metrics.comparison import Comparison, compare_runs, paired_test
from sam_spl.metrics.figures import MAIN, Figure, figures
from sam_spl.results.compare import bounds, text_table
from sam_spl.results.files import Report, columns_of
from sam_spl.results.runs import (
    described,
    distinct,
    groups_in,
    repeats,
    run_name,
    same_images,
    setting,
    several_tests,
)

_CLAIM = 0.01  # of a figure in percent: one point


def two_sides(reports: Sequence[Report]) -> tuple[list[Report], list[Report]]:
    """The two things that results are of: two results, or the runs of two settings.

    Raises:
        ConfigError: they are of more than two things, or of one.
    """
    if len(reports) == 2:
        return [reports[0]], [reports[1]]
    sides: dict[tuple[str, ...], list[Report]] = defaultdict(list)
    for report in reports:
        sides[setting(report, report["protocol"])].append(report)
    if len(sides) != 2:
        raise ConfigError(
            f"--paired: {len(reports)} results of {len(sides)} settings; it takes two results, or runs of "
            "two settings. Name the sides: sam-spl compare A1 A2 --against B1 B2."
            f"{several_tests(reports)}"
        )
    first, second = sides.values()
    return first, second


def paired(a: Sequence[Report], b: Sequence[Report], *, resamples: int = 10000) -> str:
    """How two things differ that were tested on the same images, as text.

    One result a side: difference, interval over images, and p by approximate randomization. Runs on a side:
    means, difference, interval over runs and images, probability that a run of the first is better than one
    of the second, and how many runs a side it would take to tell one point (a dash where runs agree by
    chance). Where the sides differ in the network's input size or in precision, a first line says so. All
    under the first protocol of the first result.

    Args:
        a: results of one thing, one a run.
        b: of another.
        resamples: exchanges of the test; intervals take a tenth.

    Raises:
        ConfigError: a side holds results of several settings, or the two have one in common.
        InputError: they are not of the same images, masks and rules.
    """
    name = a[0]["protocol"]
    for report in (*a, *b):
        if name not in report["protocols"]:
            raise InputError(
                f"--paired: {run_name(report)} was not scored under {name}. Test it with protocols=[{name}]."
            )
    a, b = distinct(a, name)[0], distinct(b, name)[0]
    for side in (a, b):
        settings = {setting(report, name) for report in side if report["weights"].get("settings")}
        if len(settings) > 1:
            raise ConfigError(
                f"--against: {', '.join(map(run_name, side))} are of {len(settings)} settings. A side takes "
                f"runs that differ in their seed only.{several_tests([*a, *b])}"
            )
    if twins := [one for one in a for other in b if repeats(one, other, name)]:
        raise ConfigError(f"--paired: {run_name(twins[0])} is on both sides. Name two different results.")
    tables = same_images([*a, *b], name)
    columns, groups = [columns_of(list(rows.values())) for rows in tables], groups_in(tables[0])
    compared = compare_runs(
        columns[: len(a)], columns[len(a) :], figures, groups=groups, resamples=max(resamples // 10, 100)
    )
    in_groups = f" in {len(set(groups))} groups" if groups else ""
    where = f"{len(tables[0])} images{in_groups}, protocol {name}"
    unlike = _unlike(a, b, name)
    if len(a) > 1 or len(b) > 1:
        return "\n".join([*unlike, _methods(a, b, compared, where)])
    tested = paired_test(columns[0], columns[1], figures, groups=groups, resamples=resamples)
    lines = [
        f"{figure.heading:<8} {_signed(figure, compared[figure.key])}   p = {result[1]:.4f}"
        for figure in MAIN
        if (result := tested[figure.key])
    ]
    head = f"{run_name(a[0])} minus {run_name(b[0])} on {where}"
    key = f"in brackets: 95 % intervals over images; p: of {resamples} random exchanges"
    tail = "One run a side: this is about these two weights only, not about training again."
    return "\n".join([*unlike, f"{head}; {key}", *lines, tail])


def _unlike(a: Sequence[Report], b: Sequence[Report], protocol: str) -> list[str]:
    """A line on how the sides were run, where that differs: allowed, but a reader must know."""
    parts = []
    for key in ("input", "precision"):
        of_a, of_b = (
            "/".join(sorted({str(described(run, protocol)[key]) for run in side})) for side in (a, b)
        )
        if of_a != of_b:
            parts.append(f"{key} ({of_a} against {of_b})".replace("-", "not stated"))
    return [f"the sides differ in {' and '.join(parts)}: what follows is of that as well"] if parts else []


def _methods(a: Sequence[Report], b: Sequence[Report], compared: dict[str, Comparison], where: str) -> str:
    """Two methods of which at least one has several runs."""
    lines = []
    for side, runs in (("A", a), ("B", b)):
        alone = "; its training is taken to vary as the other's does" if len(runs) == 1 else ""
        lines.append(
            f"{side}: {len(runs)} run{'s' * (len(runs) > 1)}, {', '.join(map(run_name, runs))}{alone}"
        )
    lines.append(f"on {where}; in brackets: 95 % intervals over runs and images")
    header = ["", "A", "B", "A - B", "P(A better)", "runs a side to tell 1 point"]
    body = [
        [
            figure.heading,
            *(figure.text(mean) for mean in of.means),
            _signed(figure, of),
            f"{of.first_larger if figure.higher_is_better else of.first_smaller:.2f}",
            _seeds(figure, of, min(len(a), len(b))),
        ]
        for figure in MAIN
        if not np.isnan((of := compared[figure.key]).value)
    ]
    return "\n".join([*lines, text_table(header, {"": body}, 1)])


def _signed(figure: Figure, of: Comparison) -> str:
    return f"{figure.scale * of.value:+.{figure.decimals}f}{bounds(figure, of, '+')}"


def _seeds(figure: Figure, of: Comparison, have: int) -> str:
    if figure.unit != "%" or not of.spread_known:
        return "-"
    count = of.seeds(_CLAIM)
    if count is None:
        return "no number: the images leave more"
    return f"{count} ({max(count - have, 0)} more)"
