"""Test saved weights: ``python testing.py --help``."""

from sam_spl.cli.commands import test
from sam_spl.cli.errors import run

if __name__ == "__main__":
    run(test)
