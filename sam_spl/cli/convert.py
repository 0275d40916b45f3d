"""``sam-spl convert``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from sam_spl.cli.command import Command
from sam_spl.config import require, require_choice, require_side
from sam_spl.data.config import is_normalisation
from sam_spl.errors import ConfigError, InputError


@dataclass
class ConvertConfig:
    """Convert weights between the files of this toolkit and of published codes, bit by bit the same."""

    source: str = MISSING  # weights file or run folder
    target: str = MISSING  # file to write: .safetensors or .pt for ours, .pth for published
    to: str = "auto"  # auto | ours | published; auto: the other kind than the source's
    half: bool = False  # store float16, at half the size; networks compute with float32 all the same
    dataset: str | None = None  # set that published weights were trained on: its normalisation and size
    mean: list[float] | None = None  # or else, of the network's input in [0, 1]
    std: list[float] | None = None  # likewise
    image_size: int | None = None  # of the network's input in pixels
    train_size: int | None = None  # of published DATransNet weights: 256, for IRSTD-1k 512
    threshold: float | None = None  # to be stated by the file, for predict; null: as the source states it
    model: str | None = None  # module:Class, where the file's network is your own

    def __post_init__(self) -> None:
        require_choice(self.to, "to", ("auto", "ours", "published"))
        for key, size in (("image_size", self.image_size), ("train_size", self.train_size)):
            require_side(size, key)
        inside = self.threshold is None or 0 < self.threshold < 1
        require(inside, "threshold", self.threshold, "give a probability between 0 and 1")
        if not is_normalisation(self.mean or [0], self.std or [1]) or (self.mean is None) != (
            self.std is None
        ):
            raise ConfigError(
                f"mean, std: {self.mean} and {self.std} are not valid, give both with as many values, std "
                "above 0."
            )


def convert(config: ConvertConfig) -> None:
    """Write the target and print what it holds."""
    from pathlib import Path

    from sam_spl.data.known import dataset_file
    from sam_spl.models.registry import channels_of
    from sam_spl.predict.predictor import load_network
    from sam_spl.weights.formats import read_weights, save_weights

    if Path(config.target).expanduser().is_dir():
        raise ConfigError(f"target: {config.target} is a folder. Give a file to write.")
    given = {"mean": config.mean, "std": config.std, "image_size": config.image_size}
    given = {key: value for key, value in given.items() if value is not None}
    settings = dict(dataset_file(config.dataset)) if config.dataset else {"title": "the command line"}
    settings |= given | ({"test_size": None} if config.image_size else {})
    # Building the network checks every name and shape before anything is written.
    model, description = load_network(
        config.source,
        settings if config.dataset or given else None,
        train_size=config.train_size,
        network=config.model,
    )
    channels = channels_of(model)
    if len(description["mean"]) not in (1, channels):
        raise ConfigError(f"mean: {config.mean} is not valid, the network has {channels} channel(s).")
    weights = read_weights(config.source)
    to = config.to if config.to != "auto" else "ours" if weights.published else "published"
    state = weights.state
    if config.half:
        # Variances that a normalisation has seen exceed float16's range, and take next to no room.
        whole = ("running_mean", "running_var")
        state = {
            name: x.half() if x.is_floating_point() and not name.endswith(whole) else x
            for name, x in state.items()
        }
        lost = [name for name, x in state.items() if x.is_floating_point() and not x.isfinite().all()]
        if lost:
            raise InputError(f"half: {lost[0]} does not fit into float16. Leave --half out.")
    if config.threshold is not None:
        description = {key: value for key, value in description.items() if key != "calibration"}
        description["threshold"] = config.threshold
    target = save_weights(Path(config.target).expanduser(), state, description, names=to)
    print(f"{target}: {description['model']}, {len(weights.state)} tensors, {to} names")


COMMAND = Command(
    name="convert",
    config=ConvertConfig,
    run=convert,
    positional=("source", "target"),
    examples=(
        "sam-spl convert published.pth ours.safetensors --dataset NUDT-SIRST",
        "sam-spl convert published.pth ours.safetensors --mean 0.4228 --std 0.1295 --image_size 256",
        "sam-spl convert checkpoints/my_run published.pth",
        "sam-spl convert checkpoints/my_run small.safetensors --to ours --half",
        "sam-spl convert checkpoints/my_run sure.safetensors --to ours --threshold 0.9",
    ),
)
