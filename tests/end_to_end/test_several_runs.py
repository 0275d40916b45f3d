"""Several networks, several sets: one command, one table."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from sam_spl.cli.main import run
from sam_spl.results.compare import table
from sam_spl.results.files import find_results
from tests.conftest import TINY_OVERRIDES, results_in, test, train, write_folder

SMALL = [
    "dataset.image_size=64",
    "trainer.batch_size=4",
    "trainer.epochs=1",
    "optimizer.lr=1e-3",
    "device=cpu",
]
SPL = [*TINY_OVERRIDES, *SMALL]


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    for name in ("SIRST", "NUDT-SIRST"):
        write_folder(root / name, lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    return root


def _results(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("results.json"))]


def test_every_combination_trains_is_tested_and_ends_in_one_table(sets, tmp_path, capsys):
    words = [
        "-m",
        "model=datransnet",
        "dataset=sirst,nudt_sirst",
        "recipe=datransnet,datransnet_aug",
        "test_on=[same]",
    ]
    train([*words, *SMALL, "--data_path", str(sets), "--save_dir", str(tmp_path)])
    names = {"sirst-datransnet", "sirst-datransnet_aug", "nudt_sirst-datransnet", "nudt_sirst-datransnet_aug"}
    assert {path.name for path in tmp_path.iterdir()} == names
    output = capsys.readouterr().out
    assert "[4/4] nudt_sirst-datransnet_aug" in output
    last = output.rstrip().splitlines()[-5:]
    assert last[0].split()[:4] == ["model", "trained", "on", "tested"]
    assert [row.split()[1] for row in last[1:]] == ["SIRST", "SIRST", "NUDT-SIRST", "NUDT-SIRST"]
    assert set(last) <= set(table(find_results([tmp_path])).splitlines())  # what sam-spl compare prints
    assert {report["dataset"]["name"] for report in _results(tmp_path)} == {"SIRST", "NUDT-SIRST"}


def test_one_failing_run_leaves_the_others_alone(sets, tmp_path, capsys):
    words = ["-m", "dataset=sirst,irstd_1k", *SPL, "--data_path", str(sets), "--save_dir", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        run(["train", *words])
    errors = capsys.readouterr().err
    assert end.value.code == 1
    assert "no folder named IRSTD-1k" in errors
    assert errors.rstrip().endswith("error: 1 of 2 failed: irstd_1k")
    assert (tmp_path / "sirst" / "best.safetensors").is_file()


def test_a_failing_run_says_why_in_one_short_line(tmp_path, capsys):
    data = f"{tmp_path}/{'x' * 90}\x1b\n" * 9
    with pytest.raises(SystemExit):
        run(["test", f"weights=[{data},b]", "dataset=synthetic", "device=cpu", f"--save_dir={tmp_path}"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") and line.isprintable() for line in lines)


def test_a_union_trains_and_is_tested_on_each_set_and_on_itself(sets, tmp_path, capsys):
    save = tmp_path / "u"
    words = [
        "dataset=[sirst,nudt]",
        "test_on=[same,nudt_sirst]",
        "--data_path",
        str(sets),
        "--save_dir",
        str(save),
    ]
    train([*words, *SPL])
    both, nudt = sorted(_results(save), key=lambda report: -report["scores"]["images"])
    assert (both["scores"]["images"], nudt["scores"]["images"]) == (4, 2)
    assert both["weights"]["trained_on"]["dataset"] == "SIRST+NUDT-SIRST"
    part = {image["name"]: image for image in both["images"]}
    for image in nudt["images"]:  # pooled counts are those of the parts
        assert part[f"NUDT-SIRST/{image['name']}"] == image | {"name": f"NUDT-SIRST/{image['name']}"}

    capsys.readouterr()
    several = [f"weights=[{save},{save / 'best.pt'}]", "dataset=[sirst,nudt]", "device=cpu"]
    test([*several, "--data_path", str(sets), "--save_dir", str(tmp_path / "out")])
    rows = list(csv.DictReader(io.StringIO(table(_results(tmp_path / "out"), "csv"))))
    assert [row["tested on"] for row in rows] == ["NUDT-SIRST", "SIRST"] * 2
    assert float(rows[0]["iou"]) == float(rows[2]["iou"]) == nudt["scores"]["iou"]


def test_the_folder_of_one_set_is_not_read_as_two(sets, tmp_path, capsys):
    words = ["dataset=[sirst,nudt]", "--data_path", str(sets / "SIRST"), "--save_dir", str(tmp_path / "u")]
    for command, more in (("train", SPL), ("test", ["--weights", "x", "device=cpu"])):
        with pytest.raises(SystemExit):
            run([command, *words, *more])
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "the folder that holds" in error
    assert not (tmp_path / "u").exists()


def test_several_sets_are_not_trained_from_the_folder_of_one(sets, tmp_path, capsys):
    words = [
        "-m",
        "dataset=sirst,nudt_sirst",
        "--data_path",
        str(sets / "SIRST"),
        "--save_dir",
        str(tmp_path / "u"),
    ]
    with pytest.raises(SystemExit) as end:
        run(["train", *words, *SPL])
    error = capsys.readouterr().err
    assert (end.value.code, error.count("\n")) == (2, 1)
    assert "is one data set, but 2 are asked for (NUDT-SIRST, SIRST)" in error
    assert not (tmp_path / "u").exists()
    # Generated images are read from nowhere.
    few = ["++dataset.synthetic.train=4", "++dataset.synthetic.val=1"]
    words = ["-m", "dataset=synthetic,sirst", *words[2:4], "--save_dir", str(tmp_path / "u")]
    train([*words, *few, *SPL])
    assert {path.name for path in (tmp_path / "u").iterdir()} == {"synthetic", "sirst"}


def test_a_set_under_another_ones_name_is_said_aloud_and_recorded(sets, tmp_path, capsys, caplog):
    save, path = tmp_path / "run", str(sets / "SIRST")
    loud = "WRONG DATA SET? " + path + " does not look like NUDT-SIRST: its images are 40x48 and not 256x256"
    train(["dataset=nudt_sirst", "--data_path", path, "--save_dir", str(save), *SPL])
    log = (save / "train.log").read_text()
    assert log.count(f"WARNING {loud}") == log.count("WRONG DATA SET?") == 1
    for name, said in (("nudt_sirst", True), ("sirst", False)):
        caplog.clear()
        test([f"dataset={name}", "--data_path", path, "--weights", str(save), "device=cpu"])
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert [text.startswith(loud) for text in warnings] == [True] * said
        report = results_in(next(save.glob(f"test-best-{name}-*")))["dataset"]
        assert (report["mismatch"] is not None, report["remark"] is not None) == (said, not said)
        assert report["mismatch" if said else "remark"] in capsys.readouterr().out
    assert "SIRST with 4/2 images, published results use" in report["remark"]


def test_skipped_images_are_counted_in_log_and_results(tmp_path, capsys):
    root = write_folder(tmp_path / "mine", lists={"train": [0, 1, 2, 3, 8], "test": [4, 5, 9]})
    (root / "masks" / "im_0.png").unlink()
    save = tmp_path / "run"
    words = ["dataset=custom", "--data_path", str(root), "--save_dir", str(save), "test_on=[same]", *SPL]
    with pytest.raises(SystemExit) as end:
        run(["train", *words])
    assert end.value.code == 1
    assert not save.exists()
    error = capsys.readouterr().err
    assert "names 1 of 5 images that are not there, first im_8; 1 of 5 images" in error
    assert "dataset.missing=skip" in error

    train([*words, "dataset.missing=skip"])
    assert (
        "skipped 3 images without mask or file (dataset.missing=skip), first im_8, im_0, im_9"
        in (save / "train.log").read_text()
    )
    (report,) = _results(save)
    assert (report["dataset"]["skipped"], report["weights"]["trained_on"]["skipped"]) == (3, 3)
    assert report["scores"]["images"] == 2
    assert "3 images without mask or file were skipped" in capsys.readouterr().out


def test_chips_of_the_test_images_are_used_by_name_only_and_said(sets, tmp_path, capsys):
    words = ["dataset=sirst", "copy_paste.probability=0.5", "copy_paste.source=all", "test_on=[same]", *SPL]
    train([*words, "--data_path", str(sets), "--save_dir", str(tmp_path / "run")])
    assert "copy-paste cuts chips out of TEST images" in (tmp_path / "run" / "train.log").read_text()
    assert "copy-paste saw targets of the test images" in capsys.readouterr().out
    assert _results(tmp_path)[0]["weights"]["trained_on"]["chips_from"] == "train, val and test images"


def test_compare_prints_every_form_and_says_what_is_missing(tmp_path):
    scores = {"iou": 0.5, "niou": 0.25, "f1": None, "pd": 1.0, "fa": 2e-6}
    for name in ("a_1", "b"):
        weights = {"file": f"/x/{name}/best.pt", "model": "datransnet", "settings": "1f"}
        report = {
            "protocol": "native", "image_size": 64, "protocols": {"native": {"scores": scores}}, "images": [],
            "weights": weights | {"trained_on": {"dataset": "SIRST"}},
            "dataset": {"name": "SIRST", "lists": "50_50", "split": "test"},
        }  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(report))
    text = table(find_results([tmp_path]))
    assert (
        text.splitlines()[0]
        == "lists 50_50; split test; input 64; protocol native; +-: standard deviation of runs"
    )
    assert text.splitlines()[2].split() == [
        "datransnet",
        "SIRST",
        "SIRST",
        "a_1",
        "50.00",
        "25.00",
        "-",
        "100.00",
        "2.00",
    ]
    assert "| datransnet | SIRST | SIRST | b | 50.00 |" in table(find_results([tmp_path]), "markdown")

    latex = table(find_results([tmp_path]), "latex")
    assert r"datransnet & SIRST & SIRST & a\_1 & 50.00 & 25.00 & - & 100.00 & 2.00 \\" in latex
    assert r"IoU \%" in latex
    assert r"mean of 2 & 50.00 $\pm$ 0.00" in latex


def test_an_absent_test_set_is_told_before_the_training(sets, tmp_path, capsys):
    words = [
        "dataset=sirst",
        "test_on=[irstd_1k]",
        "--data_path",
        str(sets),
        "--save_dir",
        str(tmp_path / "r"),
        *SPL,
    ]
    with pytest.raises(SystemExit):
        run(["train", *words])
    assert "no folder named IRSTD-1k" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
