"""Results of several tests side by side."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam_spl.errors import ConfigError, InputError, nearest
from sam_spl.metrics.bootstrap import paired_test
from sam_spl.metrics.figures import MAIN, Figure, figures
from sam_spl.metrics.protocols import Columns


def find_results(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The result files at or below each path.

    Raises:
        InputError: there is none, or one that ``testing.py`` did not write.
    """
    reports = []
    for path in map(Path, paths):
        files = [path] if path.is_file() else sorted(path.rglob("results.json"))
        if not files:
            raise InputError(
                f"{path}: no results.json there. Test first: python testing.py --dataset NAME --weights {path}"
            )
        for file in files:
            try:
                report = json.loads(file.read_text(encoding="utf-8"))
                report["protocols"], report["dataset"], report["weights"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{file} is no result file of testing.py ({error!r}).") from error
            reports.append(report)
    return reports


def table(reports: Sequence[dict[str, Any]], form: str = "text") -> str:
    """One row a test and protocol; under several runs of one thing, their mean and standard deviation.

    Of the columns that say what was tested, those that are the same everywhere stand above.

    Args:
        reports: contents of ``results.json``.
        form: text, markdown, latex or csv; the last has every column and full precision.

    Raises:
        ConfigError: another form.
    """
    if form not in _FORMS:
        raise ConfigError(f"--format: {form!r} is unknown. Nearest: {nearest(form, _FORMS)}")
    tests = [
        (_about(report, name), entry["scores"]) for report in reports for name, entry in report["protocols"].items()
    ]
    settings = [report["weights"].get("settings") for report in reports for _ in report["protocols"]]
    about = [row for row, _ in tests]
    if form == "csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, [*about[0], *tests[0][1]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **scored} for row, scored in tests)
        return stream.getvalue().rstrip("\n")
    always = ("model", "trained on", "tested on")
    shown = [key for key in about[0] if key in always or len({str(row[key]) for row in about}) > 1]
    common = "; ".join(f"{key} {about[0][key]}" for key in about[0] if key not in shown)
    header = [*shown, *(figure.heading for figure in MAIN)]
    body = [
        [*(str(row[key]) for key in shown), *(figure.text(scored[figure.key]) for figure in MAIN)]
        for row, scored in tests
    ]
    for row, several in _runs_of_one_thing(tests, settings):
        label = [f"mean of {len(several)}" if key == "run" else str(row[key]) for key in shown]
        body.append([*label, *(_mean_and_spread(several, figure) for figure in MAIN)])
    return _FORMS[form](header, body, len(shown), common)


def paired(a: dict[str, Any], b: dict[str, Any], *, resamples: int = 10000) -> str:
    """Whether two results on the same images differ, as text: differences with p by approximate randomization.

    Both are taken under the first protocol of ``a``.

    Raises:
        InputError: they are of other images, or ``b`` was not scored under that protocol.
    """
    name = a["protocol"]
    of_b = b["images"] if b["protocol"] == name else b["protocols"].get(name, {}).get("images")
    if of_b is None:
        raise InputError(f"--paired: {_run(b)} was not scored under {name}. Score it with protocols=[{name}].")
    rows_a, rows_b = ({row["name"]: row for row in rows} for rows in (a["images"], of_b))
    if rows_a.keys() != rows_b.keys():
        alone = sorted(rows_a.keys() ^ rows_b.keys())
        raise InputError(
            f"--paired: {_run(a)} and {_run(b)} are of different images ({len(alone)} in one only, first {alone[0]}). "
            "Test both on the same split."
        )
    names = list(rows_a)
    tested = paired_test(_columns(rows_a, names), _columns(rows_b, names), figures, resamples=resamples)
    lines = [f"{_run(a)} minus {_run(b)} on {len(names)} images, protocol {name}; p of {resamples} random exchanges"]
    for figure in MAIN:
        if result := tested.get(figure.key):
            lines.append(f"{figure.heading:<8} {figure.scale * result[0]:+9.2f}   p = {result[1]:.4f}")
    return "\n".join(lines)


def _columns(rows: dict[str, dict[str, Any]], names: Sequence[str]) -> Columns:
    """What each image adds to :func:`~sam_spl.metrics.figures.figures`, from a result file."""
    keys = {
        "iou_intersection": "intersection",
        "iou_union": "union",
        "intersection": "hit_pixels",
        **{key: key for key in ("predicted", "labelled", "targets", "detected", "false_alarm_pixels", "pixels")},
    }
    of = {column: np.array([rows[name][key] for name in names], float) for column, key in keys.items()}
    ious = [rows[name]["iou"] for name in names]
    of["iou_of_images"] = np.array([iou or 0.0 for iou in ious])
    of["images_of_niou"] = np.array([float(iou is not None) for iou in ious])
    return of


def _runs_of_one_thing(
    tests: Sequence[tuple[dict[str, Any], dict[str, Any]]], settings: Sequence[str | None]
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Runs that differ in their seed only, where there are several."""
    groups: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for position, (row, _) in enumerate(tests):
        if settings[position]:
            what = tuple(str(value) for key, value in row.items() if key != "run")
            groups[(settings[position], *what)].append(position)
    return [
        (tests[positions[0]][0], [tests[position][1] for position in positions])
        for positions in groups.values()
        if len({tests[position][0]["run"] for position in positions}) > 1
    ]


def _mean_and_spread(several: Sequence[dict[str, Any]], figure: Figure) -> str:
    values = [figure.scale * scored[figure.key] for scored in several if scored[figure.key] is not None]
    return f"{statistics.mean(values):.2f} +- {statistics.stdev(values):.2f}" if len(values) > 1 else "-"


def _run(report: dict[str, Any]) -> str:
    return Path(report["weights"]["file"]).parent.name


def _about(report: dict[str, Any], protocol: str) -> dict[str, Any]:
    weights, dataset = report["weights"], report["dataset"]
    trained = weights.get("trained_on") or {}
    size = report.get("image_size")
    return {
        "model": weights.get("model", "-"),
        "trained on": trained.get("dataset", "-"),
        "tested on": dataset["name"],
        "run": _run(report),
        "lists": dataset["lists"],
        "split": dataset["split"],
        "input": size or "own size",
        "protocol": protocol,
    }


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
