"""Test saved weights: ``python testing.py --help``."""

from sam_spl.cli.errors import run
from sam_spl.cli.test import test

if __name__ == "__main__":
    run(test)
