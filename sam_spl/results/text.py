"""One result as text: what a test prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sam_spl.metrics.figures import FIGURES, MAIN


def summary_text(report: Mapping[str, Any], about: Sequence[tuple[str, str]] = ()) -> str:
    """The figures with their intervals, one a line; then the protocols side by side, where there are several.

    Args:
        report: from :func:`summarise`.
        about: lines to put first, what was tested on what.
    """
    first = report["protocols"][report["protocol"]]
    result, bounds = first["scores"], first["intervals"]
    missed = result["targets"] - result["detected"]

    def row(
        key: str, values: Mapping[str, Any], intervals: Mapping[str, Any], more: str = ""
    ) -> tuple[str, str]:
        return FIGURES[key].title, FIGURES[key].full(values[key], intervals.get(key)) + more

    def beside(key: str, values: Mapping[str, Any]) -> str:
        return f"{FIGURES[key].title} {FIGURES[key].text(values[key])}"

    rows = [
        *about,
        (
            "protocol",
            f"{first['protocol']}: threshold {first['threshold']}, at {first['resolution']} resolution",
        ),
        row("iou", result, bounds),
        row("niou", result, bounds),
        row("f1", result, bounds, f"   {beside('precision', result)}, {beside('recall', result)}"),
        row("pixel_accuracy", result, bounds),
        row("pd", result, bounds, f"   {result['detected']} of {result['targets']} targets, {missed} missed"),
        row("fa", result, bounds, f"   in {result['false_alarms']} false alarms"),
    ]
    if details := report.get("details"):
        by_size, hiou = FIGURES["pd_by_size"], details["hiou"]
        sizes = (
            f"{key} px {by_size.text(value)} ({details['targets_by_size'][key]})"
            for key, value in details["pd_by_size"].items()
        )
        lowest = min((fa for fa in details["target_curve"]["fa"] if fa is not None), default=0.0)
        title, value = row(
            "pd_at_fa", details["curves"], details["curves_intervals"], f"   {FIGURES['pd_at_fa'].note}"
        )
        if lowest > details["fa_budget"]:  # 0 is then the Pd of a threshold that nothing reaches
            lowest_fa = FIGURES["fa"].text(lowest)
            value = f"not reached   the lowest Fa of any threshold is {lowest_fa} x 1e-6"
        rows += [
            (by_size.title, ", ".join(sizes)),
            (f"{title} <= {FIGURES['fa'].scale * details['fa_budget']:g}e-6", value),
            row(
                "hiou",
                hiou,
                details["hiou_intervals"],
                f"   {beside('seg_iou', hiou)}, {beside('loc_iou', hiou)}",
            ),
        ]
    if report["bootstrap"]:
        units = f"{report['groups']} group(s) of " if report["groups"] else ""
        units += str(result["images"])
        rows.append(("", f"in brackets: 95 % intervals over {units} images, {report['bootstrap']} resamples"))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    if len(report["protocols"]) > 1:
        lines += ["", *_side_by_side(report["protocols"])]
    return "\n".join(lines)


def _side_by_side(protocols: Mapping[str, Any]) -> list[str]:
    """One line a protocol; an asterisk where another rule than the first protocol's moved the figure."""
    table = [["protocol", *(figure.heading for figure in MAIN)]]
    notes = []
    for name, entry in protocols.items():
        cells = [name]
        by_reason: dict[str, list[str]] = {}
        for figure in MAIN:
            why = entry["differs"].get(figure.key)
            cells.append(figure.text(entry["scores"][figure.key]) + ("*" if why else " "))
            if why:
                by_reason.setdefault(why, []).append(figure.title)
        table.append(cells)
        reasons = [f"{', '.join(titles)}: {why}" for why, titles in by_reason.items()]
        reasons += [entry["note"]] if entry.get("note") else []
        notes += [f"  {name}: {'. '.join(reasons)}."] if reasons else []
    widths = [max(10, *(len(cell) + 1 for cell in column)) for column in zip(*table, strict=True)]
    lines = ["".join([f"{name:<12}", *map(str.rjust, cells, widths[1:])]).rstrip() for name, *cells in table]
    first = next(iter(protocols))
    return [
        *lines,
        *([f"* scored by another rule than {first}, even where the printed digits agree:"] if notes else []),
        *notes,
    ]
