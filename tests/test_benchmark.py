"""``scripts/benchmark.py``: its rows, its JSON, and what it says of two files. No time is checked."""

from __future__ import annotations

import json
import runpy

import pytest

from tests.conftest import ROOT

SCRIPT = "scripts/benchmark.py"
NET = '''
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.in_channels = 1
        self.layers = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 1)
        self.layers = nn.Sequential(*self.layers)

    def forward(self, image):
        return [self.layers(image)]


def published(name):
    assert name.endswith(":Net")
    return Half()


class Half(nn.Module):
    """Nested maps, one of half the size, as published networks return them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, image):
        x = self.layer(image).sigmoid()
        return (x, [x[..., ::2, ::2]])


def number():
    return 3
'''
TINY = ("--image_size", 32, "--batch_size", 2, "--repeat", 2, "--precision", "fp32")
IDENTITY = ("name", "mode", "precision", "compiled", "reference", "image_size", "batch_size")


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def row(name="net", seconds=1.0, spread=0.01, **of):
    of = {"mode": "test", "precision": "fp32", "compiled": False, "reference": False} | of
    low, high = (None, None) if seconds is None else (seconds * (1 - spread), seconds * (1 + spread))
    of |= {"image_size": 256, "batch_size": 4, "seconds_per_image": seconds, "minimum": low, "maximum": high}
    return {"name": name, **of}


@pytest.fixture
def called(monkeypatch, capsys):
    """The script in this process: exit code, output and errors."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    script = runpy.run_path(str(ROOT / SCRIPT), run_name="script")

    def run(*words):
        with pytest.raises(SystemExit) as end:
            script["finish"](lambda: script["benchmark"]([str(word) for word in words]))
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def compared(tmp_path, called):
    def run(old, new):
        for name, rows in (("old", old), ("new", new)):
            (tmp_path / f"{name}.json").write_text(json.dumps({"rows": rows}))
        return called("--compare", tmp_path / "old.json", tmp_path / "new.json")

    return run


def test_a_network_and_a_reference_are_rows_with_their_work(net, tmp_path, command):
    out = tmp_path / "out.json"
    words = ("--models", f"{net}:Net", "--reference", f"{net}:published", "--json", out, *TINY)
    done = command(SCRIPT, *words, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert content["machine"]["cores"] >= 1 and content["arguments"]["repeat"] == 2
    rows = {(one["mode"], one["reference"]): one for one in content["rows"]}
    assert set(rows) == {("matmul", False), *((m, r) for m in ("test", "train") for r in (False, True))}
    matmul = rows["matmul", False]
    rate = 2 * 2048**3 / matmul["seconds_per_image"]
    for one in (rows[key] for key in rows if key[0] != "matmul"):
        assert [one[key] for key in IDENTITY[2:4]] == ["fp32", False]
        assert (one["name"], one["image_size"], one["batch_size"]) == (f"{net}:Net", 32, 2)
        assert 0 < one["minimum"] <= one["seconds_per_image"] <= one["maximum"]
        assert one["units"] == pytest.approx(one["seconds_per_image"] * rate / one["gflop_per_image"] / 1e9)
        assert one["peak_memory_bytes"] > 50e6, one["note"]
    pixels = 32 * 32
    assert rows["test", False]["gflop_per_image"] * 1e9 == pytest.approx(2 * pixels * (9 * 3 + 3))
    assert rows["test", True]["gflop_per_image"] * 1e9 == pytest.approx(2 * pixels * 9)
    # Backward: the gradient of the weights of both layers and of the input of the second one.
    assert rows["train", False]["gflop_per_image"] * 1e9 == pytest.approx(2 * pixels * (2 * 30 + 3))
    assert "of the reference in fp32" in done.stdout
    assert not list(tmp_path.glob(".*tmp"))


def test_stages_add_up_and_latency_has_its_row(net, tmp_path, command):
    out = tmp_path / "out.json"
    words = ("--what", "latency", "stages", "--models", f"{net}:Net", "--images", 4, "--json", out, *TINY)
    done = command(SCRIPT, *words, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    rows = {one["mode"]: one for one in json.loads(out.read_text())["rows"]}
    train = ["loader", "forward", "loss", "backward", "clip", "optimizer", "EMA", "rest"]
    testing = ["opening", "reading", "forward", "counting", "report"]
    expected = {*(f"train step: {name}" for name in train), *(f"test set: {name}" for name in testing)}
    assert set(rows) == {"latency", "train step", "test set"} | expected
    assert rows["latency"]["batch_size"] == 1 and rows["train step"]["batch_size"] == 2
    assert rows["latency"]["minimum"] <= rows["latency"]["percentile_95"] <= rows["latency"]["maximum"]
    assert all(rows[mode]["minimum"] > 0 for mode in expected)


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        (row(), row(), 0, "net test fp32 256 px batch 4: 1.000 times as long, within the spread"),
        (row(), row(seconds=1.2), 1, "SLOWER: 1.200 times as long, outside the spread"),
        (row(), row(seconds=1.08), 0, "1.080 times as long, outside the spread"),
        (row(spread=0.3), row(seconds=1.2), 0, "1.200 times as long, within the spread"),
        (row(), row(seconds=0.5), 0, "faster: 0.500 times as long, outside the spread"),
        (row(), row(seconds=None, note="does not fit"), 1, "SLOWER: no longer measured (does not fit)"),
        (row(seconds=None), row(), 0, "not measured before"),
    ],
)
def test_a_row_is_slower_by_a_tenth_and_outside_both_spreads(compared, old, new, code, said):
    found, out, error = compared([old], [new])
    assert (found, error) == (code, "")
    assert said in out


def test_rows_that_one_file_has_are_named_and_rows_of_another_kind_are_not_compared(compared):
    code, out, _ = compared([row("a"), row("b")], [row("b", seconds=2, reference=True), row("c"), row("a")])
    assert code == 0
    assert out.splitlines() == [
        "a test fp32 256 px batch 4: 1.000 times as long, within the spread",
        "b test fp32 256 px batch 4: only in the old file",
        "b test fp32 reference 256 px batch 4: only in the new file",
        "c test fp32 256 px batch 4: only in the new file",
    ]


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"rows": [{"name": "a"}]}', None])
def test_a_file_that_is_no_result_is_one_line(tmp_path, called, content):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    code, _, error = called("--compare", path)
    assert code == 1
    (line,) = error.splitlines()
    assert line.startswith("error: --compare: ") and str(path) in line


def test_a_reference_that_is_none_is_one_line(net, called):
    words = ("--models", f"{net}:Net", "--no-memory", *TINY, "--reference")
    for name, said in (("number", "Return a torch.nn.Module"), ("absent", "has no 'absent'")):
        code, _, error = called(*words, f"{net}:{name}")
        assert code in (1, 2)
        assert len(error.splitlines()) == 1 and said in error


def test_what_takes_too_long_or_too_much_memory_is_a_note(net, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from benchmark.processes import in_own_process

    case = {"name": f"{net}:Net", "mode": "test", "precision": "fp32", "compiled": False, "reference": None}
    case |= {"batch_size": 1, "device": "cpu"}
    large = in_own_process("network", {**case, "image_size": [1_000_000, 100_000]}, 1, 120)
    assert (large.note, large.rounds) == ("does not fit into memory", [])
    assert in_own_process("network", {**case, "image_size": [32, 32]}, 1, 0.1).note == "not done in 0.1 s"
    files = in_own_process("listing", {"count": 3}, 2, 120)
    assert len(files.rounds) == 2 and files.peak_memory_bytes > 50e6 and not files.note
