"""Results of several tests side by side."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sam_spl.errors import ConfigError, InputError, nearest

_FIGURES = {
    "IoU %": ("iou", 100),
    "nIoU %": ("niou", 100),
    "F1 %": ("f1", 100),
    "Pd %": ("pd", 100),
    "Fa 1e-6": ("fa", 1e6),
}


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
                report["scores"], report["dataset"], report["weights"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{file} is no result file of testing.py ({error!r}).") from error
            reports.append(report)
    return reports


def table(reports: Sequence[dict[str, Any]], form: str = "text") -> str:
    """One row a test. Of the columns that say what was tested, those that are the same everywhere stand above.

    Args:
        reports: contents of ``results.json``.
        form: text, markdown, latex or csv; the last has every column and full precision.

    Raises:
        ConfigError: another form.
    """
    if form not in _FORMS:
        raise ConfigError(f"--format: {form!r} is unknown. Nearest: {nearest(form, _FORMS)}")
    about = [_about(report) for report in reports]
    if form == "csv":
        rows = [{**row, **report["scores"]} for row, report in zip(about, reports, strict=True)]
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return stream.getvalue().rstrip("\n")
    always = ("model", "trained on", "tested on")
    shown = [key for key in about[0] if key in always or len({str(row[key]) for row in about}) > 1]
    common = "; ".join(f"{key} {about[0][key]}" for key in about[0] if key not in shown)
    header = [*shown, *_FIGURES]
    body = [
        [*(str(row[key]) for key in shown), *(_figure(report["scores"], *of) for of in _FIGURES.values())]
        for row, report in zip(about, reports, strict=True)
    ]
    return _FORMS[form](header, body, len(shown), common)


def _about(report: dict[str, Any]) -> dict[str, Any]:
    weights, dataset = report["weights"], report["dataset"]
    trained = weights.get("trained_on") or {}
    size = report.get("image_size")
    return {
        "model": weights.get("model", "-"),
        "trained on": trained.get("dataset", "-"),
        "tested on": dataset["name"],
        "run": Path(weights["file"]).parent.name,
        "lists": dataset["lists"],
        "split": dataset["split"],
        "input": size or "own size",
        "protocol": report.get("protocol", "-"),
    }


def _figure(scores: dict[str, Any], key: str, scale: float) -> str:
    value = scores[key]
    return "-" if value is None else f"{scale * value:.2f}"


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
    return text


_FORMS = {"text": _text, "markdown": _markdown, "latex": _latex, "csv": None}
