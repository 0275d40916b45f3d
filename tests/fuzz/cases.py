"""All cases: those with a name, and seeded ones of each kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from random import Random

import cv2
import torch

from tests.fuzz import labels, pictures, values, weights
from tests.fuzz.judge import Case

_MODULES = (pictures, labels, weights, values)
_RANDOM = {kind: made for module in _MODULES for kind, made in module.RANDOM.items()}


def named() -> list[Case]:
    """The cases that are made by hand."""
    return [case for module in _MODULES for case in module.NAMED]


def seeded(seed: int, count: int, kinds: Sequence[str] = ()) -> list[Case]:
    """Cases that follow from a seed, of all kinds in turn."""
    of = [kind for kind in _RANDOM if not kinds or kind in kinds]
    return [_seeded(of[k % len(of)], seed, k // len(of)) for k in range(max(0, count) if of else 0)]


def _seeded(kind: str, seed: int, index: int) -> Case:
    make, about = _RANDOM[kind]

    def write(folder: Path, valid: Path) -> list[str]:
        return make(Random(f"{kind} {seed} {index}"), folder, valid)

    return Case(kind, f"seed {seed} no {index}", write, about)


def warm_up() -> Callable[[list[str]], None]:
    """Import what commands import, so that no case has to; what runs a command line."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in (
        *("matplotlib.pyplot", "matplotlib.font_manager", "scipy.io", "scipy.io.matlab", "skimage.draw"),
        *("hydra", "hydra.core.override_parser.overrides_parser", "timm", "timm.optim", "tqdm"),
        *("sam_spl.engine.training", "sam_spl.engine.testing", "sam_spl.predict.job"),
        *("sam_spl.predict.visualize", "sam_spl.predict.cost", "sam_spl.results.scoring"),
        *("sam_spl.results.compare", "sam_spl.results.paired", "sam_spl.data.check", "sam_spl.data.prepare"),
        *("sam_spl.report.sheet", "sam_spl.report.page", "sam_spl.report.figures", "sam_spl.weights.loading"),
    ):
        import_module(name)
    from sam_spl.cli.main import run

    return run
