"""``sam-spl demo``: a page in the browser to try a network with."""

from __future__ import annotations

from dataclasses import dataclass

from sam_spl.cli.command import Command
from sam_spl.cli.train import COMMAND as TRAIN
from sam_spl.config import require, require_choice
from sam_spl.errors import ConfigError
from sam_spl.predict.config import RANGES


@dataclass
class DemoConfig:
    """Show targets in images and videos on a page in the browser, where the threshold can be moved."""

    weights: str = "datransnet-sirst"  # weights file, run folder, or name of weights that come along
    port: int | None = None  # of the page at http://127.0.0.1:PORT; null: the first free one from 7860
    threshold: float | None = None  # where the slider begins; null: the weights' own, else 0.5
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    range: str = "auto"  # how values get to [0, 1]: full | minmax | percentile; auto: as predict has it
    max_frames: int = 100  # of a video or stack, from the first on: all that are shown are kept in memory
    max_megapixels: float = 50.0  # of an image, and of a video's frames together: 16 bytes a pixel at most
    dataset: str | None = None  # set that published weights of SAM-SPL were trained on
    train_size: int | None = None  # of published DATransNet weights: 256, for IRSTD-1k 512
    model: str | None = None  # module:Class, where the weights' network is your own

    def __post_init__(self) -> None:
        require_choice(self.range, "range", RANGES)
        require(
            self.port is None or 0 < self.port < 2**16, "port", self.port, "give a number from 1 to 65535"
        )
        inside = self.threshold is None or 0 <= self.threshold <= 1
        require(inside, "threshold", self.threshold, "give a number from 0 to 1")
        require(self.max_frames >= 1, "max_frames", self.max_frames, "give a whole number from 1")
        require(self.max_megapixels > 0, "max_megapixels", self.max_megapixels, "must be above 0")


def demo(config: DemoConfig) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        ConfigError: Gradio is not installed.
    """
    import threading

    try:
        from sam_spl.demo import page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ConfigError('demo: gradio is not installed. Run: pip install "sam-spl[demo]"') from error
    from sam_spl.demo.examples import write_examples
    from sam_spl.demo.look import Limits
    from sam_spl.predict.predictor import load

    predictor = load(
        config.weights,
        config.device,
        dataset=config.dataset,
        train_size=config.train_size,
        network=config.model,
        threshold=config.threshold,
    )
    about = f"`{type(predictor.model).__name__}` of `{config.weights}` on `{predictor.world.device}`"
    limits = Limits(config.range, config.max_frames, config.max_megapixels)
    with page.temporary_folder() as folder:
        made = page.build(predictor, about, write_examples(folder), limits)
        with page.served(made, config.port) as address:
            print(f"{address} shows the page on this computer. Ctrl-C ends it.", flush=True)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                print()


COMMAND = Command(
    "demo",
    DemoConfig,
    demo,
    positional=("weights",),
    aliases={
        "--max-frames": "max_frames",
        "--max-megapixels": "max_megapixels",
        "--train-size": "train_size",
        "--gpu": "device",
    },
    translate={"device": TRAIN.translate["device"]},
    examples=(
        "sam-spl demo",
        "sam-spl demo --weights checkpoints/my_run --port 8080",
    ),
)
