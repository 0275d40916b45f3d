"""One test: load, score, write the results."""

from __future__ import annotations

import logging
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from sam_spl.data.catalog import DataSet, Part, groups_of, open_dataset
from sam_spl.data.dataset import EvaluationSet
from sam_spl.data.normalise import normalise_of
from sam_spl.engine.evaluator import evaluate
from sam_spl.metrics import protocols_named, scores
from sam_spl.metrics.curves import levels, probabilities
from sam_spl.predict.predictor import Predictor, load_network
from sam_spl.report.figures import write_figures
from sam_spl.report.page import Sample, write_report
from sam_spl.report.render import overlay, write_png
from sam_spl.results.files import write_result
from sam_spl.results.predictions import write_prediction
from sam_spl.results.rules import EMPTY
from sam_spl.results.summary import summarise, versions, worst
from sam_spl.results.text import summary_text
from sam_spl.runtime import World
from sam_spl.weights.formats import find_weights, sha256

log = logging.getLogger(__name__)


def run(config: DictConfig, world: World) -> dict[str, Any] | None:
    """Score one weights file on one data set, in this process; the result file's content, of rank 0."""
    cv2.setNumThreads(1)
    torch.manual_seed(config.seed)
    if not world.main:
        logging.getLogger("sam_spl").setLevel(logging.ERROR)  # one process says it for all
    weights = find_weights(config.weights)
    model, description = load_network(weights, config.dataset, train_size=config.train_size)
    model.to(world.device, memory_format=torch.channels_last)
    normalise = normalise_of(description, model.in_channels)  # type: ignore[arg-type]
    image_size = None if config.native_size else config.image_size or description["image_size"]
    # A held-out share is the training run's own business: testing sees the set's own lists.
    data = open_dataset(config.dataset, seed=config.seed)
    if data.identity.mismatch and world.main:
        log.warning("WRONG DATA SET? %s", data.identity.mismatch)
    trained_on = description.get("trained_on")
    part = data.part_to_test(trained_on) if config.split == "auto" else data.part(config.split)
    source = part.open()
    protocols = protocols_named(config.protocols)
    folder = (
        Path(config.output_dir).expanduser()
        if config.output_dir
        else weights.parent / f"test-{config.dataset.name}"
    )
    maps: dict[int, bytes] = {}  # by thresholds exceeded, compressed: a few kilobytes each

    def keep(index: int, prob: NDArray[np.float32]) -> None:
        maps[index] = zlib.compress(levels(prob).tobytes(), 1)
        if config.save_predictions:
            write_prediction(folder / "predictions", source.name(index), prob, config.save_predictions)

    counts = evaluate(
        model,
        EvaluationSet(source, image_size, normalise, description["resize"]),
        world,
        protocols=protocols,
        detailed=config.curves,
        input_size=None if image_size else config.dataset.test_size or config.dataset.image_size or 256,
        batch_size=config.batch_size,
        num_workers=config.num_workers
        if config.num_workers is not None
        else (0 if world.device.type == "cpu" else 4),
        title=f"testing {data.title}",
        keep=keep,
    )
    if not world.main:
        return None

    def level_map(position: int) -> NDArray[np.uint8]:
        """What :func:`levels` gave for an image, also of one that another process predicted."""
        index = int(counts.indices[position])
        if index not in maps:
            predict = Predictor(model, normalise, image_size, world, description["resize"])
            keep(index, predict.predict_stored(source.load(index)[0]))
        return np.frombuffer(zlib.decompress(maps[index]), np.uint8).reshape(source.load(index)[1].shape)

    names = [source.name(index) for index in counts.indices]
    groups = groups_of(config.dataset, names)
    report = {
        **summarise(
            counts,
            names,
            protocols,
            empty=config.empty,
            bootstrap=config.bootstrap,
            budget=config.fa_budget * 1e-6,
            groups=groups,
        ),
        "weights": {"file": str(weights), "sha256": sha256(weights), **description},
        "dataset": {"name": data.title, "lists": data.lists, "split": part.role, "where": data.where}
        | {"fingerprint": part.fingerprint, "skipped": len(data.skipped)}
        | asdict(data.identity),
        "image_size": image_size,
        "device": str(world.device),
        "precision": str(world.precision or torch.float32).removeprefix("torch."),
        "versions": versions(),
    }
    order, about = worst(counts), _about(config, data, part, description, image_size)
    if groups and len(set(groups)) == len(names):
        about.append(
            (
                "note",
                f"dataset.group={config.dataset.group} joins no two images: intervals take each by itself",
            )
        )

    def sample(position: int) -> Sample:
        return Sample(names[position], *source.load(int(counts.indices[position])), level_map(position))

    for one in map(sample, order[: config.overlays]):
        picture = overlay(one.image, one.mask, probabilities(one.level))
        write_png(folder / "overlays" / f"{one.name}.png", picture)
    if config.curves and config.report:
        write_report(
            folder / "report.html",
            report,
            counts,
            title=f"{description['model']} on {data.title}",
            about=[*about, ("weights", f"{weights}, SHA-256 {report['weights']['sha256'][:16]}...")],
            order=order,
            sample=sample,
            empty=EMPTY.get(config.empty),
            most=config.report,
        )
    if config.curves and config.figures:
        write_figures(
            folder / "figures", report["details"], [sample(position) for position in order[: config.figures]]
        )
    write_result(folder, report)

    print(summary_text(report, about))
    print(scores(counts, protocols[0], empty=EMPTY.get(config.empty)).line())
    asked = {
        "report.html": config.curves and config.report,
        "figures": config.curves and config.figures,
        "overlays": config.overlays,
        "predictions": config.save_predictions,
    }
    print(
        f"{', '.join(['results.json', 'images.csv', *(name for name, of in asked.items() if of)])} are in {folder}"
    )
    return report


def _about(
    config: DictConfig, data: DataSet, part: Part, description: dict[str, Any], image_size: int | None
) -> list[tuple[str, str]]:
    """What was tested on what, and what a reader must know of it."""
    images = (
        f"{part.count} {part.role} images"
        if part.role in data.parts
        else f"{part.count} images ({part.role})"
    )
    rows = [
        ("model", f"{description['model']}, network input {image_size or 'as stored'}"),
        ("data set", f"{data.title}, lists {data.lists}, {images}"),
    ]
    if config.split == "auto" and not all(split.listed for split in data.splits.values()):
        rows.append(
            (
                "note",
                "one image in five is tested, by the hash of its name: these weights were trained on the others",
            )
            if part.role == "test"
            else (
                "note",
                "all images are tested: no lists, and these weights do not state that they were trained on this folder",
            )
        )
    if part.role in ("train", "all") and data.known_to(description.get("trained_on")):
        rows.append(("note", "these weights were trained on images that are among the tested ones"))
    if "TEST" in str(description.get("selected_by", "")).upper():
        rows.append(("note", "these weights were chosen on the test images (trainer.selection=test)"))
    if "chips_from" in (description.get("trained_on") or {}):
        rows.append(("note", "copy-paste saw targets of the test images in training (copy_paste.source=all)"))
    rows += [("note", text) for text in asdict(data.identity).values() if text]
    if data.skipped:
        rows.append(
            ("note", f"{len(data.skipped)} images without mask or file were skipped (dataset.missing=skip)")
        )
    return rows
