"""The notebook of the examples runs, and its network finds targets."""

from __future__ import annotations

import json

import matplotlib

from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def test_the_notebook_runs_and_finds_targets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict = {}
    for cell in (one for one in cells if one["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, {cell['id']}", "exec"), names)
    assert names["run"].history[-1]["loss"] < 0.75 * names["run"].history[0]["loss"]
    assert names["result"].scores["pd"] > 0.5
    assert names["prediction"].mask.any()
    assert names["plates"][1].name == "layers"
    assert {path.name for path in tmp_path.iterdir()} <= {"quickstart_run", "small_net.py", "__pycache__"}


def test_the_notebook_is_small():
    assert NOTEBOOK.stat().st_size < 300_000
