"""What a result is of: which run, tested how on which images; and which results may be compared."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam_spl.errors import InputError
from sam_spl.results.files import Report, rows_of
from sam_spl.results.rules import EMPTY_IMAGE

Rows = dict[str, dict[str, Any]]  # image's name -> what it adds

#: What must be equal, image by image, for a paired comparison; the last three are those of masks as they are
#: scored.
_SAME = {
    ("height", "width"): "the sizes of images",
    ("mask",): "the content of masks",
    ("group",): "groups (dataset.group)",
    ("pixels", "labelled", "targets"): "the resolution that masks are scored at",
}
#: Names of files, without endings, of which the folder says more: of a run, and of predictions.
_OF_A_RUN = ("best", "last", "*")
#: Parts of a protocol's description that are results or words, not rules.
_NOT_RULES = ("scores", "intervals", "differs", "images", "note")


def run_name(report: Report) -> str:
    """The folder of a run or of predictions; of other weights, and of a network without, the file's name."""
    file = Path(report["weights"]["file"])
    return file.parent.name if file.name.partition(".")[0] in _OF_A_RUN else file.stem


def is_fixed(report: Report) -> bool:
    """Whether it is of a network without weights, which no training could make another."""
    return report["weights"].get("trainable") is False


def several_tests(reports: Sequence[Report]) -> str:
    """A sentence with the folders to choose from, where a run was tested more than once; else nothing."""
    files = [report["weights"]["file"] for report in reports]
    several = [one for one in reports if files.count(one["weights"]["file"]) > 1]
    folders = [one["folder"] for one in several if "folder" in one]  # read from a file
    names = " ".join(map(shlex.quote, folders))
    return f" A run with several tests is named by the folder of one of them: {names}" if folders else ""


def described(report: Report, protocol: str) -> dict[str, Any]:
    """What was tested and how, by the columns of tables."""
    weights, dataset = report["weights"], report["dataset"]
    trained = weights.get("trained_on") or {}
    return {
        "model": weights.get("title") or weights.get("model", "-"),
        "trained on": trained.get("dataset", "-"),
        "tested on": dataset["name"],
        "run": run_name(report),
        "training lists": trained.get("lists", "-"),
        "lists": dataset["lists"],
        "split": dataset["split"],
        "input": report.get("image_size") or "own size",
        "precision": report.get("precision", "-"),
        "protocol": protocol,
        "correctly empty image": report["protocols"][protocol].get("empty", "-").removeprefix(EMPTY_IMAGE),
    }


def setting(report: Report, protocol: str) -> tuple[str, ...]:
    """All that says what was trained, tested and how, but for the run: equal for runs of several seeds."""
    about = described(report, protocol)
    settings = (report["weights"].get("settings"), report["dataset"].get("fingerprint"))
    return (*map(str, settings), *(str(value) for key, value in about.items() if key != "run"))


def distinct(reports: Sequence[Report], protocol: str | None = None) -> tuple[list[Report], list[str]]:
    """Each run once, and one line for every result that repeats another.

    Two results repeat each other if they are of the same weights (or, of runs of one name, count the same in
    every image), on the same images, at one precision and input size.

    Args:
        reports: contents of ``results.json``.
        protocol: the one that matters; None: all that a result was scored under.
    """
    kept: list[Report] = []
    notes = []
    for report in reports:
        twin = next((other for other in kept if repeats(report, other, protocol)), None)
        if twin is None:
            kept.append(report)
        else:
            files = f"{report['weights']['file']} repeats {twin['weights']['file']}"
            notes.append(f"counted once: {files} on {report['dataset']['name']}")
    return kept, notes


def repeats(one: Report, other: Report, protocol: str | None = None) -> bool:
    """Whether all that ``one`` says is in ``other``."""
    for name in [protocol] if protocol else one["protocols"]:
        if name not in other["protocols"] or setting(one, name)[2:] != setting(other, name)[2:]:
            return False
    rows, others = one.get("images", []), other.get("images", [])
    if [(row["name"], row.get("mask")) for row in rows] != [(row["name"], row.get("mask")) for row in others]:
        return False
    if (file := one["weights"].get("sha256")) and file == other["weights"].get("sha256"):
        return True
    return run_name(one) == run_name(other) and bool(rows) and rows == others


def same_images(reports: Sequence[Report], protocol: str) -> list[Rows]:
    """The images of each result by name, in one order.

    Raises:
        InputError: results differ in images, masks or rules, or were written before they said so.
    """
    tables: list[Rows] = []
    for report in reports:
        images = rows_of(report, protocol)
        if not images or "mask" not in images[0]:
            raise InputError(
                f"--paired: {run_name(report)} does not state the sizes and masks of its images (written "
                "by an earlier version). Test it again."
            )
        tables.append({row["name"]: row for row in images})
    first, rules = tables[0], _rules(reports[0], protocol)
    for report, rows in zip(reports[1:], tables[1:], strict=True):
        both = f"--paired: {run_name(reports[0])} and {run_name(report)}"
        if alone := sorted(first.keys() ^ rows.keys()):
            raise InputError(
                f"{both} are of different images ({len(alone)} in one only, first {alone[0]}). Test both on "
                f"the same split.{several_tests(reports)}"
            )
        for key, rule in rules.items():
            if (other := _rules(report, protocol).get(key)) != rule:
                raise InputError(
                    f"{both} were scored by different rules ({key}: {rule}; {other}). Test both again, by "
                    "the same rules."
                )
        for keys, what in _SAME.items():
            unequal = [
                name for name, row in first.items() if any(row.get(k) != rows[name].get(k) for k in keys)
            ]
            if unequal:
                raise InputError(
                    f"{both} differ in {what} ({len(unequal)} of {len(first)} images, first {unequal[0]}). "
                    "Test both on the same copy of the data, at the same input size."
                )
    return [{name: rows[name] for name in first} for rows in tables]


def _rules(report: Report, protocol: str) -> dict[str, Any]:
    return {key: value for key, value in report["protocols"][protocol].items() if key not in _NOT_RULES}


def groups_in(rows: Rows) -> list[str] | None:
    """The group of each image; None where each image is on its own."""
    groups = [row["group"] for row in rows.values() if row.get("group") is not None]
    return groups if len(groups) == len(rows) else None
