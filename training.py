"""Train a network: ``python training.py --help``. The same as ``sam-spl train``."""

import sys

from sam_spl.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
