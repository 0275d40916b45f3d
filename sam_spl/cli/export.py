"""``sam-spl export``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from sam_spl.cli.command import Command
from sam_spl.config import require, require_choice, require_side
from sam_spl.errors import ConfigError


@dataclass
class ExportConfig:
    """Write a network as an ONNX file for ONNX Runtime, OpenVINO and others, and check its answers."""

    weights: str = MISSING  # weights file or run folder
    output: str = MISSING  # file to write, FILE.onnx
    precision: str = "fp32"  # fp32 | fp16
    int8: str | None = (
        None  # folder of images for the ranges of 8-bit integers: training images, no test ones
    )
    images: str | None = None  # folder of images to check the file on, besides generated ones
    dataset: str | None = None  # set that published weights were trained on: its normalisation and size
    train_size: int | None = None  # of published DATransNet weights: 256, for IRSTD-1k 512
    model: str | None = None  # module:Class, where the file's network is your own

    def __post_init__(self) -> None:
        require_choice(self.precision, "precision", ("fp32", "fp16"))
        require(
            self.output == MISSING or self.output.endswith(".onnx"), "output", self.output, "give FILE.onnx"
        )
        require_side(self.train_size, "train_size")
        if self.int8 is not None and self.precision != "fp32":
            raise ConfigError(f"int8, precision: integers and {self.precision} exclude each other. Give one.")


def export(config: ExportConfig) -> None:
    """Write the file and print how its answers differ from the network's."""
    from pathlib import Path

    from sam_spl.data.known import dataset_file
    from sam_spl.data.reading import read_image
    from sam_spl.predict.export import export as write
    from sam_spl.predict.export import image_files
    from sam_spl.predict.predictor import load_network
    from sam_spl.weights.formats import find_weights

    output = Path(config.output).expanduser()
    calibration = image_files(config.int8, "int8") if config.int8 is not None else []
    checked = image_files(config.images, "images") if config.images is not None else []
    model, description = load_network(
        config.weights,
        dataset_file(config.dataset) if config.dataset else None,
        train_size=config.train_size,
        network=config.model,
    )
    precision = "int8" if config.int8 is not None else config.precision
    found = write(
        model,
        description,
        find_weights(config.weights),
        output,
        images=((str(path), read_image(path)) for path in checked),
        precision=precision,
        calibration=calibration,
    )
    print(f"{output}: {description['model']}, {precision}, {output.stat().st_size / 1e6:.1f} MB")
    print(
        f"beside PyTorch in float32, on {found.images} images: probabilities differ by at most "
        f"{found.difference:.1e}, {found.detections} detections, "
        + (
            f"others in {len(found.unequal)} images ({', '.join(found.unequal[:3])})"
            if found.unequal
            else "equal"
        )
    )


COMMAND = Command(
    name="export",
    config=ExportConfig,
    run=export,
    positional=("weights",),
    aliases={"-o": "output"},
    examples=(
        "sam-spl export checkpoints/my_run --output sirst.onnx",
        "sam-spl export checkpoints/my_run -o sirst.onnx --images datasets/SIRST/images",
        "sam-spl export NUDT-SIRST.pth -o nudt.onnx --dataset NUDT-SIRST --precision fp16",
    ),
)
