"""Results of several tests in one table, with means of runs."""

from __future__ import annotations

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any

from sam_spl.errors import InputError
from sam_spl.metrics.comparison import Comparison, compare_runs
from sam_spl.metrics.figures import MAIN, Figure, figures
from sam_spl.registry import Registry
from sam_spl.results.files import Report, columns_of
from sam_spl.results.runs import described, distinct, groups_in, same_images, setting

Body = dict[str, list[list[str]]]  # title of a section, which may be empty -> rows of cells

_ALWAYS = ("model", "trained on", "tested on")  # columns, be they the same everywhere


def table(reports: Sequence[Report], form: str = "text") -> str:
    """One row a test, by protocol; under several runs of one setting their mean, over runs and images.

    Of the columns that say what was tested and how, those that are the same everywhere stand above.

    Args:
        reports: contents of ``results.json``.
        form: text, markdown, latex, html or csv; the last has every column and full precision, and no means.

    Raises:
        ConfigError: another form.
    """
    write = FORMS[form]
    tests = [(report, name) for report in reports for name in report["protocols"]]
    about = [described(report, name) for report, name in tests]
    if write is None:
        return _csv(tests, about)
    shown = [key for key in about[0] if key != "protocol" and (key in _ALWAYS or _differs(key, about))]
    common = [
        f"{key} {about[0][key]}"
        for key in about[0]
        if key not in shown and _one(key, about) and about[0][key] != "-"
    ]
    sections: Body = {name: [] for _, name in tests}
    for (report, name), row in zip(tests, about, strict=True):
        scored = report["protocols"][name]["scores"]
        cells = (figure.text(scored[figure.key]) for figure in MAIN)
        sections[name].append([*(str(row[key]) for key in shown), *cells])
    ways = set()
    for name, runs in _repeated(tests):
        row = described(runs[0], name) | {"run": f"mean of {len(runs)}"}
        means, way = _means(runs, name)
        ways.add(way)
        sections[name].append([*(str(row[key]) for key in shown), *means])
    titles = len(sections) > 1
    body = {f"protocol {name}" if titles else "": rows for name, rows in sections.items()}
    header = [*shown, *(figure.heading for figure in MAIN)]
    return write(header, body, len(shown), "; ".join([*common, *sorted(ways)]))


def bounds(figure: Figure, of: Comparison, sign: str = "") -> str:
    """The interval of a figure in brackets, where there is one."""
    if of.interval is None:
        return ""
    low, high = (f"{figure.scale * edge:{sign}.{figure.decimals}f}" for edge in of.interval)
    return f" [{low}, {high}]"


def _csv(tests: Sequence[tuple[Report, str]], about: Sequence[dict[str, Any]]) -> str:
    rows = [
        {**row, **report["protocols"][name]["scores"]}
        for (report, name), row in zip(tests, about, strict=True)
    ]
    stream = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().rstrip("\n")


def _repeated(tests: Sequence[tuple[Report, str]]) -> list[tuple[str, list[Report]]]:
    """Protocol and runs of settings that were trained several times, with other seeds."""
    found: dict[tuple[str, ...], list[Report]] = defaultdict(list)
    for report, name in tests:
        if report["weights"].get("settings"):
            found[(name, *setting(report, name))].append(report)
    counted = [(key[0], distinct(runs, key[0])[0]) for key, runs in found.items()]
    return [(name, runs) for name, runs in counted if len(runs) > 1]


def _means(runs: Sequence[Report], protocol: str) -> tuple[list[str], str]:
    """Cells of a row of means, and what stands beside the means."""
    try:
        tables = same_images(runs, protocol)
    except InputError:
        scored = [run["protocols"][protocol]["scores"] for run in runs]
        return [_mean_and_spread(scored, figure) for figure in MAIN], "+-: standard deviation of runs"
    columns = [columns_of(list(rows.values())) for rows in tables]
    compared = compare_runs(columns, [], figures, groups=groups_in(tables[0]))
    cells = [figure.text(of.value) + bounds(figure, of) for figure in MAIN for of in [compared[figure.key]]]
    return cells, "in brackets: 95 % intervals over runs and images"


def _mean_and_spread(several: Sequence[dict[str, Any]], figure: Figure) -> str:
    values = [figure.scale * scored[figure.key] for scored in several if scored[figure.key] is not None]
    return f"{statistics.mean(values):.2f} +- {statistics.stdev(values):.2f}" if len(values) > 1 else "-"


def _one(key: str, about: Sequence[dict[str, Any]]) -> bool:
    return len({str(row[key]) for row in about}) == 1


def _differs(key: str, about: Sequence[dict[str, Any]]) -> bool:
    """Whether rows differ in a column; in the rule for empty images, whether rows of one protocol do."""
    if key == "correctly empty image":
        return len({(row["protocol"], row[key]) for row in about}) > len({row["protocol"] for row in about})
    return not _one(key, about)


def text_table(header: list[str], body: Body, left: int, common: str = "") -> str:
    """Columns of text, of which the first ``left`` are aligned so.

    Args:
        header: of the columns.
        body: rows by section.
        left: how many columns hold words.
        common: a line to stand above.
    """
    rows = [row for section in body.values() for row in section]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(row: list[str]) -> str:
        cells = zip(row, widths, strict=True)
        return "  ".join(
            cell.ljust(width) if k < left else cell.rjust(width) for k, (cell, width) in enumerate(cells)
        ).rstrip()

    lines = [common] if common else []
    lines.append(line(header))
    for title, section in body.items():
        lines += [*([title] if title else []), *map(line, section)]
    return "\n".join(lines)


def _markdown(header: list[str], body: Body, left: int, common: str) -> str:
    def line(row: list[str]) -> str:
        return "| " + " | ".join(row) + " |"

    lines = [common, ""] if common else []
    lines += [line(header), line(["---" if k < left else "---:" for k in range(len(header))])]
    for title, section in body.items():
        lines += [line([f"**{title}**", *[""] * (len(header) - 1)])] if title else []
        lines += map(line, section)
    return "\n".join(lines)


def _latex(header: list[str], body: Body, left: int, common: str) -> str:
    def line(cells: list[str]) -> str:
        return " & ".join(_escape(cell) for cell in cells) + r" \\"

    columns = "l" * left + "r" * (len(header) - left)
    lines = [f"% {common}"] if common else []
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\hline", line(header)]
    for title, section in body.items():
        lines.append(r"\hline")
        lines += [rf"\multicolumn{{{len(header)}}}{{l}}{{{_escape(title)}}} \\"] if title else []
        lines += map(line, section)
    return "\n".join([*lines, r"\hline", r"\end{tabular}"])


def _escape(text: str) -> str:
    for mark in "&%$#_{}":
        text = text.replace(mark, "\\" + mark)
    return text.replace("+-", r"$\pm$")


def _html(header: list[str], body: Body, left: int, common: str) -> str:
    def line(cells: list[str], kind: str = "td") -> str:
        return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"

    lines = [f"<table>{f'<caption>{escape(common)}</caption>' if common else ''}", line(header, "th")]
    for title, section in body.items():
        lines += [f'<tr><th colspan="{len(header)}">{escape(title)}</th></tr>'] if title else []
        lines += map(line, section)
    return "\n".join([*lines, "</table>"])


#: How a table is written: header, rows by section, how many columns hold words, a line above. None: as CSV.
FORMS: Registry[Any] = Registry(
    "--format", {"text": text_table, "markdown": _markdown, "latex": _latex, "html": _html, "csv": None}
)
