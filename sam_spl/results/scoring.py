"""Scores of the saved predictions of any method, without its network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sam_spl.data.catalog import group_names
from sam_spl.data.lists import read_list
from sam_spl.data.pairing import Files, files_below
from sam_spl.data.reading import read_mask
from sam_spl.errors import InputError
from sam_spl.files import lock
from sam_spl.metrics import Counter, DatasetCounts, Protocol, protocols_named, scores
from sam_spl.progress import Progress
from sam_spl.resize import resize_logits
from sam_spl.results.config import ScoreConfig
from sam_spl.results.files import write_result
from sam_spl.results.folder import Result
from sam_spl.results.predictions import Prob, find_predictions, full_scale, read_prediction
from sam_spl.results.rules import empty_rule
from sam_spl.results.summary import summarise, versions
from sam_spl.results.text import summary_text


def score(config: ScoreConfig) -> Result:
    """Score saved predictions as a test scores a network, and write what it gives into a folder.

    Raises:
        ConfigError: an unknown protocol.
        InputError: predictions, masks or the list are not what they should be.
    """
    folder, mask_folder = Path(config.predictions).expanduser(), Path(config.masks).expanduser()
    list_file = Path(config.list).expanduser() if config.list else None
    name = config.name or folder.resolve().name
    protocols = at_input_size(protocols_named(config.protocols), config.image_size)
    predictions, masks = pair_files(folder, mask_folder, list_file)
    counts = count_files(
        predictions, masks, protocols, scale=config.scale, logits=config.logits, resize=config.resize
    )
    names = list(predictions)
    report = {
        **summarise(
            counts,
            names,
            protocols,
            empty=config.empty,
            bootstrap=config.bootstrap,
            budget=config.fa_budget * 1e-6,
            groups=group_names(config.group, names) if config.group else None,
        ),
        "weights": {"model": name, "file": str(folder / "*")},
        "dataset": {
            "name": mask_folder.resolve().parent.name,
            "lists": "/".join(list_file.parts[-2:]) if list_file else "all masks",
            "split": "test",
            "where": str(mask_folder),
        },
        "image_size": config.image_size,
        "versions": versions(),
    }
    output = Path(config.output).expanduser() if config.output else Path("scores") / name
    with lock(output):
        write_result(output, report)
    about = [("predictions", f"{folder}, {len(names)} images"), ("masks", str(mask_folder))]
    print(summary_text(report, about))
    print(scores(counts, protocols[0], empty=empty_rule(config.empty)).line())
    print(f"results.json and images.csv are in {output}")
    return Result(report, output)


def pair_files(
    predictions: Path, masks: Path, list_file: Path | None = None
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Predictions and masks by the name of their image, of all masks or of those that a list names.

    Args:
        predictions: folder.
        masks: folder.
        list_file: names of images, one a line.

    Raises:
        InputError: a folder or the list is absent or empty, or an image lacks its prediction or its mask.
    """
    found = find_predictions(predictions)
    stored = files_below(masks) if masks.is_dir() else {}
    if not stored:
        raise InputError(
            f"--masks: {masks} is not a folder, or holds no masks. Give the folder of the mask files."
        )
    files = Files.of(found, stored)
    if list_file is not None:
        if not list_file.exists():
            raise InputError(f"--list: no file {list_file}.")
        listed = {line: files.image_name(line) for line in read_list(list_file)}
        if not listed:
            raise InputError(f"--list: {list_file} is empty.")
        if absent := [line for line, name in listed.items() if name is None]:
            raise InputError(
                f"{predictions} lacks {len(absent)} of the {len(listed)} predictions that {list_file} names, "
                f"first {', '.join(absent[:3])}."
            )
        found = {str(name): found[str(name)] for name in listed.values()}
    paired = {name: mask for name in found if (mask := files.mask(name)) is not None}
    if without := [name for name in found if name not in paired]:
        raise InputError(
            f"{len(without)} of {len(found)} predictions have no mask in {masks}, first "
            f"{', '.join(without[:3])}. Name predictions and masks like the images; masks also with "
            "_pixels0, _mask or _label added."
        )
    if list_file is None and len(stored) != len(found):
        used = set(paired.values())
        unused = [name for name, path in stored.items() if path not in used]
        raise InputError(
            f"{len(unused)} of {len(stored)} masks have no prediction, first {', '.join(unused[:3])}. "
            "Predict them, or name the images to score with --list FILE."
        )
    return found, paired


def at_input_size(protocols: Sequence[Protocol], side: int) -> list[Protocol]:
    """The protocols with the size of the network's input, which saved predictions do not state."""
    return [
        replace(protocol, resolution=str(side)) if protocol.resolution == "input" else protocol
        for protocol in protocols
    ]


def count_files(
    predictions: Mapping[str, Path],
    masks: Mapping[str, Path],
    protocols: Sequence[Protocol],
    *,
    scale: float | None = None,
    logits: bool = False,
    resize: bool = False,
) -> DatasetCounts:
    """The counts of every image, as testing counts them.

    Args:
        predictions: by the name of their image, from :func:`pair_files`.
        masks: likewise.
        protocols: from :func:`at_input_size`.
        scale: as :func:`~sam_spl.results.predictions.read_prediction`; None: found from all files.
        logits: likewise.
        resize: interpolate predictions of another size than their mask.

    Raises:
        InputError: a file cannot be read, holds no probabilities, or has another size than its mask.
    """
    scale = full_scale(predictions.values()) if scale is None else scale
    counter, rows = Counter(protocols, detailed=True), []
    with Progress("scoring", "images", len(predictions)) as progress:
        for index, (name, path) in enumerate(predictions.items()):
            prob, mask = read_prediction(path, scale=scale, logits=logits), read_mask(masks[name])
            if prob.shape != mask.shape and not resize:
                raise InputError(
                    f"{path} is {prob.shape[1]}x{prob.shape[0]}, its mask {masks[name]} "
                    f"{mask.shape[1]}x{mask.shape[0]} (width x height). Predict at that size, or use "
                    "--resize."
                )
            prob = _at(prob, mask.shape)
            maps = {r: _at(prob, mask.shape if r == "own" else (int(r), int(r))) for r in counter.resolutions}
            rows.append(counter.row(index, maps, mask))
            progress.add()
    return counter.unpack(np.array(rows))


def _at(prob: Prob, size: tuple[int, ...]) -> Prob:
    """A map at another size (H, W), interpolated as logits, as testing does."""
    if prob.shape == size:
        return prob
    within = np.clip(prob.astype(np.float64), 1e-7, 1 - 1e-7)
    logits = torch.from_numpy(np.log(within / (1 - within)))[None]
    return resize_logits(logits, (size[0], size[1]))[0].sigmoid().numpy()
