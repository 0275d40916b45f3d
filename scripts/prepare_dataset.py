#!/usr/bin/env python3
"""Make a folder that trains out of one's own images and labels.

python scripts/prepare_dataset.py IMAGES --masks MASKS -o datasets/mine        # mask files
python scripts/prepare_dataset.py IMAGES --coco boxes.json -o datasets/mine    # boxes, polygons
python scripts/prepare_dataset.py IMAGES --labelme JSONS -o datasets/mine      # one file an image
Images are copied as they are, masks written as PNG, and lists by --test, --val and --seed. Frames of one sequence
(names that differ in the number at the end) stay together with --by sequence, so that neighbours do not leak.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from sam_spl.cli.errors import run
from sam_spl.data.prepare import (
    image_files,
    labels_from_coco,
    labels_from_labelme,
    labels_from_masks,
    split_names,
    write_folder,
)
from sam_spl.errors import ConfigError, InputError


def prepare(argv: list[str]) -> None:
    """Prepare as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder of images, nested or not")
    labels_from = parser.add_mutually_exclusive_group(required=True)
    labels_from.add_argument("--masks", type=Path, help="folder of mask files")
    labels_from.add_argument("--coco", type=Path, help="COCO file")
    labels_from.add_argument("--labelme", type=Path, help="folder of LabelMe files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--test", type=float, default=0.2, help="share of test images (default: 0.2)")
    parser.add_argument("--val", type=float, default=0.0, help="share of validation images (default: 0)")
    parser.add_argument("--by", choices=("image", "sequence"), default="image", help="what is dealt out")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--link", action="store_true", help="hard links to the images instead of copies")
    parser.add_argument(
        "--unlabelled",
        choices=("error", "skip", "empty"),
        default="error",
        help="images without label: stop, leave them out, or take them as images without target",
    )
    options = parser.parse_args(argv)
    if not (0 <= options.test < 1 and 0 <= options.val < 1 and 0 < options.test + options.val < 1):
        raise ConfigError("--test, --val: shares between 0 and 1 whose sum leaves images for training.")

    images = image_files(options.images)
    if options.masks:
        masks = options.masks.resolve()
        images = {name: path for name, path in images.items() if masks not in path.resolve().parents}
        labels = labels_from_masks(images, options.masks)
    elif options.coco:
        labels = labels_from_coco(images, options.coco)
    else:
        labels = labels_from_labelme(images, options.labelme)
    without = [name for name in images if name not in labels]
    if without and options.unlabelled == "error":
        raise InputError(
            f"{len(without)} of {len(images)} images have no label, first {', '.join(without[:3])}. Label them, leave "
            "them out (--unlabelled skip), or take them as images without target (--unlabelled empty)."
        )
    if options.unlabelled == "empty":
        labels |= {name: lambda size: np.zeros(size, bool) for name in without}
    shares = {"val": options.val, "test": options.test}
    split = split_names(labels, shares, by_sequence=options.by == "sequence", seed=options.seed)
    empty = write_folder(options.output, images, labels, split, link=options.link)
    counts = ", ".join(f"{len(names)} {role}" for role, names in split.items())
    skipped = f", {len(without)} without label left out" if without and options.unlabelled == "skip" else ""
    print(f"{options.output}: {counts} images, {empty} of them without target{skipped}")
    print(f"check: python scripts/check_dataset.py {options.output}")
    print(f"train: python training.py --dataset custom --data_path {options.output}")


if __name__ == "__main__":
    run(prepare)
