#!/usr/bin/env python3
"""Collect the results of several tests in one table, and tell differences from chance.

python scripts/compare.py checkpoints/                              # every results.json below, with means of runs
python scripts/compare.py checkpoints/a checkpoints/b --format latex
python scripts/compare.py checkpoints/a checkpoints/b --paired      # do the two differ by more than chance?
python scripts/compare.py checkpoints/ --paired                     # several seeds of two settings, against each other
python scripts/compare.py a_1 a_2 a_3 --against b_1 b_2 b_3         # the same, with sides by name
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sam_spl.cli.errors import run
from sam_spl.results.compare import table
from sam_spl.results.files import find_results
from sam_spl.results.paired import paired, two_sides
from sam_spl.results.runs import distinct


def compare(argv: list[str]) -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="run folders, folders of them, or results.json files")
    parser.add_argument("--format", default="text", help="text, markdown, latex or csv (default: text)")
    parser.add_argument(
        "--paired",
        action="store_true",
        help="compare two results, or the runs of two settings, image by image",
    )
    parser.add_argument("--against", nargs="+", help="compare the runs before it with these, image by image")
    options = parser.parse_args(argv)
    first, notes = distinct(find_results(options.runs))
    second, more = distinct(find_results(options.against or []))
    for note in (*notes, *more):
        print(note, file=sys.stderr)
    print(table([*first, *second], options.format))
    if options.against or options.paired:
        print(f"\n{paired(*((first, second) if options.against else two_sides(first)))}")


if __name__ == "__main__":
    run(compare)
