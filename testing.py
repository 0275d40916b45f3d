"""Test a network: ``python testing.py --help``. The same as ``sam-spl test``."""

import sys

from sam_spl.cli.main import main

if __name__ == "__main__":
    main(["test", *sys.argv[1:]])
