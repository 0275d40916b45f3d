"""``sam-spl profile``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sam_spl.cli.command import Command
from sam_spl.config import require, require_choice, require_side
from sam_spl.errors import ConfigError

_MOST = 100_000  # passes
_HEADS = ("network", "input", "parameters M", "trained M", "used M", "GMAC", "memory MB", "latency ms")


@dataclass
class ProfileConfig:
    """Parameters, multiplications, memory and latency of networks, one image at a time."""

    networks: list[str] = field(
        default_factory=list
    )  # names as in configs/model/, weights files, run folders
    image_size: int | None = None  # side in pixels; null: what the weights were trained for, else 256
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    precision: str = "fp32"  # fp32 | bf16 | fp16 | tf32 | auto
    repeat: int = 20  # passes that are timed; their median is shown
    dataset: str | None = None  # of published SAM-SPL weights, as in testing
    train_size: int | None = None  # of published DATransNet weights: 256, for IRSTD-1k 512
    model: str | None = None  # module:Class, where a file's network is your own

    def __post_init__(self) -> None:
        require_side(self.image_size, "image_size")
        require_choice(self.precision, "precision", ("auto", "fp32", "tf32", "bf16", "fp16"))
        require(1 <= self.repeat <= _MOST, "repeat", self.repeat, f"must be a number from 1 to {_MOST}")


def profile(config: ProfileConfig) -> None:
    """Measure each network and print a table."""
    from sam_spl.predict.cost import cost_of
    from sam_spl.runtime import World, pick_device, promise_float32

    if not config.networks:
        raise ConfigError("profile: no network is named. Give names as in configs/model/, or weights files.")
    promise_float32()
    world = World(0, 1, pick_device(config.device)).at(config.precision)
    rows = []
    for name in config.networks:
        model, stated = _network(name, config)
        side = config.image_size or stated or 256
        cost = cost_of(model, (side, side), world, config.repeat)
        millions = [f"{count / 1e6:.3f}" for count in (cost.parameters, cost.trained, cost.used)]
        memory = "-" if cost.memory is None else f"{cost.memory / 1e6:.0f}"
        rows.append(
            [name, f"{side}x{side}", *millions, f"{cost.macs / 1e9:.2f}", memory, f"{1e3 * cost.seconds:.1f}"]
        )
    for row in _aligned([list(_HEADS), *rows]):
        print(row)
    import torch

    threads = f", {torch.get_num_threads()} thread(s)" if world.device.type == "cpu" else ""
    print(
        f"{world.device}{threads}, {world.precision_name}, median of {config.repeat} passes; used: what the "
        "finest logits depend on; memory: of a pass, besides the weights"
    )


def _network(name: str, config: ProfileConfig) -> tuple[Any, int | None]:
    """A network with random weights, or of a file; and the side that the file states."""
    from sam_spl.config import choice_named
    from sam_spl.data.known import dataset_file
    from sam_spl.models.registry import build_model, model_names
    from sam_spl.predict.predictor import load_network

    if (known := choice_named("model", name)) in model_names():
        return build_model(known), None
    settings = dataset_file(config.dataset) if config.dataset else None
    model, description = load_network(name, settings, train_size=config.train_size, network=config.model)
    return model, description["image_size"]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


COMMAND = Command(
    name="profile",
    config=ProfileConfig,
    run=profile,
    positional=("networks",),
    examples=(
        "sam-spl profile sam_spl_t datransnet",
        "sam-spl profile checkpoints/my_run --image_size 512 --device cpu",
    ),
)
