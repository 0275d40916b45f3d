"""Train, test and use networks that find small targets in infrared images."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from sam_spl.cli.compose import compose
    from sam_spl.config import add_config_folder
    from sam_spl.data.config import CopyPasteConfig, DatasetConfig
    from sam_spl.data.transforms import AUGMENTATIONS
    from sam_spl.engine.config import LossConfig, OptimizerConfig, TestConfig, TrainConfig, TrainerConfig
    from sam_spl.engine.loggers import LOGGERS
    from sam_spl.engine.losses import LOSSES
    from sam_spl.engine.testing import test
    from sam_spl.engine.training import Run, train
    from sam_spl.metrics.protocols import PROTOCOLS, Protocol
    from sam_spl.models.registry import ModelConfig, build_model
    from sam_spl.predict.detections import Detection
    from sam_spl.predict.predictor import Prediction, Predictor, load
    from sam_spl.predict.tracking import Tracker
    from sam_spl.results.folder import Result
    from sam_spl.weights.loading import load_weights

# Imported when first used: `sam_spl.__version__` and `--help` need no torch.
_HOMES = {
    "sam_spl.cli.compose": ("compose",),
    "sam_spl.config": ("add_config_folder",),
    "sam_spl.data.config": ("CopyPasteConfig", "DatasetConfig"),
    "sam_spl.data.transforms": ("AUGMENTATIONS",),
    "sam_spl.engine.config": ("LossConfig", "OptimizerConfig", "TestConfig", "TrainConfig", "TrainerConfig"),
    "sam_spl.engine.loggers": ("LOGGERS",),
    "sam_spl.engine.losses": ("LOSSES",),
    "sam_spl.engine.testing": ("test",),
    "sam_spl.engine.training": ("Run", "train"),
    "sam_spl.metrics.protocols": ("PROTOCOLS", "Protocol"),
    "sam_spl.models.registry": ("ModelConfig", "build_model"),
    "sam_spl.predict.detections": ("Detection",),
    "sam_spl.predict.predictor": ("Prediction", "Predictor", "load"),
    "sam_spl.predict.tracking": ("Tracker",),
    "sam_spl.results.folder": ("Result",),
    "sam_spl.weights.loading": ("load_weights",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "AUGMENTATIONS",
    "LOGGERS",
    "LOSSES",
    "PROTOCOLS",
    "CopyPasteConfig",
    "DatasetConfig",
    "Detection",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Prediction",
    "Predictor",
    "Protocol",
    "Result",
    "Run",
    "TestConfig",
    "Tracker",
    "TrainConfig",
    "TrainerConfig",
    "__version__",
    "add_config_folder",
    "build_model",
    "compose",
    "load",
    "load_weights",
    "test",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sam_spl' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
