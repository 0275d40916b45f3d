"""A bench: rows that go on, tables that follow from their evidence, and edits that are noticed."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sam_spl.bench import tables
from sam_spl.cli.main import execute
from sam_spl.errors import ConfigError, InputError
from sam_spl.results.files import find_results
from tests.conftest import ROOT

NETWORKS = """
from torch import nn


class Small(nn.Module):
    in_channels = 1

    def __init__(self, width: int = 4, head_bias: float | None = None, broken: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1)
        )
        self.broken = broken

    def forward(self, image):
        return [self.body(image)] if not self.broken else 1 / 0
"""
MODEL = """
name: {name}
network: ../../nets.py:Small
recipe: scratch
arguments: {{width: {width}, head_bias: null, broken: {broken}}}
"""
DATASET = """
name: scenes
title: scenes
source: synthetic
image_size: 48
augment: resize_flip
synthetic: {train: 24, val: 6, test: 12, areas: [4, 60], scr: [4, 12], most_targets: 2, empty: 0.1, dark: 0.0}
"""
TEST_IMAGES, TRAIN_IMAGES, BATCH, SIDE = 12, 24, 4, 48
PROTOCOLS = ("native", "sam_spl")
SETTINGS = [
    *("--dataset", "scenes", "--device", "cpu", "--minutes", "0.004"),
    *(f"protocols=[{','.join(PROTOCOLS)}]", "train=[precision=fp32,trainer.batch_size=4]"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder of YAML files with two networks that compute in milliseconds, one that fails, and a set."""
    root = tmp_path_factory.mktemp("own")
    (root / "nets.py").write_text(NETWORKS)
    for name, width in (("narrow", 4), ("wide", 8), ("broken", 4)):
        file = root / "files" / "model" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(MODEL.format(name=name, width=width, broken=str(name == "broken").lower()))
    (root / "files" / "dataset").mkdir()
    (root / "files" / "dataset" / "scenes.yaml").write_text(DATASET)
    return root / "files"


Bench = Callable[..., Path]


@pytest.fixture(scope="module")
def run(files) -> Bench:
    def bench(folder: Path, *words: str) -> Path:
        execute(["bench", *SETTINGS, "--output", str(folder), "--config_dir", str(files), *words])
        return folder

    return bench


@pytest.fixture(scope="module")
def done(run, tmp_path_factory) -> Path:
    """Two networks with two seeds each, and a detector without weights."""
    return run(tmp_path_factory.mktemp("bench"), "tophat", "narrow,wide", "--seeds", "1,2")


@pytest.fixture
def copied(done, tmp_path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "bench"))


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "bench.csv").open(newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def evidence(folder: Path, row: str) -> dict[str, Any]:
    return json.loads((folder / "evidence" / f"{row}.json").read_text())


def state(folder: Path) -> dict[str, int]:
    """When each file of runs and evidence was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for place in ("evidence", "runs")
        for path in (folder / place).rglob("*")
        if path.is_file()
    }


NARROW, WIDE = ([f"scenes-{name}-0.004min-seed{seed}" for seed in (1, 2)] for name in ("narrow", "wide"))


def test_a_row_states_what_was_measured_and_how(done):
    table = rows(done)
    assert set(table) == {"scenes-tophat", *NARROW, *WIDE}
    for name in (*NARROW, *WIDE):
        row, file = table[name], done / "evidence" / f"{name}.json"
        width = 4 if "narrow" in name else 8
        assert int(row["parameters"]) == (9 * width + width) + (9 * width + 1)
        assert int(row["macs"]) == (9 * width + 9 * width) * SIDE * SIDE
        assert row["evidence_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        weights = (done / "runs" / name / "best.safetensors").read_bytes()
        assert row["weights_sha256"] == hashlib.sha256(weights).hexdigest()
        metrics = (done / "runs" / name / "metrics.jsonl").read_text().splitlines()
        full, rest = divmod(int(row["images_seen"]), TRAIN_IMAGES)
        assert (len(metrics), rest % BATCH) == (full + bool(rest), 0)
        # The training ends with the update in which its time does.
        assert float(row["seconds"]) + 0.005 * len(metrics) >= 60 * 0.004
        tested = json.loads((done / "runs" / name / "test" / "results.json").read_text())
        for protocol in PROTOCOLS:
            for key in ("iou", "niou", "f1", "pd", "fa"):
                value = tested["protocols"][protocol]["scores"][key]
                assert row[f"{protocol}.{key}"] == ("" if value is None else repr(value))

    about = evidence(done, NARROW[1])["bench"]
    settings = about["config"]["train"]["trainer"]
    assert (settings["minutes"], settings["selection"], settings["val_share"]) == (0.004, "val", 0.2)
    assert evidence(done, NARROW[1])["weights"]["selected_by"] == "IoU on the val images"
    assert about["machine"].keys() >= {"cpu", "threads", "device", "torch", "sam_spl", "commit"}
    fixed = table["scenes-tophat"]
    assert (fixed["seed"], fixed["minutes"], fixed["images_seen"], fixed["parameters"]) == ("", "", "0", "0")


def test_a_seed_gives_its_own_first_weights(run, tmp_path):
    """At a learning rate that moves nothing: the clock decides how far a training gets."""
    still = [
        "narrow",
        "train=[precision=fp32,optimizer.lr=1e-30,optimizer.eta_min=0]",
        "--minutes",
        "0.001",
        "--seeds",
    ]
    weights = {}
    for folder, seeds in (("a", "1,2"), ("b", "1")):
        for file in run(tmp_path / folder, *still, seeds).glob("runs/*/best.safetensors"):
            tensors = load_file(file)
            weights[folder, file.parent.name[-1]] = torch.cat(
                [tensors[key].flatten() for key in sorted(tensors)]
            )
    assert torch.equal(weights["a", "1"], weights["b", "1"])
    assert not torch.equal(weights["a", "1"], weights["a", "2"])


def test_all_seeds_and_networks_are_tested_on_the_same_images(done):
    table = rows(done)
    assert len({row["weights_sha256"] for row in table.values()}) == 5
    assert len({row["test_list_sha256"] for row in table.values()}) == 1
    assert {row["test_images"] for row in table.values()} == {str(TEST_IMAGES)}
    assert table[NARROW[0]]["settings"] == table[NARROW[1]]["settings"]
    assert table[NARROW[0]]["settings"] != table[WIDE[0]]["settings"]


def test_the_tables_hold_means_and_spreads_of_the_tests(done, run, tmp_path):
    text = (done / "table.md").read_text()
    for protocol in PROTOCOLS:
        section = text.partition(f"protocol {protocol}**")[2].partition("**")[0]
        scored = [
            json.loads((done / "runs" / name / "test" / "results.json").read_text())["protocols"][protocol][
                "scores"
            ]
            for name in WIDE
        ]
        fa = 1e6 * np.array([one["fa"] for one in scored])
        iou = 100 * np.array([one["iou"] for one in scored])
        (line,) = [line for line in section.splitlines() if line.startswith("| wide | 0.004 | 2 |")]
        cells = line.strip("| ").split(" | ")
        assert cells[3] == f"{iou.mean():.2f} +- {iou.std(ddof=1):.2f}"
        (header,) = {line for line in text.splitlines() if line.startswith("| network |")}
        assert cells[header.strip("| ").split(" | ").index("at px")] == "48"
        assert cells[7] == f"{fa.mean():.2f} +- {fa.std(ddof=1):.2f}"
        assert "| tophat | - | - |" in section
        order = [
            line.split(" | ")[3] for line in section.splitlines() if line.count(" | ") > 3 and "0" in line
        ]
        means = [float(cell.split()[0]) for cell in order]
        assert means == sorted(means, reverse=True)
    assert "$\\pm$" in (done / "table.tex").read_text()
    assert "<td>wide</td><td>0.004</td><td>2</td>" in (done / "table.html").read_text()
    assert (done / "plot-1.png").read_bytes()[:4] == b"\x89PNG"

    shutil.copytree(done / "evidence", tmp_path / "one" / "evidence")
    (tmp_path / "one" / "evidence" / f"{WIDE[1]}.json").unlink()
    execute(["bench", "--output", str(tmp_path / "one")])
    assert "| wide | 0.004 | 1, no spread | " in (tmp_path / "one" / "table.md").read_text()


def test_the_same_command_again_trains_and_tests_nothing(done, run, capsys):
    before, table = state(done), (done / "bench.csv").read_bytes()
    run(done, "tophat", "narrow", "wide", "--seeds", "1,2")
    assert capsys.readouterr().out.count(": done before") == 5
    assert state(done) == before
    assert (done / "bench.csv").read_bytes() == table


def test_a_row_of_other_settings_is_not_taken_for_the_one_that_is_asked_for(copied, run):
    before = state(copied)
    with pytest.raises(
        ConfigError, match=r"wide-0\.004min-seed1\.json: the row was made with other settings \(settings"
    ):
        run(copied, "wide", "train=[precision=fp32,trainer.batch_size=6]")
    with pytest.raises(ConfigError, match=r"other settings \(protocols"):
        run(copied, "tophat", "protocols=[native]")
    assert state(copied) == before


def test_what_was_killed_goes_on_and_what_was_done_is_not_trained_again(files, run, tmp_path):
    words = ["narrow", "wide", "--seeds", "3", "--minutes", "0.02"]
    folder, (first, second) = (
        tmp_path / "bench",
        (f"scenes-{name}-0.02min-seed3" for name in ("narrow", "wide")),
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "sam_spl", "bench", *SETTINGS, "--output", str(folder)),
            *("--config_dir", str(files), *words),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    metrics = folder / "runs" / second / "metrics.jsonl"
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 1):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert set(rows(folder)) == {first}
    before, trained = state(folder), metrics.read_text().splitlines()

    run(folder, *words)
    after = state(folder)
    assert set(rows(folder)) == {first, second}
    assert {name: at for name, at in after.items() if first in name} == {
        name: at for name, at in before.items() if first in name
    }
    # What was saved last may be an epoch behind what was written down.
    assert metrics.read_text().splitlines()[: len(trained) - 1] == trained[:-1]
    assert tables.check(folder) == []


def test_a_row_that_fails_is_named_and_the_others_go_on(run, tmp_path, capfd):
    with pytest.raises(InputError, match=r"bench: 1 of 2 rows failed: scenes-broken-0\.004min-seed1$"):
        run(tmp_path, "broken", "narrow", "--seeds", "1")
    assert set(rows(tmp_path)) == {NARROW[0]}
    assert "ZeroDivisionError" in capfd.readouterr().err  # a fault keeps its traceback
    with pytest.raises(InputError, match="1 of 2 rows failed"):
        run(tmp_path, "wide", "tophat", "--seeds", "1", "train=[weights=absent.pt]")
    assert f"error: {WIDE[0]}: weights: no file absent.pt" in capfd.readouterr().err
    assert set(rows(tmp_path)) == {NARROW[0], "scenes-tophat"}
    assert tables.check(tmp_path) == []


def _one_digit(text: str, at: int) -> str:
    return text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


def _edit(file: Path, pattern: str) -> None:
    """Change the last digit of the first number that a pattern's group finds."""
    text = file.read_text()
    file.write_text(_one_digit(text, re.search(pattern, text).end(1) - 1))


@pytest.mark.parametrize(
    ("name", "pattern", "message"),
    [
        (
            "bench.csv",
            r"narrow.*,(\d+),\d+,\d\.\d+,",
            r"bench\.csv: row scenes-narrow-0\.004min-seed1, parameters is",
        ),
        (
            "bench.csv",
            r"narrow.*(?:,[01]\.\d+)+(\d)",
            r"bench\.csv: row scenes-narrow-0\.004min-seed1, .* by its evidence",
        ),
        (
            "table.txt",
            r"wide +0\.004 +2 +(\d+\.\d+)",
            r"table\.txt, line \d+: 'wide .*, by the evidence 'wide ",
        ),
        ("table.md", r"wide \| 0\.004 \| 2 \| (\d+\.\d+)", r"table\.md, line \d+"),
        ("table.tex", r"wide & 0\.004 & 2 & (\d+\.\d+)", r"table\.tex, line \d+"),
        ("table.html", r"<td>2</td><td>(\d+\.\d+)", r"table\.html, line \d+"),
        (f"evidence/{WIDE[0]}.json", r'"labelled": (\d+)', r"evidence/.*json"),
        (f"evidence/{WIDE[0]}.json", r'"parameters": (\d+)', r"SHA-256 is not the one in bench\.csv"),
        (f"evidence/{WIDE[0]}.json", r'"seconds": \d+\.(\d+)', r"SHA-256 is not the one in bench\.csv"),
    ],
)
def test_one_edited_digit_is_noticed(name, pattern, message, copied, capsys):
    execute(["bench", "--check", str(copied)])
    assert "follows from the evidence" in capsys.readouterr().out
    _edit(copied / name, pattern)
    with pytest.raises(InputError, match=r"does not follow from the evidence: \d+") as error:
        execute(["bench", "--check", str(copied)])
    assert error.value.exit_code == 1
    assert re.search(message, capsys.readouterr().out)


def test_counts_that_were_edited_do_not_add_up_whatever_the_table_says_of_the_file(copied):
    file = copied / "evidence" / f"{WIDE[0]}.json"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    _edit(file, r'(?s)"images": \[.*?"false_alarms": (\d+)')
    table = (copied / "bench.csv").read_text()
    (copied / "bench.csv").write_text(table.replace(before, hashlib.sha256(file.read_bytes()).hexdigest()))
    assert re.search(r"wide.*add up to another", tables.check(copied)[0])


def test_tables_are_not_made_of_evidence_that_was_changed(copied, run):
    _edit(copied / "evidence" / f"{WIDE[0]}.json", r'"parameters": (\d+)')
    before = (copied / "bench.csv").read_bytes()
    with pytest.raises(InputError, match=r"seed1\.json was changed after its row was written"):
        execute(["bench", "--output", str(copied)])
    with pytest.raises(InputError, match="was changed after its row was written"):
        run(copied, "tophat")
    assert (copied / "bench.csv").read_bytes() == before


def test_missing_and_replaced_files_are_noticed(copied):
    (copied / "table.md").unlink()
    (copied / "evidence" / f"{NARROW[0]}.json").unlink()
    weights = [copied / "runs" / name / "best.safetensors" for name in WIDE]
    weights[0].write_bytes(weights[1].read_bytes())
    wrong = "\n".join(tables.check(copied))
    assert f"row {NARROW[0]} has no evidence that can be read" in wrong
    assert "table.md is missing" in wrong
    assert f"{weights[0]}: other weights than those that were tested" in wrong
    with pytest.raises(InputError, match=r"no bench\.csv with rows there"):
        tables.check(copied / "runs")


def test_evidence_of_another_machine_is_added_in_a_section_of_its_own(copied):
    other = evidence(copied, WIDE[0])
    other["bench"]["machine"] |= {"device": "Some GPU"}
    (copied / "evidence" / "gpu-wide.json").write_text(json.dumps(other))
    assert tables.check(copied)[0] == "bench.csv: there is evidence of gpu-wide, and no row"
    execute(["bench", "--output", str(copied)])
    assert tables.check(copied) == []
    titles = re.findall(
        r"^\| \*\*scenes.*\(\w{8}\), (.*), protocol native\*\*", (copied / "table.md").read_text(), re.M
    )
    assert len(titles) == 2 and "Some GPU" in titles
    assert sorted(file.name for file in copied.glob("plot-*")) == ["plot-1.png", "plot-2.png"]


def test_evidence_is_a_result_that_is_compared_like_any(done, capsys):
    assert [
        report["weights"]["model"] for report in find_results([done / "evidence" / f"{WIDE[0]}.json"])
    ] == ["wide"]
    execute(["compare", *map(str, sorted((done / "evidence").glob("*.json"))), "--rank", "iou"])
    assert "ranking by IoU on scenes, 12 images" in capsys.readouterr().out


def test_the_commands_of_a_row_are_understood_and_say_what_ran(done, files):
    commands = evidence(done, WIDE[0])["bench"]["commands"]
    for name in ("train", "test"):
        program, given, *words = shlex.split(commands[name])
        assert (program, given) == ("sam-spl", name)
        execute([name, *words, "--config"])
    assert "trainer.minutes=0.004" in commands["train"] and "seed=1" in commands["train"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["narrow", "train=[trainer.minutes=0.002]"], r"train: trainer\.minutes is set by the bench"),
        (["narrow", "train=[trainer.selection=test]"], r"train: trainer\.selection is set by the bench"),
        (["narow"], r"'narow' is unknown\. Nearest: narrow"),
        (["narrow", "--minutes", "0"], r"minutes: 0\.0 is not valid"),
        (["narrow", "--seeds", "[]"], r"seeds: \[\] is not valid"),
        (["narrow", "--protocols", "nativ"], "nativ"),
        (["narrow", "--check", "x"], r"check: it takes a folder and runs nothing"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_runs(words, message, run, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "bench", *words)
    assert not (tmp_path / "bench").exists()
    with pytest.raises(ConfigError, match="dataset: name the set"):
        execute(["bench", "tophat"])
