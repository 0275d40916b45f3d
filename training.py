"""Train a network: ``python training.py --help``."""

from sam_spl.cli.commands import train
from sam_spl.cli.errors import run

if __name__ == "__main__":
    run(train)
