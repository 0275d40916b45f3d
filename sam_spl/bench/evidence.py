"""What a row of a bench stands on: the result file of its test, with how the weights came about beside it.

An evidence file is the ``results.json`` of the row's test with one more key, ``bench``: what was asked for,
the commands, the machine, the training and the cost. So ``sam-spl compare`` reads it as any result, and
reading it adds up its images again. All figures are of runs of this toolkit; there is no place for those that
others publish.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_spl.errors import InputError
from sam_spl.files import write_text
from sam_spl.metrics.figures import MAIN
from sam_spl.results.files import Report, find_results, rows_of

#: Column of the table of rows -> where its value stands in the evidence. Those of ``bench`` have to be there.
_COLUMNS = {
    "network": "bench.asked.network",
    "dataset": "dataset.name",
    "lists": "dataset.lists",
    "split": "dataset.split",
    "seed": "bench.asked.seed",
    "minutes": "bench.asked.minutes",
    "seconds": "bench.training.seconds",
    "epochs": "bench.training.epochs",
    "images_seen": "bench.training.images",
    "parameters": "bench.cost.parameters",
    "macs": "bench.cost.macs",
    "seconds_per_image": "bench.cost.seconds",
    "cost_image_size": "bench.cost.image_size",
    "cpu": "bench.machine.cpu",
    "device": "bench.machine.device",
    "threads": "bench.machine.threads",
    "torch": "bench.machine.torch",
    "sam_spl": "bench.machine.sam_spl",
    "commit": "bench.machine.commit",
    "settings": "bench.asked.settings",
    "weights_sha256": "weights.sha256",
}
_NUMBERS = (
    *("seconds", "epochs", "images_seen", "parameters", "macs", "seconds_per_image", "cost_image_size"),
    "threads",
)


@dataclass(frozen=True)
class Evidence:
    """One evidence file, read and checked.

    Attributes:
        name: of the row, the file's without its ending.
        report: its content.
        digest: SHA-256 of the file.
    """

    name: str
    report: Report
    digest: str

    def row(self) -> dict[str, Any]:
        """The row that it gives: how it came about, and under each protocol the main figures, as ratios."""
        report = self.report
        about = {column: _at(report, path) for column, path in _COLUMNS.items()}
        first = rows_of(report, report["protocol"])
        figures = {
            f"{name}.{figure.key}": of["scores"][figure.key]
            for name, of in report["protocols"].items()
            for figure in MAIN
        }
        return {
            "row": self.name,
            **about,
            "test_images": len(first),
            "test_list_sha256": test_list(first),
            **figures,
            "evidence_sha256": self.digest,
        }


def test_list(images: list[dict[str, Any]]) -> str:
    """SHA-256 of the names of images with their sizes and masks: equal for equal images in any order."""
    lines = sorted(f"{row['name']} {row['height']}x{row['width']} {row['mask']}\n" for row in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


test_list.__test__ = False  # type: ignore[attr-defined]  # no test, whatever pytest thinks of its name


def write_evidence(file: Path, report: Report, bench: Mapping[str, Any]) -> None:
    """Write a row's evidence: the result of its test, and how it came about."""
    write_text(file, json.dumps({**report, "bench": bench}, indent=1) + "\n")


def read_evidence(file: Path) -> Evidence:
    """Read one file.

    Raises:
        InputError: no bench wrote it as it is: a key is missing, or images do not add up to the figures.
    """
    (report,) = find_results([file])
    missing = [
        path for path in _COLUMNS.values() if path.startswith("bench") and _at(report, path) is _ABSENT
    ]
    missing += [path for path in map(_COLUMNS.get, _NUMBERS) if path and not _is_number(_at(report, path))]
    first, wrong = report["protocol"], None
    if missing:
        wrong = f"{missing[0]} is missing or of another kind"
    elif "mask" not in rows_of(report, first)[0]:
        wrong = "its images state no masks"
    elif report["scores"] != report["protocols"][first]["scores"]:
        wrong = f"scores are not those under {first}"
    if wrong:
        raise InputError(
            f"{file}: {wrong}, so it is no evidence of sam-spl bench. Remove it, or run the row again."
        )
    return Evidence(file.stem, report, hashlib.sha256(file.read_bytes()).hexdigest())


_ABSENT = object()


def _at(report: Report, path: str) -> Any:
    value: Any = report
    for key in path.split("."):
        value = value.get(key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
