#!/usr/bin/env python3
"""Collect the results of several tests in one table.

python scripts/compare.py checkpoints/                        # every results.json below
python scripts/compare.py checkpoints/a checkpoints/b --format latex
python scripts/compare.py checkpoints/a checkpoints/b --paired     # do the two differ by more than chance?
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sam_spl.cli.errors import run
from sam_spl.errors import ConfigError
from sam_spl.inference.compare import find_results, paired, table


def compare(argv: list[str]) -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders, folders of them, or results.json files")
    parser.add_argument("--format", default="text", help="text, markdown, latex or csv (default: text)")
    parser.add_argument("--paired", action="store_true", help="test two results on the same images against each other")
    options = parser.parse_args(argv)
    reports = find_results(options.runs)
    if options.paired and len(reports) != 2:
        raise ConfigError(f"--paired: {len(reports)} results; it takes two. Name two results.json files.")
    print(table(reports, options.format))
    if options.paired:
        print(f"\n{paired(*reports)}")


if __name__ == "__main__":
    run(compare)
