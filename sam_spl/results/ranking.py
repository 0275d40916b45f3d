"""Results of several networks as a ranking, with the orders that they support."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from sam_spl.errors import ConfigError, InputError
from sam_spl.metrics.figures import FIGURES, MAIN, figures
from sam_spl.metrics.ranking import Ranking, rank
from sam_spl.results.compare import text_table
from sam_spl.results.files import Report, columns_of
from sam_spl.results.runs import described, distinct, groups_in, is_fixed, run_name, same_images, setting


def ranking(reports: Sequence[Report], figure: str, *, resamples: int = 10000) -> tuple[Ranking, str]:
    """Networks in order of a figure under the first protocol of the first result; the ranking, and its text.

    Results that differ in their seed only are runs of one network.

    Args:
        reports: contents of ``results.json``.
        figure: key of one of the main figures.
        resamples: how often images are drawn again.

    Raises:
        ConfigError: results of one network only.
        InputError: results are not of the same images, masks and rules.
    """
    protocol = reports[0]["protocol"]
    for report in reports:
        if protocol not in report["protocols"]:
            raise InputError(
                f"--rank: {run_name(report)} was not scored under {protocol}. Test it with "
                f"protocols=[{protocol}]."
            )
    reports = distinct(reports, protocol)[0]
    sides: dict[tuple[str, ...], list[Report]] = defaultdict(list)
    for report in reports:
        # Without settings (published weights, other people's predictions) each is a method of its own.
        own = () if report["weights"].get("settings") else (report["weights"]["file"],)
        sides[(*setting(report, protocol), *own)].append(report)
    if len(sides) < 2:
        raise ConfigError(
            f"--rank: {len(reports)} results of one network. A ranking needs two: name further results."
        )
    tables = iter(same_images([run for runs in sides.values() for run in runs], protocol))
    named = dict(zip(_names(list(sides.values()), protocol), sides.values(), strict=True))
    rows = {name: [next(tables) for _ in runs] for name, runs in named.items()}
    images = next(iter(rows.values()))[0]
    groups = groups_in(images)
    found = rank(
        {name: [columns_of(list(run.values())) for run in runs] for name, runs in rows.items()},
        figure,
        figures,
        fixed=[name for name, (first, *_) in named.items() if is_fixed(first)],
        groups=groups,
        resamples=resamples,
    )
    in_groups = f" in {len(set(groups))} groups" if groups else ""
    where = f"{reports[0]['dataset']['name']}, {len(images)} images{in_groups}, protocol {protocol}"
    alone = [name for name, runs in named.items() if len(runs) == 1 and not is_fixed(runs[0])]
    return found, _text(found, where, alone)


def _names(sides: Sequence[Sequence[Report]], protocol: str) -> list[str]:
    """The networks' titles; where two are equal, with the folder of the first run."""
    titles = [str(described(runs[0], protocol)["model"]) for runs in sides]
    counts = Counter(titles)
    return [
        title if counts[title] == 1 else f"{title} ({run_name(runs[0])})"
        for title, runs in zip(titles, sides, strict=True)
    ]


def _text(found: Ranking, where: str, alone: Sequence[str]) -> str:
    figure = FIGURES[found.figure]
    count = range(len(found.places))
    body = []
    for i, place in enumerate(found.places):
        bounds = (
            f" [{figure.text(place.interval[0])}, {figure.text(place.interval[1])}]" if place.interval else ""
        )
        better = [str(j + 1) for j in count if found.supported(i, j)]
        open_to = [str(j + 1) for j in count if j != i and not found.supported(min(i, j), max(i, j))]
        cells = [figure.text(place.mean) + bounds, ", ".join(better) or "-", ", ".join(open_to) or "-"]
        body.append([f"{i + 1}", place.name, str(place.runs), *cells])
    pairs = len(found.places) * (len(found.places) - 1) // 2
    told = sum(found.supported(i, j) for i in count for j in count)
    lines = [
        f"ranking by {figure.title} on {where}; in brackets: 95 % intervals",
        text_table(["", "model", "runs", figure.heading, "better than", "order open with"], {"": body}, 2),
        f"The data support the order of {told} of {pairs} pairs (paired over images; Holm's method: all of "
        "these together with 95 % confidence).",
    ]
    if alone:
        lines.append(f"One run of {', '.join(alone)}: about these weights, not about training again.")
    return "\n".join(lines)


#: What a ranking can be by.
RANKED = tuple(figure.key for figure in MAIN)
