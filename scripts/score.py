#!/usr/bin/env python3
"""Score anybody's masks or probability maps as testing.py scores a network.

python scripts/score.py --predictions results/UIUNet --masks datasets/SIRST/masks --list datasets/SIRST/50_50/test.txt
python scripts/score.py --predictions maps/ --masks masks/ --protocols native sam_spl --name UIUNet
Predictions are PNG (0 to 255, or 0 and 1), NPY or MAT files (probabilities, or --logits), called as their images.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from tqdm import tqdm

from sam_spl.cli.errors import run
from sam_spl.data.catalog import group_names
from sam_spl.data.config import check_pattern
from sam_spl.data.layout import read_list
from sam_spl.data.pairing import Files, files_below
from sam_spl.data.reading import read_mask
from sam_spl.errors import InputError
from sam_spl.files import write_text
from sam_spl.metrics import PROTOCOLS, Counter, protocols_named, scores
from sam_spl.resize import resize_logits
from sam_spl.results.predictions import find_predictions, full_scale, read_prediction
from sam_spl.results.rules import EMPTY
from sam_spl.results.summary import summarise, versions
from sam_spl.results.text import per_image_csv, summary_text


def score(argv: list[str]) -> None:
    """Score as the command line says."""
    options = _parser().parse_args(argv)
    check_pattern("--group", options.group)
    # No network is known here, so the size of its input is the one that the command line gives.
    protocols = [
        replace(protocol, resolution=str(options.image_size)) if protocol.resolution == "input" else protocol
        for protocol in protocols_named(options.protocols)
    ]
    predictions, masks = _pairs(options.predictions, options.masks, options.list)
    scale = full_scale(predictions.values()) if options.scale is None else options.scale
    counter, rows = Counter(protocols, detailed=True), []
    names = list(predictions)
    for index, name in enumerate(tqdm(names, desc="scoring", unit="img", disable=None)):
        prob, mask = (
            read_prediction(predictions[name], scale=scale, logits=options.logits),
            read_mask(masks[name]),
        )
        if prob.shape != mask.shape and not options.resize:
            raise InputError(
                f"{predictions[name]} is {prob.shape[1]}x{prob.shape[0]}, its mask {masks[name]} "
                f"{mask.shape[1]}x{mask.shape[0]} (width x height). Predict at the mask's size, or say --resize."
            )
        prob = _at(prob, mask.shape)
        maps = {r: _at(prob, mask.shape if r == "own" else (int(r), int(r))) for r in counter.resolutions}
        rows.append(counter.row(index, maps, mask))

    counts = counter.unpack(np.array(rows))
    title = options.name or options.predictions.resolve().name
    report = {
        **summarise(
            counts,
            names,
            protocols,
            empty=options.empty,
            bootstrap=options.bootstrap,
            budget=options.fa_budget * 1e-6,
            groups=group_names(options.group, names) if options.group else None,
        ),
        "weights": {"model": title, "file": str(options.predictions / "*")},
        "dataset": {
            "name": options.masks.resolve().parent.name,
            "lists": "/".join(options.list.parts[-2:]) if options.list else "all masks",
            "split": "test",
            "where": str(options.masks),
        },
        "image_size": options.image_size,
        "versions": versions(),
    }
    folder = options.output or Path("scores") / title
    write_text(folder / "results.json", json.dumps(report, indent=1) + "\n")
    write_text(folder / "images.csv", per_image_csv(report))
    about = [("predictions", f"{options.predictions}, {len(names)} images"), ("masks", str(options.masks))]
    print(summary_text(report, about))
    print(scores(counts, protocols[0], empty=EMPTY.get(options.empty)).line())
    print(f"results.json and images.csv are in {folder}")


def _pairs(folder: Path, mask_folder: Path, names: Path | None) -> tuple[dict[str, Path], dict[str, Path]]:
    """Predictions and masks by name, of all masks or of those that a list names."""
    predictions = find_predictions(folder)
    found = files_below(mask_folder) if mask_folder.is_dir() else {}
    if not found:
        raise InputError(f"--masks: {mask_folder} is no folder of masks, or holds none.")
    files = Files.of(predictions, found)
    if names is not None:
        if not names.is_file():
            raise InputError(f"--list: no file {names}.")
        listed = {line: files.image_name(line) for line in read_list(names)}
        if absent := [line for line, name in listed.items() if name is None]:
            raise InputError(
                f"{folder} lacks {len(absent)} of the {len(listed)} predictions that {names} names, first "
                f"{', '.join(absent[:3])}."
            )
        predictions = {str(name): predictions[str(name)] for name in listed.values()}
    masks = {name: files.mask(name) for name in predictions}
    if without := [name for name, mask in masks.items() if mask is None]:
        raise InputError(
            f"{len(without)} of {len(predictions)} predictions have no mask in {mask_folder}, first "
            f"{', '.join(without[:3])}. A prediction is called as its image; a mask likewise, or "
            "that with _pixels0, _mask or _label."
        )
    if names is None and len(found) != len(predictions):
        used = set(masks.values())
        unused = [name for name, path in found.items() if path not in used]
        raise InputError(
            f"{len(unused)} of {len(found)} masks have no prediction, first {', '.join(unused[:3])}. Predict them, or "
            "name the images to score with --list FILE."
        )
    return predictions, masks  # type: ignore[return-value]


def _at(prob: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map at another size (H, W), interpolated as logits, as testing does."""
    if prob.shape == size:
        return prob
    inside = np.clip(prob.astype(np.float64), 1e-7, 1 - 1e-7)
    logits = torch.from_numpy(np.log(inside / (1 - inside)))[None]
    return resize_logits(logits, size)[0].sigmoid().numpy()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--predictions", type=Path, required=True, help="folder of PNG, NPY or MAT files")
    parser.add_argument("--masks", type=Path, required=True, help="folder of masks")
    parser.add_argument("--list", type=Path, help="split list: score only what it names")
    parser.add_argument("--name", help="what the method is called (default: the folder)")
    parser.add_argument("--output", type=Path, help="folder to write into (default: scores/NAME)")
    parser.add_argument("--protocols", nargs="+", default=["native"], help=f"of {', '.join(PROTOCOLS)}")
    parser.add_argument("--image_size", type=int, default=256, help="of protocols at the network's input")
    parser.add_argument("--resize", action="store_true", help="resize predictions to their masks")
    parser.add_argument(
        "--scale",
        type=float,
        help="what stands for one in image files (default: 255, or 1 if none is larger)",
    )
    parser.add_argument("--logits", action="store_true", help="NPY and MAT files hold logits")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples for 95 %% intervals; 0: none")
    parser.add_argument(
        "--group", help="pattern in names that tells images that are not independent (dataset.group)"
    )
    parser.add_argument("--empty", choices=EMPTY, help="nIoU of an image correctly predicted empty")
    parser.add_argument(
        "--fa_budget", type=float, default=10.0, help="of Pd at a false-alarm budget, in 1e-6"
    )
    return parser


if __name__ == "__main__":
    run(score)
