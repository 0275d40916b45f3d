"""``sam-spl visualize``: what a network does with one image, as figures of a paper."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from sam_spl.cli.command import Command
from sam_spl.cli.train import COMMAND as TRAIN
from sam_spl.config import require_choice
from sam_spl.errors import InputError
from sam_spl.predict.config import RANGES, side

FORMATS = ("png", "pdf", "svg")


@dataclass
class VisualizeConfig:
    """Draw what a network does with one image: features, prompts, attention, skips, outputs."""

    image: str = MISSING  # image file
    weights: str = MISSING  # weights file or run folder
    output: str = MISSING  # folder to write into
    mask: str | None = None  # image file of the truth, shown beside the prediction
    layers: list[str] = field(
        default_factory=list
    )  # modules to show instead, by their paths in the network: encoder.layer1 decoder
    formats: list[str] = field(default_factory=lambda: ["png", "pdf"])  # png | pdf | svg
    threshold: float | None = None  # target is what is more probable; null: the weights' own, else 0.5
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    precision: str = "auto"  # auto | fp32 | tf32 | bf16 | fp16
    range: str = "auto"  # how values get to [0, 1], as in predict: full | minmax | percentile
    image_size: str = (
        "auto"  # side that the image is squeezed to; auto: as trained; none: the image's own size
    )
    dataset: str | None = None  # set that published weights of SAM-SPL were trained on
    train_size: int | None = None  # of published DATransNet weights: 256, for IRSTD-1k 512
    model: str | None = None  # module:Class, where the weights' network is your own

    def __post_init__(self) -> None:
        require_choice(self.range, "range", RANGES)
        require_choice(self.precision, "precision", ("auto", "fp32", "tf32", "bf16", "fp16"))
        for one in self.formats:
            require_choice(one, "formats", FORMATS)
        side(self.image_size, "image_size")


def visualize(config: VisualizeConfig) -> None:
    """Write the figures and print their names."""
    from pathlib import Path

    from sam_spl.data.reading import read_mask
    from sam_spl.predict.frames import read
    from sam_spl.predict.inputs import Source
    from sam_spl.predict.predictor import load
    from sam_spl.predict.visualize import visualize as look
    from sam_spl.report.maps import save_plate

    path = Path(config.image).expanduser()
    try:
        frame = next(read(Source(path, path.name, path.stem), config.range))
    except InputError as error:
        raise InputError(f"image: {path} {error}.") from error
    if frame.of > 1:
        raise InputError(f"image: {path} holds {frame.of} frames. Save the one to be shown as an image.")
    mask = None if config.mask is None else read_mask(Path(config.mask).expanduser())
    predictor = load(
        config.weights,
        config.device,
        config.precision,
        dataset=config.dataset,
        train_size=config.train_size,
        image_size=side(config.image_size, "image_size"),
        network=config.model,
        threshold=config.threshold,
    )
    _, plates = look(predictor, frame.image, mask=mask, layers=config.layers)
    for plate in plates:
        for written in save_plate(plate, Path(config.output).expanduser(), path.stem, config.formats):
            print(written)


COMMAND = Command(
    "visualize",
    VisualizeConfig,
    visualize,
    positional=("image",),
    aliases={
        "-o": "output",
        "--image-size": "image_size",
        "--train-size": "train_size",
        "--gpu": "device",
    },
    translate={"device": TRAIN.translate["device"]},
    examples=(
        "sam-spl visualize frame.png --weights checkpoints/sirst --output figures --mask mask.png",
        "sam-spl visualize frame.png --weights checkpoints/sirst -o figures --layers encoder.stem.0 decoder",
        "sam-spl visualize frame.png --weights checkpoints/sirst -o figures --formats svg",
    ),
)
