"""The folder of a bench: its evidence, the tables that follow from it, and whether they still do."""

from __future__ import annotations

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sam_spl.bench.evidence import Evidence, read_evidence
from sam_spl.errors import InputError, UserError
from sam_spl.files import write_text
from sam_spl.metrics.comparison import compare_runs
from sam_spl.metrics.figures import MAIN, Figure, figures
from sam_spl.report.plots import Point, save, value_over_time
from sam_spl.results.compare import FORMS, Body
from sam_spl.results.files import columns_of
from sam_spl.results.runs import groups_in, same_images
from sam_spl.weights.formats import sha256

Rows = dict[str, dict[str, str]]  # name of a row -> column -> cell

CSV = "bench.csv"
#: File -> form of :data:`~sam_spl.results.compare.FORMS`.
TABLES = {"table.txt": "text", "table.md": "markdown", "table.tex": "latex", "table.html": "html"}
_PLOTTED = "iou"
_COMMON = (
    "measured by sam-spl bench, equal training time for all; weights chosen on validation images or held-out "
    "training images, never on test images; parameters, GMAC and ms: of one image of so many px a side; in "
    "brackets: the list of test images and their masks, by the first digits of its SHA-256"
)
_SPREAD = "; +-: standard deviation over seeds"


def evidence_file(folder: Path, row: str) -> Path:
    """Where a row's evidence is."""
    return folder / "evidence" / f"{row}.json"


def run_folder(folder: Path, row: str) -> Path:
    """Where a row is trained and tested."""
    return folder / "runs" / row


def write_tables(folder: Path) -> str:
    """Write ``bench.csv``, the tables and the plots of all evidence in a folder; the table as text, of each
    section under its first protocol alone.

    Evidence of other machines counts as well, once its files are there.

    Raises:
        InputError: a file cannot be read, or is not the one that its row in ``bench.csv`` was made from.
    """
    evidence = [read_evidence(file) for file in sorted((folder / "evidence").glob("*.json"))]
    stated = _stated(folder)
    for one in evidence:
        if stated.get(one.name, {}).get("evidence_sha256", one.digest) != one.digest:
            raise InputError(
                f"{evidence_file(folder, one.name)} was changed after its row was written: its SHA-256 is "
                f"not the one in {CSV}. Restore the file, or remove it and run the row again."
            )
    if not evidence:
        return "no row is done"
    for name, text in contents(evidence).items():
        write_text(folder / name, text)
    _draw(folder, evidence)
    return FORMS["text"](*_table(evidence, every=False))


def check(folder: Path) -> list[str]:
    """What in a bench's folder does not follow from its evidence, a line each.

    Every cell of ``bench.csv`` and every line of the tables is made again from the evidence files, whose
    images are added up again, and whose SHA-256 ``bench.csv`` states. Weights that lie in the folder are
    compared by their SHA-256.

    Raises:
        InputError: there is no bench in the folder.
    """
    stated, wrong = _stated(folder), list[str]()
    if not stated:
        raise InputError(f"{folder}: no {CSV} with rows there. Name the folder that sam-spl bench wrote.")
    evidence = []
    for file in sorted((folder / "evidence").glob("*.json")):
        try:
            evidence.append(read_evidence(file))
        except UserError as error:
            wrong.append(str(error))
    unread = bool(wrong)
    rows = _read_csv(_csv(evidence))
    for name in sorted(stated.keys() - rows.keys()):
        wrong.append(f"{CSV}: row {name} has no evidence that can be read")
    for name, row in rows.items():
        wrong += _differing(name, stated.get(name), row)
    for one in evidence:
        for file in run_folder(folder, one.name).glob("best.safetensors"):
            if sha256(file) != one.report["weights"]["sha256"]:
                wrong.append(f"{file}: other weights than those that were tested (SHA-256)")
    for name, text in contents(evidence).items() if not unread else ():
        if name != CSV:
            wrong += _differing_lines(folder / name, text)
    return wrong


def contents(evidence: Sequence[Evidence]) -> dict[str, str]:
    """The text of ``bench.csv`` and of each table."""
    table = _table(evidence)
    return {CSV: _csv(evidence), **{name: FORMS[form](*table) + "\n" for name, form in TABLES.items()}}


def _csv(evidence: Sequence[Evidence]) -> str:
    rows, stream = [one.row() for one in evidence], io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "evidence_sha256"))
    writer = csv.DictWriter(stream, [*columns, "evidence_sha256"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _stated(folder: Path) -> Rows:
    """The rows of ``bench.csv``; none where there is no such file."""
    file = folder / CSV
    try:
        return _read_csv(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError, csv.Error, KeyError) as error:
        raise InputError(
            f"{file}: is no table of sam-spl bench ({error}). Remove it: it is made again."
        ) from error


def _read_csv(text: str) -> Rows:
    return {row["row"]: row for row in csv.DictReader(io.StringIO(text))}


def _differing(name: str, stated: Mapping[str, str] | None, row: Mapping[str, str]) -> list[str]:
    if stated is None:
        return [f"{CSV}: there is evidence of {name}, and no row"]
    if stated["evidence_sha256"] != row["evidence_sha256"]:
        first = f"evidence/{name}.json: its SHA-256 is not the one in {CSV}: one of the two was changed"
    else:
        first = None
    cells = [
        f"{CSV}: row {name}, {key} is {stated.get(key)}, by its evidence {row.get(key)}"
        for key in dict.fromkeys([*row, *stated])
        if key != "evidence_sha256" and (stated.get(key) or "") != (row.get(key) or "")
    ]
    return [*([first] if first else []), *cells]


def _differing_lines(file: Path, text: str) -> list[str]:
    if not file.is_file():
        return [f"{file.name} is missing"]
    stated, made = file.read_text(encoding="utf-8").splitlines(), text.splitlines()
    length = max(len(stated), len(made))
    pairs = zip(*(lines + [""] * (length - len(lines)) for lines in (stated, made)), strict=True)
    return [
        f"{file.name}, line {k}: {line!r}, by the evidence {other!r}"
        for k, (line, other) in enumerate(pairs, 1)
        if line != other
    ]


def _sections(evidence: Sequence[Evidence]) -> dict[str, list[list[Evidence]]]:
    """Title of what may stand side by side -> runs of each network: the same images, the same machine."""
    found: dict[str, dict[Any, list[Evidence]]] = defaultdict(lambda: defaultdict(list))
    for one in evidence:
        row = one.row()
        device = row["cpu"] if row["device"] == "cpu" else row["device"]
        lists = f", lists {row['lists']}" if row["lists"] != "none" else ""
        threads = f", {row['threads']} thread{'s' * (row['threads'] != 1)}" if row["device"] == "cpu" else ""
        # The list's first digits tell apart sets of one name.
        title = (
            f"{row['dataset']}{lists}, {row['test_images']} {row['split']} images "
            f"({row['test_list_sha256'][:8]}), {device}{threads}"
        )
        found[title][row["network"], row["minutes"], str(row["settings"])].append(one)
    return {title: list(runs.values()) for title, runs in sorted(found.items())}


def _table(evidence: Sequence[Evidence], *, every: bool = True) -> tuple[list[str], Body, int, str]:
    """What the forms of a table take, under every protocol or under each section's first one."""
    header = [
        *("network", "minutes", "seeds"),
        *(figure.heading for figure in MAIN),
        *("parameters M", "at px", "GMAC", "ms an image", "images seen"),
    ]
    body: Body = {}
    sections = _sections(evidence)
    for title, networks in sections.items():
        protocols = dict.fromkeys(
            name for runs in networks for one in runs for name in one.report["protocols"]
        )
        for protocol in list(protocols)[: None if every else 1]:
            scored = [
                (runs, [one.report["protocols"][protocol]["scores"] for one in runs])
                for runs in networks
                if all(protocol in one.report["protocols"] for one in runs)
            ]
            scored.sort(key=lambda pair: -_mean([of["iou"] for of in pair[1]]))
            body[f"{title}, protocol {protocol}"] = [
                [
                    *_about(runs),
                    *(_cell(figure, [of[figure.key] for of in scores]) for figure in MAIN),
                    *_cost(runs),
                ]
                for runs, scores in scored
            ]
    repeated = any(len(runs) > 1 for networks in sections.values() for runs in networks)
    return header, body, 3, _COMMON + (_SPREAD if repeated else "")


def _about(runs: Sequence[Evidence]) -> list[str]:
    asked = runs[0].report["bench"]["asked"]
    if asked["minutes"] is None:
        return [asked["network"], "-", "-"]  # nothing is trained
    return [asked["network"], f"{asked['minutes']:g}", f"{len(runs)}" if len(runs) > 1 else "1, no spread"]


def _cost(runs: Sequence[Evidence]) -> list[str]:
    costs = [one.report["bench"]["cost"] for one in runs]
    seen = statistics.mean(one.report["bench"]["training"]["images"] for one in runs)
    learns = runs[0].report["bench"]["asked"]["minutes"] is not None  # else nothing of it is counted
    return [
        f"{costs[0]['parameters'] / 1e6:.2f}" if learns else "-",
        f"{costs[0]['image_size']}",
        f"{costs[0]['macs'] / 1e9:.2f}" if learns else "-",
        f"{1e3 * statistics.mean(cost['seconds'] for cost in costs):.1f}",
        f"{seen:.0f}" if learns else "-",
    ]


def _cell(figure: Figure, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2 or len(known) < len(values):
        return figure.text(known[0] if len(values) == len(known) else None)
    return f"{figure.text(statistics.mean(known))} +- {figure.text(statistics.stdev(known))}"


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else -1.0


def _draw(folder: Path, evidence: Sequence[Evidence]) -> None:
    """IoU over the time of an image, a plot for each section, with intervals over seeds and images."""
    for old in folder.glob("plot-*.png"):
        old.unlink()
    for k, (title, networks) in enumerate(_sections(evidence).items(), 1):
        points = [point for runs in networks if (point := _point(runs)) is not None]
        if points:
            save(value_over_time(points, _PLOTTED, title), folder / f"plot-{k}.png")


def _point(runs: Sequence[Evidence]) -> Point | None:
    protocol = runs[0].report["protocol"]
    tables = same_images([one.report for one in runs], protocol)
    columns = [columns_of(list(rows.values())) for rows in tables]
    of = compare_runs(columns, [], figures, groups=groups_in(tables[0]))[_PLOTTED]
    asked = runs[0].report["bench"]["asked"]
    seconds = statistics.mean(one.report["bench"]["cost"]["seconds"] for one in runs)
    name = asked["network"] if asked["minutes"] is None else f"{asked['network']}, {asked['minutes']:g} min"
    return None if of.value != of.value else Point(name, seconds, of.value, of.interval)
