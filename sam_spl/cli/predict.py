"""``sam-spl predict``: images, folders and videos to masks, overlays and tables of detections."""

from __future__ import annotations

from sam_spl.cli.command import Command
from sam_spl.cli.train import COMMAND as TRAIN
from sam_spl.predict.config import PredictConfig


def predict(config: PredictConfig) -> None:
    """Predict every frame, and print what was found and where it is."""
    from sam_spl.predict import job

    job.predict(config)


COMMAND = Command(
    "predict",
    PredictConfig,
    predict,
    positional=("input",),
    aliases={
        "-o": "output",
        "--min-area": "min_area",
        "--batch-size": "batch_size",
        "--image-size": "image_size",
        "--train-size": "train_size",
        "--max-megapixels": "max_megapixels",
        "--gpu": "device",
        "--local_rank": None,
        "--local-rank": None,
    },
    translate={"device": TRAIN.translate["device"]},
    examples=(
        "sam-spl predict frame.png --weights checkpoints/sirst --output found",
        "sam-spl predict frames/ more/*.tif --weights checkpoints/sirst -o found --save mask overlay prob",
        "sam-spl predict film.mp4 --weights checkpoints/sirst -o found --track --save overlay",
        "torchrun --nproc_per_node=4 -m sam_spl predict frames/ --weights checkpoints/sirst -o found",
    ),
)
