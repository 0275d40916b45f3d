"""How runs are named, and which of them have no result."""

from __future__ import annotations

import pytest

from sam_spl.results.files import untested
from sam_spl.results.runs import run_name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("runs/a/best.safetensors", "a"),
        ("runs/a/last.pt", "a"),
        ("runs/a/last.previous.pt", "a"),
        ("results/UIUNet/*", "UIUNet"),
        ("checkpoints/datransnet-sirst.safetensors", "datransnet-sirst"),
        ("configs/model/tophat.yaml", "tophat"),
    ],
)
def test_weights_have_the_name_that_says_most_of_them(file, name):
    assert run_name({"weights": {"file": file}}) == name


def test_runs_without_a_test_are_named(tmp_path):
    for run in ("tested", "not", "deep/not"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "metrics.jsonl").touch()
    (tmp_path / "tested" / "test-sirst").mkdir()
    (tmp_path / "tested" / "test-sirst" / "results.json").touch()
    assert untested([tmp_path]) == [str(tmp_path / "deep/not"), str(tmp_path / "not")]
    assert untested([tmp_path / "tested", tmp_path / "tested" / "test-sirst" / "results.json"]) == []
