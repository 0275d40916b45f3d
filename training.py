"""Train a network: ``python training.py --help``."""

from sam_spl.cli.errors import run
from sam_spl.cli.train import train

if __name__ == "__main__":
    run(train)
