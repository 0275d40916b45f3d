"""Imports point one way, and few files read the environment."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "sam_spl"
BASE = {"errors", "files", "foreign", "config", "registry", "progress", "resize", "rendezvous", "runtime"}
#: Room -> the rooms that it may use besides its own and the base.
MAY_USE = {
    **{name: set() for name in BASE},
    "models": set(),
    "data": set(),
    "metrics": set(),
    "weights": {"models"},
    "predict": {"models", "weights", "data", "metrics", "report"},
    "demo": {"data", "predict", "report"},
    "report": {"data", "metrics"},
    "results": {"data", "metrics"},
    "engine": {"models", "weights", "data", "metrics", "predict", "results", "report"},
    "bench": {"models", "weights", "data", "metrics", "predict", "results", "report", "engine"},
    "cli": {
        "models",
        "weights",
        "data",
        "metrics",
        "predict",
        "results",
        "report",
        "engine",
        "demo",
        "bench",
    },
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in MAY_USE)


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sam_spl."):
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("sam_spl.")}
    return {name.split(".")[1] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path):
    own = room(path)
    assert imported(path) - {own} - BASE <= MAY_USE[own]


def test_every_room_is_known():
    found = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert found == MAY_USE.keys() - BASE


def test_the_command_line_and_the_environment_are_read_where_it_is_known():
    # runtime.py imports PyTorch, which takes seconds that a mistyped flag does not need.
    readers = {
        "sys.argv": {"cli/main.py"},
        "os.environ": {"runtime.py", "cli/main.py"},
        "os.getenv": set(),
    }
    for word, places in readers.items():
        found = {
            path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if word in path.read_text()
        }
        assert found <= places, word


def test_nothing_is_instantiated_by_a_name_from_a_file():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "configs").rglob("*.yaml")]:
        text = path.read_text()
        assert "_target_" not in text, path
        assert "hydra.utils.instantiate" not in text, path
