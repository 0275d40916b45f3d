"""A test from its configuration: ``test(TestConfig(...))``, which the command calls as well."""

from __future__ import annotations

import json
import logging
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sam_spl.data.catalog import DataSet, Part, groups_of, open_dataset
from sam_spl.data.dataset import EvaluationSet
from sam_spl.data.normalise import Normalise, normalise_of
from sam_spl.data.sources import Source
from sam_spl.engine.config import TestConfig
from sam_spl.engine.evaluator import evaluate, usual_batch
from sam_spl.errors import ConfigError
from sam_spl.metrics import DatasetCounts, Protocol, protocols_named, scores
from sam_spl.metrics.calibration import at_threshold, unlike
from sam_spl.metrics.curves import levels, probabilities
from sam_spl.models.registry import channels_of
from sam_spl.predict.compiled import compiled
from sam_spl.predict.engines import ExportedNetwork, precision_name
from sam_spl.predict.predictor import open_network
from sam_spl.report.figures import write_figures
from sam_spl.report.page import Sample, write_report
from sam_spl.report.render import overlay, write_png
from sam_spl.results.files import write_result
from sam_spl.results.folder import Result, begin_test, test_folder
from sam_spl.results.predictions import write_prediction
from sam_spl.results.rules import empty_rule
from sam_spl.results.summary import summarise, versions, worst
from sam_spl.results.text import summary_text
from sam_spl.runtime import World, distributed, loader_workers, one_opencv_thread, place
from sam_spl.weights.formats import find_weights, sha256

log = logging.getLogger(__name__)


def test(config: TestConfig, *, world: World | None = None) -> Result | None:
    """Score one weights file on one data set, and write what it gives into a folder.

    Args:
        config: of the test.
        world: the processes of this test, where they are joined already.

    Returns:
        The result, on the main process; None on the others.

    Raises:
        ConfigError: settings that do not go together.
        InputError: data, weights or devices are not what they should be.
    """
    if world is None:
        with distributed(config.device, use_ddp=config.use_ddp, deterministic=config.deterministic) as joined:
            return test(config, world=joined)
    torch.manual_seed(config.seed)
    if not world.main:
        logging.getLogger("sam_spl").setLevel(logging.ERROR)  # one process says it for all
    with one_opencv_thread():
        tested = open_test(config, world)
        if not world.main:
            world.barrier()
            tested.share(count(tested))
            return None
        with begin_test(tested.folder, named_by_user=config.output_dir is not None):
            world.barrier()  # before others put their predictions there
            counts = count(tested)
            tested.share(counts)
            return _write(tested, counts)


test.__test__ = False  # type: ignore[attr-defined]  # no test, whatever pytest thinks of its name


def test_part(config: TestConfig) -> Part:
    """The images that a test asks for, before its weights are there.

    Raises:
        InputError: there are none.
    """
    return open_dataset(config.dataset).part("all" if config.split == "auto" else config.split)


test_part.__test__ = False  # type: ignore[attr-defined]


@dataclass
class OpenTest:
    """A test that is about to run, and the maps that it keeps."""

    config: TestConfig
    world: World
    weights: Path
    model: nn.Module
    description: dict[str, Any]
    normalise: Normalise
    image_size: int | None
    data: DataSet
    part: Part
    source: Source
    folder: Path
    protocols: list[Protocol]
    maps: dict[int, bytes] = field(default_factory=dict)  # counts of thresholds exceeded, compressed

    @property
    def title(self) -> str:
        """The network's name for tables."""
        return str(self.description.get("title") or self.description["model"])

    @property
    def pictured(self) -> int:
        """How many of the worst images any picture shows."""
        config = self.config
        detailed = max(config.report, config.figures) if config.curves else 0
        return max(config.overlays, detailed)

    def keep(self, index: int, prob: NDArray[np.float32]) -> None:
        """Take one image's probability map."""
        if self.pictured:
            self.maps[index] = zlib.compress(levels(prob).tobytes(), 1)
        if self.config.save_predictions:
            name = self.source.name(index)
            write_prediction(self.folder / "predictions", name, prob, self.config.save_predictions)

    def share(self, counts: DatasetCounts) -> None:
        """Leave the maps of the images that are shown, from whichever process predicted them."""
        shown = [int(counts.indices[position]) for position in worst(counts)[: self.pictured]]
        gathered = self.world.gather({index: self.maps[index] for index in shown if index in self.maps})
        self.maps = {index: level for maps in gathered for index, level in maps.items()}

    def sample(self, index: int) -> Sample:
        """An image that is shown, with what :func:`levels` gives for it."""
        image, mask = self.source.load(index)
        level = np.frombuffer(zlib.decompress(self.maps[index]), np.uint8).reshape(mask.shape)
        return Sample(self.source.name(index), image, mask, level)


def open_test(config: TestConfig, world: World, part: Part | None = None) -> OpenTest:
    """Find weights and images, and see that they go together.

    Args:
        config: of the test.
        world: this process.
        part: the images; None for those that the configuration asks for.

    Raises:
        ConfigError: as :func:`test`.
        InputError: as :func:`test`.
    """
    protocols = protocols_named(config.protocols)
    weights = find_weights(config.weights)
    model, description, world = open_network(
        weights,
        world,
        asdict(config.dataset),
        engine=config.engine,
        precision=config.precision,
        train_size=config.train_size,
        network=config.model,
    )
    place(model, world.device)
    normalise = normalise_of(description, channels_of(model))
    image_size = None if config.native_size else config.image_size or description["image_size"]
    # A held-out share is the training run's own business: testing sees the set's own lists.
    data = open_dataset(config.dataset, seed=config.seed)
    if data.identity.mismatch and world.main:
        log.warning("WRONG DATA SET? %s", data.identity.mismatch)
    trained_on = description.get("trained_on")
    if part is None:
        part = data.part_to_test(trained_on) if config.split == "auto" else data.part(config.split)
    title = Path(data.where).name if config.dataset.name == "custom" else config.dataset.name
    engine = model.engine if isinstance(model, ExportedNetwork) else ""
    folder = test_folder(weights, title, data.lists, part.role, image_size, _only(config, data), engine)
    if config.output_dir is not None:
        folder = Path(config.output_dir).expanduser()
    parts = (weights, model, description, normalise, image_size, data, part, part.open(), folder, protocols)
    return OpenTest(config, world, *parts)


def _only(config: TestConfig, data: DataSet) -> str:
    """What tells a set from others of its name: many folders are named custom, many scenes synthetic."""
    if config.dataset.source == "synthetic":
        settings = [config.dataset.image_size, config.dataset.synthetic, config.seed]
        return json.dumps(settings, sort_keys=True, default=str)
    return str(Path(data.where).resolve()) if config.dataset.name == "custom" else ""


def count(tested: OpenTest) -> DatasetCounts:
    """Predict and count every image."""
    config = tested.config
    own = config.dataset.test_size or config.dataset.image_size or 256
    return evaluate(
        _compiled(tested),
        EvaluationSet(tested.source, tested.image_size, tested.normalise, tested.description["resize"]),
        tested.world,
        protocols=tested.protocols,
        detailed=config.curves,
        input_size=None if tested.image_size else own,
        batch_size=config.batch_size,
        num_workers=loader_workers(config.num_workers, tested.world.device),
        title=f"testing {tested.data.title}",
        keep=tested.keep if tested.pictured or config.save_predictions else None,
    )


def _compiled(tested: OpenTest) -> nn.Module:
    """The network, compiled where all images have one size and it pays."""
    config, world, size = tested.config, tested.world, tested.image_size
    if size is None:
        if config.compile == "true":
            raise ConfigError("compile: images of many sizes. Set image_size, or leave compile=true out.")
        return tested.model
    batch = config.batch_size or usual_batch(world.device)
    shape = (batch, channels_of(tested.model), size, size)
    images = len(tested.source) // world.size
    network = tested.model
    for turn in (world.main, not world.main):  # the others take what the first has made
        if turn:
            network = compiled(network, shape, world, wanted=config.compile, images=images)
        world.barrier()
    return network


def _write(tested: OpenTest, counts: DatasetCounts) -> Result:
    """Everything that a test leaves: files, pictures, and the table on the console."""
    config, folder, names = (
        tested.config,
        tested.folder,
        [tested.source.name(index) for index in counts.indices],
    )
    report, about = _report(tested, counts, names)
    threshold = tested.description.get("threshold")
    if threshold is not None and counts.curves is not None and len(counts):
        told = report["at_threshold"] = at_threshold(counts.curves, threshold)
        text = "{threshold:.5f}, of these weights: {detected} targets found, {alarms_per_frame:.3f} false "
        text += "alarms a frame, any in {alarmed:.1%} of frames"
        about.append(("threshold", text.format(**told)))
        now = {"image_size": tested.image_size, "precision": precision_name(tested.model, tested.world)}
        if differing := unlike(tested.description.get("calibration", {}), now):
            about.append(("note", differing))
    order = worst(counts)

    def sample(position: int) -> Sample:
        return tested.sample(int(counts.indices[position]))

    for one in map(sample, order[: config.overlays]):
        picture = overlay(one.image, one.mask, probabilities(one.level))
        write_png(folder / "overlays" / f"{one.name}.png", picture)
    if config.curves and config.report:
        digest = report["weights"]["sha256"][:16]
        write_report(
            folder / "report.html",
            report,
            counts,
            title=f"{tested.title} on {tested.data.title}",
            about=[*about, ("weights", f"{tested.weights}, SHA-256 {digest}...")],
            order=order,
            sample=sample,
            empty=empty_rule(config.empty),
            most=config.report,
        )
    if config.curves and config.figures:
        samples = [sample(position) for position in order[: config.figures]]
        write_figures(folder / "figures", report["details"], samples)
    write_result(folder, report)

    print(summary_text(report, about))
    print(scores(counts, tested.protocols[0], empty=empty_rule(config.empty)).line())
    asked = {
        "report.html": config.curves and config.report,
        "figures": config.curves and config.figures,
        "overlays": config.overlays,
        "predictions": config.save_predictions,
    }
    written = ["results.json", "images.csv", *(name for name, of in asked.items() if of)]
    print(f"{', '.join(written)} are in {folder}")
    return Result(report, folder)


def _report(
    tested: OpenTest, counts: DatasetCounts, names: list[str]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The content of ``results.json``, and what a reader has to know beside the figures."""
    config, data, part = tested.config, tested.data, tested.part
    groups = groups_of(config.dataset, names)
    figures = summarise(
        counts,
        names,
        tested.protocols,
        empty=config.empty,
        bootstrap=config.bootstrap,
        budget=config.fa_budget * 1e-6,
        groups=groups,
    )
    dataset: dict[str, Any] = {"name": data.title, "lists": data.lists, "split": part.role}
    dataset |= {
        "where": data.where,
        "fingerprint": part.fingerprint,
        "skipped": len(data.skipped),
        **asdict(data.identity),
    }
    report = {
        **figures,
        "weights": {"file": str(tested.weights), "sha256": sha256(tested.weights), **tested.description},
        "dataset": dataset,
        "image_size": tested.image_size,
        "device": str(tested.world.device),
        "precision": precision_name(tested.model, tested.world),
        "versions": versions(),
    }
    about = _about(tested)
    if groups and len(set(groups)) == len(names):
        text = f"dataset.group={config.dataset.group} joins no two images: intervals take each by itself"
        about.append(("note", text))
    return report, about


def _about(tested: OpenTest) -> list[tuple[str, str]]:
    """What was tested on what, and what a reader must know of it."""
    config, data, part, description = tested.config, tested.data, tested.part, tested.description
    images = (
        f"{part.count} {part.role} images"
        if part.role in data.parts
        else f"{part.count} images ({part.role})"
    )
    computed = f", {tested.model.name}" if isinstance(tested.model, ExportedNetwork) else ""
    rows = [
        ("model", f"{tested.title}{computed}, network input {tested.image_size or 'as stored'}"),
        ("data set", f"{data.title}, lists {data.lists}, {images}"),
    ]
    notes = []
    if config.split == "auto" and not all(split.listed for split in data.splits.values()):
        notes.append(
            "one image in five is tested, by the hash of its name: these weights were trained on the others"
            if part.role == "test"
            else "all images are tested: no lists, and these weights do not state that they were trained on "
            "this folder"
        )
    notes += seen(tested)
    if "chips_from" in (description.get("trained_on") or {}):
        notes.append("copy-paste saw targets of the test images in training (copy_paste.source=all)")
    notes += [text for text in asdict(data.identity).values() if text]
    if data.skipped:
        notes.append(f"{len(data.skipped)} images without mask or file were skipped (dataset.missing=skip)")
    return [*rows, *(("note", text) for text in notes)]


def seen(tested: OpenTest) -> list[str]:
    """What the tested images have to do with how these weights came about."""
    role, description = tested.part.role, tested.description
    found = []
    if role in ("train", "all") and tested.data.known_to(description.get("trained_on")):
        found.append("these weights were trained on images that are among the tested ones")
    if "TEST" in str(description.get("selected_by", "")).upper():
        found.append("these weights were chosen on the test images (trainer.selection=test)")
    calibrated = description.get("calibration", {}).get("fingerprint")
    if calibrated is not None and calibrated == tested.part.fingerprint:
        found.append("the threshold of these weights was chosen on these images")
    return found
