#!/usr/bin/env python3
"""Convert weights between this toolkit's files and the published codes', bit-exact in both directions.

python scripts/convert_weights.py published.pth ours.safetensors --dataset NUDT-SIRST
python scripts/convert_weights.py published.pth ours.safetensors --mean 0.4228 --std 0.1295 --image_size 256
python scripts/convert_weights.py checkpoints/my_run published.pth --to published
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sam_spl.cli.errors import run
from sam_spl.data.known import dataset_file
from sam_spl.errors import ConfigError
from sam_spl.predict.predictor import load_network
from sam_spl.weights.description import check_description
from sam_spl.weights.formats import read_weights, save_weights


def convert(argv: list[str]) -> None:
    """Convert as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="weights file or run folder")
    parser.add_argument("target", help="file to write: .safetensors or .pt for ours, .pth for published")
    parser.add_argument(
        "--to", choices=("ours", "published"), help="default: the other kind than the source's"
    )
    parser.add_argument(
        "--dataset", help="set that published weights were trained on: normalisation and size are its"
    )
    parser.add_argument(
        "--mean", type=float, nargs="+", help="or else, where the file does not state it: the mean"
    )
    parser.add_argument(
        "--std", type=float, nargs="+", help="and standard deviation of the network's input in [0, 1]"
    )
    parser.add_argument("--image_size", type=int, help="and its size in pixels")
    parser.add_argument(
        "--train_size", type=int, help="of published DATransNet weights: 256, for IRSTD-1k 512"
    )
    options = parser.parse_args(argv)
    if Path(options.target).is_dir():
        raise ConfigError(f"{options.target} is a folder. Give a file to write.")

    weights = read_weights(options.source)
    given = {
        key: value for key in ("mean", "std", "image_size") if (value := getattr(options, key)) is not None
    }
    settings = dict(dataset_file(options.dataset)) if options.dataset else {"title": "the command line"}
    settings |= given | ({"test_size": None} if "image_size" in given else {})
    # Building the network checks every name and shape before anything is written.
    _, description = load_network(
        options.source, settings if options.dataset or given else None, train_size=options.train_size
    )
    check_description(description, Path(options.target))
    to = options.to or ("ours" if weights.published else "published")
    save_weights(options.target, weights.state, description, names=to)
    print(f"{options.target}: {description['model']}, {len(weights.state)} tensors, {to} names")


if __name__ == "__main__":
    run(convert)
