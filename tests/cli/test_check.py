"""``sam-spl check``: what it prints, writes and refuses. What it finds is tested with sam_spl.data.check."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import pytest

from sam_spl.cli.check import COMMAND, CheckConfig, check
from sam_spl.errors import ConfigError, InputError
from tests.conftest import ROOT, write_folder


def test_a_sound_folder_gives_a_table_a_picture_and_all_findings(folder, tmp_path, capsys):
    check(CheckConfig(dataset=str(folder), output=str(tmp_path / "out")))
    printed = capsys.readouterr().out
    assert "images          4 train, 0 val, 2 test" in printed
    assert printed.splitlines()[-1].startswith("no errors, ")
    report = json.loads((tmp_path / "out" / "mine.json").read_text())
    assert (report["dataset"], report["targets"], report["wrong"]) == ("mine", 6, [])
    assert cv2.imread(str(tmp_path / "out" / "mine.png")).shape[1] == 1440


def test_what_is_wrong_is_printed_and_is_an_error(folder, tmp_path, capsys):
    (folder / "masks" / "im_1.png").unlink()
    (folder / "images" / "im_2.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"mine: 2 error\(s\), listed above\. All names are in .*mine\.json"):
        check(CheckConfig(dataset=str(folder), output=str(tmp_path / "out")))
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong: ")]
    assert [line.split(", first ")[1].split(".")[0] for line in wrong] == ["im_1", "im_2"]


def test_a_set_is_found_by_name_and_its_lists_are_chosen(tmp_path, capsys):
    root = write_folder(tmp_path / "NUAA-SIRST")
    for name, test in (("a", 4), ("b", 5)):
        (root / name).mkdir()
        (root / name / "train.txt").write_text("im_0")
        (root / name / "test.txt").write_text(f"im_{test}")
    output = str(tmp_path / "out")
    with pytest.raises(InputError, match="holds 2 splits"):
        check(CheckConfig(dataset="sirst", data_path=str(tmp_path), output=output))
    with pytest.raises(InputError, match="SIRST: 1 error"):  # it is not the published set
        check(CheckConfig(dataset="sirst", data_path=str(tmp_path), lists="b", output=output))
    assert "lists b" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="'sirts' is unknown"):
        check(CheckConfig(dataset="sirts", output=output))
    with pytest.raises(ConfigError, match=r"is a union of sets\. Use them one by one"):
        check(CheckConfig(dataset="sirst3", output=output))


def test_what_the_command_declares():
    assert (COMMAND.name, COMMAND.positional, COMMAND.aliases) == ("check", ("dataset",), {"-o": "output"})
    assert COMMAND.run is check


@pytest.mark.parametrize("module", ["check", "prepare"])
def test_help_needs_nothing_heavy(module):
    code = (
        f"import sys, sam_spl.cli.{module};"
        "print([name for name in ('numpy', 'cv2', 'torch', 'skimage', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
