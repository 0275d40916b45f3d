"""``sam-spl compare``: several results in one table, and whether they differ by more than chance."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from sam_spl.cli.command import Command
from sam_spl.config import require_choice


@dataclass
class CompareConfig:
    """Show several results in one table, and whether they differ by more than chance.

    Runs that differ only in their seed get a row with their mean. With --paired or --against two results, or
    the runs of two settings, are compared image by image.
    """

    runs: list[str] = MISSING  # run folders, folders of them, or results.json files
    format: str = "text"  # text | markdown | latex | csv
    paired: bool = False  # compare two results, or the runs of two settings, image by image
    against: list[str] = field(default_factory=list)  # compare the runs with these, image by image

    def __post_init__(self) -> None:
        require_choice(self.format, "format", ("text", "markdown", "latex", "csv"))


def compare(config: CompareConfig) -> None:
    """Print the table, then the comparison where one is asked for."""
    import sys

    from sam_spl.results.compare import table
    from sam_spl.results.files import find_results
    from sam_spl.results.paired import paired, two_sides
    from sam_spl.results.runs import distinct

    first, notes = distinct(find_results(config.runs))
    second, more = distinct(find_results(config.against))
    for note in (*notes, *more):
        print(note, file=sys.stderr)
    print(table([*first, *second], config.format))
    if config.against or config.paired:
        print(f"\n{paired(*((first, second) if config.against else two_sides(first)))}")


COMMAND = Command(
    "compare",
    CompareConfig,
    compare,
    positional=("runs",),
    examples=(
        "sam-spl compare checkpoints/                      # every results.json below, with means of runs",
        "sam-spl compare checkpoints/a checkpoints/b --format latex",
        "sam-spl compare checkpoints/a checkpoints/b --paired   # do the two differ by more than chance?",
        "sam-spl compare checkpoints/ --paired             # several seeds of two settings",
        "sam-spl compare a1 a2 --against b1 b2             # the same, with sides by name",
    ),
)
