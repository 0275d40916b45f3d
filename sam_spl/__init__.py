"""Train, test and use networks that find small targets in infrared images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "build_model", "load", "load_weights"]

if TYPE_CHECKING:
    from sam_spl.models.registry import build_model
    from sam_spl.predict.predictor import load
    from sam_spl.weights.loading import load_weights

_HOMES = {
    "build_model": "sam_spl.models.registry",
    "load_weights": "sam_spl.weights.loading",
    "load": "sam_spl.predict.predictor",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: `sam_spl.__version__` and `--help` need no torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'sam_spl' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
