"""Small data sets on disk, small networks, and the golden numbers."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import sam_spl.config
from sam_spl.cli.compose import test_config, train_config
from sam_spl.cli.grammar import parse
from sam_spl.cli.main import command as command_named
from sam_spl.cli.main import execute
from sam_spl.models.registry import model_names, network_class
from sam_spl.runtime import promise_float32

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"

#: A SAM-SPL of three stages that computes in milliseconds, as overrides of sam_spl_t.
TINY = {"embed_dim": 16, "stages": [1, 2, 2], "window_spec": [4, 2, 3], "global_att_blocks": [4]}
TINY_OVERRIDES = [
    "model.trunk_weights=null",  # whatever lies in checkpoints/
    "model.embed_dim=16",
    "model.stages=[1,2,2]",
    "model.window_spec=[4,2,3]",
    "model.global_att_blocks=[4]",
]

#: A published network of each kind, SAM-SPL's smallest for its variants.
NETWORKS = [
    name
    for name in model_names()
    if hasattr(network_class(name), "published") and (name == "sam_spl_t" or not name.startswith("sam_spl"))
]


def _load_fill() -> ModuleType:
    spec = util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fill = _load_fill()


def golden_state(case: str) -> dict[str, torch.Tensor]:
    """The golden weights of a network, under the published names."""
    manifest = json.loads((GOLDEN / f"{case}_manifest.json").read_text())
    return {
        name: torch.from_numpy(np.asarray(fill.parameter(name, tuple(shape))))
        for name, (shape, _) in manifest.items()
    }


def write_folder(
    root: Path, count: int = 6, size: tuple[int, int] = (48, 40), lists: dict[str, list[int]] | None = None
) -> Path:
    """A folder with ``images/`` and ``masks/`` of ``count`` noisy images with one bright target each."""
    rng = np.random.default_rng(7)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for index in range(count):
        image = rng.integers(20, 60, size, dtype=np.uint8)
        mask = np.zeros(size, np.uint8)
        top, left = rng.integers(4, size[0] - 8), rng.integers(4, size[1] - 8)
        mask[top : top + 3, left : left + 3] = 255
        image[mask > 0] = 220
        cv2.imwrite(str(root / "images" / f"im_{index}.png"), image)
        cv2.imwrite(str(root / "masks" / f"im_{index}.png"), mask)
    for name, indices in (lists or {}).items():
        (root / f"{name}.txt").write_text("\n".join(f"im_{index}" for index in indices))
    return root


def write_palette_png(path: Path, indices: np.ndarray, palette: np.ndarray) -> None:
    """A PNG of colour type 3, which OpenCV does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = indices.shape
    rows = b"".join(b"\0" + row.tobytes() for row in indices)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", palette.tobytes())
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images: four to train on, two to test on."""
    return write_folder(tmp_path / "mine", lists={"train": [0, 1, 2, 3], "test": [4, 5]})


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """The same test on the CPU and on CUDA, where there is a device, with float32 as float32."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device (torch.cuda.is_available() is false)")
        promise_float32()
    return request.param


@pytest.fixture(scope="session")
def sirst() -> Path:
    """The real SIRST, where ``SAM_SPL_DATA`` says it is."""
    data = os.environ.get("SAM_SPL_DATA")
    if not data or not (Path(data) / "SIRST").is_dir():
        pytest.skip("SAM_SPL_DATA names no folder that holds SIRST")
    return Path(data) / "SIRST"


def config_of(name: str, words: Sequence[str] = ()) -> Any:
    """The settings that ``sam-spl train`` or ``test`` makes of a command line."""
    make = {"train": train_config, "test": test_config}[name]
    return make(parse([str(word) for word in words], command_named(name)).words)


def train(words: Sequence[Any]) -> None:
    """``training.py`` in this process."""
    execute(["train", *map(str, words)])


def test(words: Sequence[Any]) -> None:
    """``testing.py`` in this process."""
    execute(["test", *map(str, words)])


test.__test__ = False


def results_in(folder: Path) -> dict[str, Any]:
    """The one result file below a folder."""
    (file,) = folder.rglob("results.json")
    return json.loads(file.read_text())


@pytest.fixture(autouse=True)
def no_own_folders() -> Iterator[None]:
    """``--config_dir`` of one test is not there in the next."""
    yield
    sam_spl.config._own_folders.clear()


Run = Callable[..., subprocess.CompletedProcess[str]]


def _path() -> list[str]:
    """Where Python finds packages beside its own: what the tests find, a command of theirs does as well."""
    return [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]


@pytest.fixture(scope="session")
def command() -> Run:
    """Run a command of the repository as a user does; ``env`` adds to the environment."""

    def run(
        *argv: Any, env: dict[str, str] | None = None, cwd: Path = ROOT, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in argv]
        prefix = [sys.executable] if words[0].endswith(".py") else []
        return subprocess.run(
            [*prefix, *words],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_path()]), **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
