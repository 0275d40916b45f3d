"""Writing and reading result files, and whether what they say can be true."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam_spl.errors import InputError
from sam_spl.files import write_text
from sam_spl.metrics.figures import MAIN, Columns, figures

Report = dict[str, Any]  # content of a results.json
Row = dict[str, Any]  # what one image adds

#: Key -> kind of what comparing reads; the second table may be absent or null.
_NEEDED = {
    "protocol": str,
    "protocols": dict,
    "images": list,
    "dataset": dict,
    "dataset.name": str,
    "dataset.lists": str,
    "dataset.split": str,
    "weights": dict,
    "weights.file": str,
}
_OPTIONAL = {"weights.trained_on": dict}
_KINDS = {str: "text", dict: "a table", list: "a list"}
#: Key in an image's row -> column of figures.
COUNTS = {
    "intersection": "iou_intersection",
    "union": "iou_union",
    "predicted": "predicted",
    "labelled": "labelled",
    "targets": "targets",
    "detected": "detected",
    "false_alarms": "false_alarms",
    "false_alarm_pixels": "false_alarm_pixels",
    "pixels": "pixels",
    "hit_pixels": "intersection",  # of F1; with a relative threshold not that of IoU
}
#: Counts that cannot exceed others. IoU's own may: a relative threshold leaves images out of the others.
_AT_MOST = (
    ("intersection", "union"),
    ("hit_pixels", "predicted"),
    ("hit_pixels", "labelled"),
    ("false_alarm_pixels", "predicted"),
    ("predicted", "pixels"),
    ("labelled", "pixels"),
    ("detected", "targets"),
)


def write_result(folder: Path, report: Mapping[str, Any]) -> None:
    """Write ``results.json``, and ``images.csv`` with the counts of each image under the first protocol."""
    rows, stream = report["images"], io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "results.json", json.dumps(report, indent=1) + "\n")
    write_text(folder / "images.csv", stream.getvalue())


def find_results(paths: Iterable[str | Path]) -> list[Report]:
    """The result files at or below each path, each with the ``folder`` that it lies in.

    Raises:
        InputError: there is none, or one that no test wrote as it is: a key is missing or of
            another kind, counts are impossible, or images do not add up to the figures.
    """
    reports: list[Report] = []
    for path in map(Path, paths):
        files = [path] if path.is_file() else sorted(path.rglob("results.json"))
        if not files:
            raise InputError(
                f"{path}: no results.json there. Test first: sam-spl test --dataset NAME --weights {path}"
            )
        reports += map(_read, files)
    return reports


def untested(paths: Iterable[str | Path]) -> list[str]:
    """Runs at or below folders that hold no result of a test."""
    runs = {log.parent for path in map(Path, paths) if path.is_dir() for log in path.rglob("metrics.jsonl")}
    return [str(run) for run in sorted(runs) if not any(run.rglob("results.json"))]


def is_result(file: Path) -> bool:
    """Whether it is a result file, by the keys that each has."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() >= {"protocol", "protocols", "weights", "dataset"}


def rows_of(report: Report, protocol: str) -> list[Row]:
    """The images under a protocol; none in files of earlier versions."""
    return (
        report["images"]
        if protocol == report["protocol"]
        else report["protocols"][protocol].get("images") or []
    )


def columns_of(rows: Sequence[Row]) -> Columns:
    """What each image adds to :func:`~sam_spl.metrics.figures.figures`."""
    of = {column: np.array([row[key] for row in rows], float) for key, column in COUNTS.items()}
    of["iou_of_images"] = np.array([row["iou"] or 0.0 for row in rows], float)
    of["images_of_niou"] = np.array([row["iou"] is not None for row in rows], float)
    return of


def _read(file: Path) -> Report:
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not a result file of a test ({error}).") from error
    if not isinstance(report, dict):
        raise InputError(f"{file} is not a result file of a test (no table of keys).")
    if wrong := _wrong(report):
        raise InputError(
            f"{file}: {wrong}. The file was changed or damaged, or was not written by a test. Test again."
        )
    return report | {"folder": str(file.parent)}


def _wrong(report: Report) -> str | None:
    """The first key whose value is missing, of another kind, or impossible, and why."""
    for key, kind in (_NEEDED | _OPTIONAL).items():
        value: Any = report
        for part in key.split("."):
            value = value.get(part)
        if not isinstance(value, kind) and not (value is None and key in _OPTIONAL):
            return f"{key} is missing" if value is None else f"{key} is not {_KINDS[kind]}"
    if report["protocol"] not in report["protocols"]:
        return f"protocol names {report['protocol']!r}, which is not in protocols"
    for name, entry in report["protocols"].items():
        at = f"protocols.{name}"
        if not isinstance(entry, dict) or not isinstance(entry.get("scores"), dict):
            return f"{at}.scores is missing or not a table"
        scores = entry["scores"]
        for key in [figure.key for figure in MAIN if figure.key not in scores]:
            return f"{at}.scores.{key} is missing"
        for key in [key for key, value in scores.items() if value is not None and not _number(value)]:
            return f"{at}.scores.{key} is not a number >= 0"
        if not isinstance(entry.get("empty", ""), str):
            return f"{at}.empty is not text"
        if not isinstance(entry.get("images") or [], list):
            return f"{at}.images is not a list"
        where = "images" if name == report["protocol"] else f"{at}.images"
        if wrong := _wrong_rows(rows_of(report, name), scores):
            return f"{where}{wrong}"
    return None


def _wrong_rows(rows: list[Any], scores: dict[str, Any]) -> str | None:
    """Why the images of one protocol are impossible, or do not give its figures."""
    names = set()
    for k, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            return f"[{k}].name is missing or not text"
        if row["name"] in names:
            return f"[{k}].name: {row['name']} is there twice"
        names.add(row["name"])
        if not isinstance(row.get("group"), str | None):
            return f"[{k}].group is not text"
    if not any("mask" in row for row in rows):
        return None  # of an earlier version; nothing but names is read
    for k, row in enumerate(rows):
        for key in COUNTS:
            if not _number(row.get(key)) or row[key] != int(row[key]):
                return f"[{k}].{key} is not a whole number >= 0"
        for key, whole in _AT_MOST:
            if row[key] > row[whole]:
                return f"[{k}].{key} is {row[key]}, {whole} {row[whole]}"
        iou = row.get("iou", "missing")
        if iou is not None and not (_number(iou) and iou <= 1):
            return f"[{k}].iou is not a number from 0 to 1"
        if iou is not None and row["union"] and abs(iou - row["intersection"] / row["union"]) > 1e-9:
            return f"[{k}].iou is {iou}, intersection / union {row['intersection'] / row['union']}"
    sums = {key: column.sum() for key, column in columns_of(rows).items()}
    counted = {key: sums[key] for key in ("targets", "detected", "false_alarms")}
    for key, value in {**figures(sums), "images": len(rows), **counted}.items():
        stated = scores.get(key)
        if key in scores and not np.isclose(
            np.nan if stated is None else stated, value, 0, 1e-9, equal_nan=True
        ):
            return f" add up to another {key} than scores: {value:.9g}; {stated}"
    return None


def _number(value: Any) -> bool:
    """Whether it is a finite number of 0 or more, that floats hold to the digit."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
