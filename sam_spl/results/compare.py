"""Results of several tests side by side, and what chance makes of their differences."""

from __future__ import annotations

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam_spl.errors import ConfigError, InputError, nearest
from sam_spl.metrics.figures import MAIN, Figure, figures
from sam_spl.metrics.protocols import EMPTY_IMAGE
from sam_spl.metrics.uncertainty import Comparison, compare_runs, paired_test
from sam_spl.results.files import Report, columns_of, rows_of

Rows = dict[str, dict[str, Any]]  # image's name -> what it adds

_CLAIM = 0.01  # of a figure in percent: one point
#: What must be equal, image by image, for a paired comparison; the last three are those of masks as they are scored.
_SAME = {
    ("height", "width"): "the sizes of images",
    ("mask",): "the content of masks",
    ("group",): "groups (dataset.group)",
    ("pixels", "labelled", "targets"): "the resolution that masks are scored at",
}
#: Parts of a protocol's description that are results, not rules.
_NOT_RULES = ("scores", "intervals", "differs", "images")


def distinct(reports: Sequence[Report], protocol: str | None = None) -> tuple[list[Report], list[str]]:
    """Each run once, and one line for every result that repeats another.

    Two results repeat each other if they are of the same weights (or, of runs of one name, count the same in every
    image), on the same images, at one precision and input size.

    Args:
        reports: contents of ``results.json``.
        protocol: the one that matters; None: all that a result was scored under.
    """
    kept: list[Report] = []
    notes = []
    for report in reports:
        twin = next((other for other in kept if _repeats(report, other, protocol)), None)
        if twin is None:
            kept.append(report)
        else:
            files = f"{report['weights']['file']} repeats {twin['weights']['file']}"
            notes.append(f"counted once: {files} on {report['dataset']['name']}")
    return kept, notes


def table(reports: Sequence[Report], form: str = "text") -> str:
    """One row a test and protocol; under several runs of one thing, their mean with an interval over runs and images.

    Of the columns that say what was tested and how, those that are the same everywhere stand above.

    Args:
        reports: contents of ``results.json``.
        form: text, markdown, latex or csv; the last has every column and full precision, and no means.

    Raises:
        ConfigError: another form.
    """
    if form not in _FORMS:
        raise ConfigError(f"--format: {form!r} is unknown. Nearest: {nearest(form, _FORMS)}")
    tests = [(report, name) for report in reports for name in report["protocols"]]
    about = [_about(report, name) for report, name in tests]
    scored = [report["protocols"][name]["scores"] for report, name in tests]
    if form == "csv":
        stream = io.StringIO()
        keys = dict.fromkeys(key for scores in scored for key in scores)
        writer = csv.DictWriter(stream, [*about[0], *keys], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **scores} for row, scores in zip(about, scored, strict=True))
        return stream.getvalue().rstrip("\n")
    shown = [key for key in about[0] if key in ("model", "trained on", "tested on") or _differs(key, about)]
    common = "; ".join(
        f"{key} {about[0][key]}"
        for key in about[0]
        if key not in shown and _one(key, about) and about[0][key] != "-"
    )
    body = [
        [*(str(row[key]) for key in shown), *(figure.text(scores[figure.key]) for figure in MAIN)]
        for row, scores in zip(about, scored, strict=True)
    ]
    ways = set()
    for name, runs in _repeated(tests):
        row = _about(runs[0], name)
        cells, way = _means(runs, name)
        ways.add(way)
        body.append([*(f"mean of {len(runs)}" if key == "run" else str(row[key]) for key in shown), *cells])
    if ways:
        common = "; ".join([*([common] if common else []), *sorted(ways)])
    return _FORMS[form]([*shown, *(figure.heading for figure in MAIN)], body, len(shown), common)


def two_sides(reports: Sequence[Report]) -> tuple[list[Report], list[Report]]:
    """The two things that results are of: two results, or the runs of two settings.

    Raises:
        ConfigError: they are of more than two things, or of one.
    """
    if len(reports) == 2:
        return [reports[0]], [reports[1]]
    groups: dict[tuple[str, ...], list[Report]] = defaultdict(list)
    for report in reports:
        groups[_thing(report, report["protocol"])].append(report)
    if len(groups) != 2:
        raise ConfigError(
            f"--paired: {len(reports)} results of {len(groups)} settings; it takes two results, or runs of two "
            "settings. Name the sides: compare.py A1 A2 --against B1 B2"
        )
    first, second = groups.values()
    return first, second


def paired(a: Sequence[Report], b: Sequence[Report], *, resamples: int = 10000) -> str:
    """How two things differ that were tested on the same images, as text.

    One result a side: difference, interval over images, and p by approximate randomization. Runs on a side: means,
    difference, interval over runs and images, probability that a run of the first is better than one of the second,
    and how many runs a side it would take to tell one point (a dash where runs agree by chance).
    Where the sides differ in the network's input size or in precision, a first line says so.
    All under the first protocol of the first result.

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
                f"--paired: {_run(report)} was not scored under {name}. Test it with protocols=[{name}]."
            )
    a, b = distinct(a, name)[0], distinct(b, name)[0]
    for side in (a, b):
        settings = {_thing(report, name) for report in side if report["weights"].get("settings")}
        if len(settings) > 1:
            raise ConfigError(
                f"--against: {', '.join(map(_run, side))} are of {len(settings)} settings. A side takes runs that "
                "differ in their seed only."
            )
    if twins := [one for one in a for other in b if _repeats(one, other, name)]:
        raise ConfigError(f"--paired: {_run(twins[0])} is on both sides. Name two different results.")
    tables = _same_images([*a, *b], name)
    columns, groups = [columns_of(list(rows.values())) for rows in tables], _groups(tables[0])
    compared = compare_runs(
        columns[: len(a)], columns[len(a) :], figures, groups=groups, resamples=max(resamples // 10, 100)
    )
    where = (
        f"{len(tables[0])} images"
        + (f" in {len(set(groups))} groups" if groups else "")
        + f", protocol {name}"
    )
    unlike = _unlike(a, b, name)
    if len(a) > 1 or len(b) > 1:
        return "\n".join([*unlike, _methods(a, b, compared, where)])
    tested = paired_test(*columns, figures, groups=groups, resamples=resamples)
    lines = [
        f"{figure.heading:<8} {_signed(figure, compared[figure.key])}   p = {result[1]:.4f}"
        for figure in MAIN
        if (result := tested[figure.key])
    ]
    head = f"{_run(a[0])} minus {_run(b[0])} on {where}; in brackets: 95 % intervals over images; p: of {resamples}"
    tail = "One run a side: this speaks of these two weights only, not of training again."
    return "\n".join([*unlike, f"{head} random exchanges", *lines, tail])


def _unlike(a: Sequence[Report], b: Sequence[Report], protocol: str) -> list[str]:
    """A line on how the sides were run, where that differs. Each method may have its way; a reader must know."""
    parts = []
    for key in ("input", "precision"):
        of_a, of_b = ("/".join(sorted({str(_about(run, protocol)[key]) for run in side})) for side in (a, b))
        if of_a != of_b:
            parts.append(f"{key} ({of_a} against {of_b})".replace("-", "not stated"))
    return [f"the sides differ in {' and '.join(parts)}: what follows is of that as well"] if parts else []


def _methods(a: Sequence[Report], b: Sequence[Report], compared: dict[str, Comparison], where: str) -> str:
    """Two methods of which at least one has several runs."""
    lines = []
    for side, runs in (("A", a), ("B", b)):
        alone = "; its training is taken to vary as the other's does" if len(runs) == 1 else ""
        lines.append(f"{side}: {len(runs)} run{'s' * (len(runs) > 1)}, {', '.join(map(_run, runs))}{alone}")
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
    return "\n".join([*lines, _text(header, body, 1, "")])


def _same_images(reports: Sequence[Report], protocol: str) -> list[Rows]:
    """The images of each result by name, in one order.

    Raises:
        InputError: results differ in images, masks or rules, or were written before they said so.
    """
    tables: list[Rows] = []
    for report in reports:
        images = rows_of(report, protocol)
        if not images or "mask" not in images[0]:
            raise InputError(
                f"--paired: {_run(report)} does not say the sizes and masks of its images (written by an earlier "
                "version). Test it again."
            )
        tables.append({row["name"]: row for row in images})
    first, rules = tables[0], _rules(reports[0], protocol)
    for report, rows in zip(reports[1:], tables[1:], strict=True):
        both = f"--paired: {_run(reports[0])} and {_run(report)}"
        if alone := sorted(first.keys() ^ rows.keys()):
            raise InputError(
                f"{both} are of different images ({len(alone)} in one only, first {alone[0]}). Test both on the same "
                "split."
            )
        for key, rule in rules.items():
            if (other := _rules(report, protocol).get(key)) != rule:
                raise InputError(
                    f"{both} were scored by different rules ({key}: {rule}; {other}). Test both in one way."
                )
        for keys, what in _SAME.items():
            unequal = [
                name for name, row in first.items() if any(row.get(k) != rows[name].get(k) for k in keys)
            ]
            if unequal:
                raise InputError(
                    f"{both} differ in {what} ({len(unequal)} of {len(first)} images, first {unequal[0]}). Test both "
                    "on the same copy of the data, at the same input size."
                )
    return [{name: rows[name] for name in first} for rows in tables]


def _rules(report: Report, protocol: str) -> dict[str, Any]:
    return {key: value for key, value in report["protocols"][protocol].items() if key not in _NOT_RULES}


def _groups(rows: Rows) -> list[str] | None:
    groups = [row.get("group") for row in rows.values()]
    return None if None in groups else groups


def _repeated(tests: Sequence[tuple[Report, str]]) -> list[tuple[str, list[Report]]]:
    """Protocol and runs of things that were trained several times, with other seeds."""
    groups: dict[tuple[str, ...], list[Report]] = defaultdict(list)
    for report, name in tests:
        if report["weights"].get("settings"):
            groups[(name, *_thing(report, name))].append(report)
    counted = [(key[0], distinct(runs, key[0])[0]) for key, runs in groups.items()]
    return [(name, runs) for name, runs in counted if len(runs) > 1]


def _thing(report: Report, protocol: str) -> tuple[str, ...]:
    """All that says what was trained, tested and how, but for the run."""
    about = _about(report, protocol)
    settings = (report["weights"].get("settings"), report["dataset"].get("fingerprint"))
    return (*map(str, settings), *(str(value) for key, value in about.items() if key != "run"))


def _repeats(one: Report, other: Report, protocol: str | None = None) -> bool:
    """Whether all that ``one`` says is in ``other``."""
    for name in [protocol] if protocol else one["protocols"]:
        if name not in other["protocols"] or _about(one, name) | {"run": ""} != _about(other, name) | {
            "run": ""
        }:
            return False
    rows, others = one.get("images", []), other.get("images", [])
    if [(row["name"], row.get("mask")) for row in rows] != [(row["name"], row.get("mask")) for row in others]:
        return False
    if (file := one["weights"].get("sha256")) and file == other["weights"].get("sha256"):
        return True
    return _run(one) == _run(other) and bool(rows) and rows == others


def _means(runs: Sequence[Report], protocol: str) -> tuple[list[str], str]:
    """Cells of a row of means, and what stands beside the means."""
    try:
        tables = _same_images(runs, protocol)
    except InputError:
        cells = [
            _mean_and_spread([run["protocols"][protocol]["scores"] for run in runs], figure)
            for figure in MAIN
        ]
        return cells, "+-: standard deviation of runs"
    compared = compare_runs(
        [columns_of(list(rows.values())) for rows in tables], [], figures, groups=_groups(tables[0])
    )
    return [
        figure.text(compared[figure.key].value) + _bounds(figure, compared[figure.key]) for figure in MAIN
    ], "in brackets: 95 % intervals over runs and images"


def _mean_and_spread(several: Sequence[dict[str, Any]], figure: Figure) -> str:
    values = [figure.scale * scored[figure.key] for scored in several if scored[figure.key] is not None]
    return f"{statistics.mean(values):.2f} +- {statistics.stdev(values):.2f}" if len(values) > 1 else "-"


def _bounds(figure: Figure, of: Comparison, sign: str = "") -> str:
    if of.interval is None:
        return ""
    low, high = (f"{figure.scale * edge:{sign}.{figure.decimals}f}" for edge in of.interval)
    return f" [{low}, {high}]"


def _signed(figure: Figure, of: Comparison) -> str:
    return f"{figure.scale * of.value:+.{figure.decimals}f}{_bounds(figure, of, '+')}"


def _seeds(figure: Figure, of: Comparison, have: int) -> str:
    if figure.unit != "%" or not of.spread_known:
        return "-"
    count = of.seeds(_CLAIM)
    if count is None:
        return "no number: the images leave more"
    return f"{count} ({max(count - have, 0)} more)"


def _run(report: Report) -> str:
    return Path(report["weights"]["file"]).parent.name


def _about(report: Report, protocol: str) -> dict[str, Any]:
    weights, dataset = report["weights"], report["dataset"]
    trained = weights.get("trained_on") or {}
    return {
        "model": weights.get("model", "-"),
        "trained on": trained.get("dataset", "-"),
        "tested on": dataset["name"],
        "run": _run(report),
        "training lists": trained.get("lists", "-"),
        "lists": dataset["lists"],
        "split": dataset["split"],
        "input": report.get("image_size") or "own size",
        "precision": report.get("precision", "-"),
        "protocol": protocol,
        "empty images": report["protocols"][protocol].get("empty", "-").removeprefix(EMPTY_IMAGE),
    }


def _one(key: str, about: Sequence[dict[str, Any]]) -> bool:
    return len({str(row[key]) for row in about}) == 1


def _differs(key: str, about: Sequence[dict[str, Any]]) -> bool:
    """Whether a column tells rows apart; the empty rule does within a protocol only, having one of its own in each."""
    if key == "empty images":
        return len({(row["protocol"], row["empty images"]) for row in about}) > len(
            {row["protocol"] for row in about}
        )
    return not _one(key, about)


def _text(header: list[str], body: list[list[str]], left: int, common: str) -> str:
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if k < left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *body)
    ]
    return "\n".join([common, *lines] if common else lines)


def _markdown(header: list[str], body: list[list[str]], left: int, common: str) -> str:
    rule = ["---" if k < left else "---:" for k in range(len(header))]
    lines = ["| " + " | ".join(row) + " |" for row in (header, rule, *body)]
    return "\n".join([common, "", *lines] if common else lines)


def _latex(header: list[str], body: list[list[str]], left: int, common: str) -> str:
    def line(cells: list[str]) -> str:
        return " & ".join(_escape(cell) for cell in cells) + r" \\"

    columns = "l" * left + "r" * (len(header) - left)
    return "\n".join(
        [
            *([f"% {common}"] if common else []),
            rf"\begin{{tabular}}{{{columns}}}",
            r"\hline",
            line(header),
            r"\hline",
            *map(line, body),
            r"\hline",
            r"\end{tabular}",
        ]
    )


def _escape(text: str) -> str:
    for mark in "&%$#_{}":
        text = text.replace(mark, "\\" + mark)
    return text.replace("+-", r"$\pm$")


_FORMS = {"text": _text, "markdown": _markdown, "latex": _latex, "csv": None}
