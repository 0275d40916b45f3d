"""One test: load, score, write the results."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import torch
from omegaconf import DictConfig

import sam_spl
from sam_spl.data.catalog import DataSet, normalise_of, open_dataset
from sam_spl.data.dataset import EvaluationSet
from sam_spl.engine.distributed import World
from sam_spl.engine.evaluator import evaluate
from sam_spl.errors import InputError
from sam_spl.files import write_text
from sam_spl.inference.predictor import Predictor
from sam_spl.inference.render import overlay, write_png
from sam_spl.metrics import PROTOCOL, ImageCounts, NativeScores, scores
from sam_spl.metrics.native import percent
from sam_spl.models.checkpoints import find_weights, load_model, sha256


def run(config: DictConfig, world: World) -> dict[str, Any] | None:
    """Score one weights file on one data set, in this process; the result file's content, of rank 0."""
    cv2.setNumThreads(1)
    torch.manual_seed(config.seed)
    weights = find_weights(config.weights)
    model, description = load_model(
        weights,
        train_size=config.train_size,
        mean=list(config.dataset.mean),
        std=list(config.dataset.std),
        image_size=config.dataset.test_size or config.dataset.image_size,
    )
    model.to(world.device, memory_format=torch.channels_last)
    normalise = normalise_of(description, model.in_channels)  # type: ignore[arg-type]
    image_size = None if config.native_size else config.image_size or description["image_size"]

    # A held-out share is the training run's own business: testing sees the set's own lists.
    data = open_dataset(config.dataset, seed=config.seed)
    source = data.part(config.split).open()
    dataset = EvaluationSet(source, image_size, normalise)
    counts = evaluate(
        model,
        dataset,
        world,
        batch_size=config.batch_size,
        num_workers=config.num_workers if config.num_workers is not None else (0 if world.device.type == "cpu" else 4),
        title=f"testing {data.title}",
    )
    if not world.main:
        return None
    result = scores(counts.values())
    names = [source.name(index) for index in counts]
    folder = (
        Path(config.output_dir).expanduser() if config.output_dir else weights.parent / f"test-{config.dataset.name}"
    )
    predictor = Predictor(model, normalise, image_size, world)
    for index in worst(counts, config.overlays):
        image, mask = source.load(index)
        write_png(folder / "overlays" / f"{source.name(index)}.png", overlay(image, mask, predictor(image)))
    report = {
        **PROTOCOL,
        "weights": {"file": str(weights), "sha256": sha256(weights), **description},
        "dataset": {"name": data.title, "lists": data.lists, "split": config.split, "where": data.where}
        | {"fingerprint": data.parts[config.split].fingerprint, "skipped": len(data.skipped)},
        "image_size": image_size,
        "device": str(world.device),
        "precision": str(world.precision or torch.float32).removeprefix("torch."),
        "versions": {"sam_spl": sam_spl.__version__, "torch": torch.__version__},
        "scores": asdict(result),
        "images": [{"name": name, **asdict(count)} for name, count in zip(names, counts.values(), strict=True)],
    }
    write_text(folder / "results.json", json.dumps(report, indent=1) + "\n")
    write_text(folder / "images.csv", _csv(names, list(counts.values())))
    print(_table(result, data, description, image_size))
    print(result.line())
    print(f"results.json, images.csv and overlays/ of the worst images are in {folder}")
    return report


def worst(counts: dict[int, ImageCounts], number: int) -> list[int]:
    """The images with the most missed and false targets, then the lowest IoU."""

    def badness(index: int) -> tuple[int, float]:
        image = counts[index]
        return -(image.targets - image.detected + image.false_alarms), image.iou

    return sorted(counts, key=badness)[:number]


def _table(result: NativeScores, data: DataSet, description: dict[str, Any], image_size: int | None) -> str:
    missed = result.targets - result.detected
    rows = [
        ("model", f"{description['model']}, network input {image_size or 'as stored'}"),
        ("data set", f"{data.title}, lists {data.lists}, {result.images} images, {result.targets} targets"),
        ("protocol", f"{PROTOCOL['protocol']}: probability > 0.5 at {PROTOCOL['resolution']} resolution"),
        ("IoU", f"{percent(result.iou)} %"),
        ("nIoU", f"{percent(result.niou)} %"),
        (
            "F1",
            f"{percent(result.f1)} %   precision {percent(result.precision)} %, recall {percent(result.recall)} %",
        ),
        ("pixel accuracy", f"{percent(result.pixel_accuracy)} %"),
        (
            "Pd",
            f"{percent(result.pd)} %   {result.detected} of {result.targets} targets detected, {missed} missed",
        ),
        ("Fa", f"{(result.fa or 0) * 1e6:.2f} x 1e-6   in {result.false_alarms} false alarms"),
    ]
    if "TEST" in str(description.get("selected_by", "")).upper():
        rows.append(("note", "these weights were chosen on the test images (trainer.selection=test)"))
    if "chips_from" in (description.get("trained_on") or {}):
        rows.append(("note", "copy-paste saw targets of the test images in training (copy_paste.source=all)"))
    if data.skipped:
        rows.append(("note", f"{len(data.skipped)} images without mask or file were skipped (dataset.missing=skip)"))
    return "\n".join(f"{name:<15} {value}" for name, value in rows)


def _csv(names: list[str], counts: list[ImageCounts]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if not counts:
        raise InputError("dataset: no image to test on.")
    writer.writerow(["name", *asdict(counts[0]), "iou"])
    for name, count in zip(names, counts, strict=True):
        writer.writerow([name, *asdict(count).values(), f"{count.iou:.6f}"])
    return stream.getvalue()
