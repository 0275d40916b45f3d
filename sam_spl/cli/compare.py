"""``sam-spl compare``: several results in one table, and whether they differ by more than chance."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from sam_spl.cli.command import Command
from sam_spl.config import require_choice
from sam_spl.errors import ConfigError


@dataclass
class CompareConfig:
    """Show several results in one table, and whether they differ by more than chance.

    Runs that differ only in their seed get a row with their mean. With --paired or --against two results, or
    the runs of two settings, are compared image by image. --rank orders any number of networks, and says
    which of the orders the data support.
    """

    runs: list[str] = MISSING  # run folders, folders of them, or results.json files
    format: str = "text"  # text | markdown | latex | html | csv
    paired: bool = False  # compare two results, or the runs of two settings, image by image
    against: list[str] = field(default_factory=list)  # compare the runs with these, image by image
    rank: str | None = None  # order the networks by iou | niou | f1 | pd | fa; --rank alone: iou
    picture: str | None = None  # of the ranking, FILE.png, .pdf or .svg

    def __post_init__(self) -> None:
        require_choice(self.format, "format", ("text", "markdown", "latex", "html", "csv"))
        require_choice(self.rank, "rank", (None, "iou", "niou", "f1", "pd", "fa"))
        if self.picture is not None and self.rank is None:
            raise ConfigError("picture: shows a ranking. Add --rank iou.")


def compare(config: CompareConfig) -> None:
    """Print the table, then the comparison where one is asked for."""
    import sys

    from sam_spl.results.compare import table
    from sam_spl.results.files import find_results, untested
    from sam_spl.results.paired import paired, two_sides
    from sam_spl.results.runs import distinct

    first, notes = distinct(find_results(config.runs))
    second, more = distinct(find_results(config.against))
    left_out = untested([*config.runs, *config.against])
    if left_out:
        more.append(f"not tested, so not in the table: {', '.join(left_out)}")
    for note in (*notes, *more):
        print(note, file=sys.stderr)
    print(table([*first, *second], config.format))
    if config.against or config.paired:
        print(f"\n{paired(*((first, second) if config.against else two_sides(first)))}")
    if config.rank is not None:
        from sam_spl.results.ranking import ranking

        found, text = ranking([*first, *second], config.rank)
        print(f"\n{text}")
        if config.picture is not None:
            from sam_spl.report.plots import ranking_plot, save

            print(f"picture: {save(ranking_plot(found), config.picture)}")


COMMAND = Command(
    "compare",
    CompareConfig,
    compare,
    positional=("runs",),
    alone={"rank": "iou"},
    examples=(
        "sam-spl compare checkpoints/                      # every results.json below, with means of runs",
        "sam-spl compare checkpoints/a checkpoints/b --format latex",
        "sam-spl compare checkpoints/a checkpoints/b --paired   # do the two differ by more than chance?",
        "sam-spl compare checkpoints/ --paired             # several seeds of two settings",
        "sam-spl compare a1 a2 --against b1 b2             # the same, with sides by name",
        "sam-spl compare checkpoints/ --rank iou --picture ranking.png   # which orders do the data support?",
    ),
)
