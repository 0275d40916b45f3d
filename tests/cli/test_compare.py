"""The command that compares results: sides, and what counts once."""

from __future__ import annotations

import json
import shlex

import pytest

from sam_spl.cli.compare import CompareConfig, compare
from sam_spl.errors import ConfigError, InputError
from tests.results.test_compare import result


def _compare(*runs, **more) -> None:
    compare(CompareConfig(runs=[str(run) for run in runs], **more))


def test_sides_are_found_or_named_and_a_result_counts_once(tmp_path, capsys):
    for name, seed, noise in (("a-1", 1, 0.01), ("a-2", 2, 0.01), ("b-1", 3, 0.04), ("b-2", 4, 0.04)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(result(name, seed, noise)))
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "results.json").write_text((tmp_path / "a-1" / "results.json").read_text())
    a, b = ([tmp_path / f"{name}-1", tmp_path / f"{name}-2"] for name in "ab")

    _compare(tmp_path, paired=True)
    found = capsys.readouterr()
    assert found.err.strip() == "counted once: /x/a-1/best.pt repeats /x/a-1/best.pt on SIRST"
    assert "P(A better)" in found.out
    _compare(*a, against=[str(run) for run in b])
    assert capsys.readouterr().out == found.out
    _compare(*a, tmp_path / "twice", paired=True)  # two different ones are left
    assert "these two weights only" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="1 results of 1 settings; it takes two"):
        _compare(a[0], paired=True)


def _tested(folder, name, seed, *, tested_on):
    report = result(name, seed, 0.01)
    report["dataset"] |= {"name": tested_on, "fingerprint": tested_on}
    if tested_on == "NUDT-SIRST":
        for row in report["images"]:
            row["name"] = f"nudt_{row['name']}"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(report))
    return folder


def test_of_runs_with_several_tests_the_folders_to_choose_from_are_named(tmp_path, capsys):
    sirst, nudt = (
        [
            _tested(tmp_path / run / f"test-{name}", run, seed, tested_on=name)
            for run, seed in (("a", 1), ("b 2", 2))
        ]
        for name in ("SIRST", "NUDT-SIRST")
    )
    a, b = tmp_path / "a", tmp_path / "b 2"
    said = "A run with several tests is named by the folder of one of them: "
    with pytest.raises(ConfigError, match="4 results of 4 settings; it takes two results") as error:
        _compare(a, b, paired=True)
    folders = shlex.split(str(error.value).partition(said)[2])
    assert sorted(folders) == sorted(map(str, [*sirst, *nudt]))
    _compare(*(folder for folder in folders if "SIRST" in folder and "NUDT" not in folder), paired=True)
    assert "a minus b 2 on 9 images" in capsys.readouterr().out  # as the message says

    with pytest.raises(InputError, match=f"of different images .*{said}{sirst[0]}|{nudt[0]}"):
        _compare(a, paired=True)
    with pytest.raises(ConfigError, match=f"of 2 settings.*{said}.*{nudt[0]}"):
        _compare(a, against=[str(b)])
    with pytest.raises(InputError, match=r"of different images") as error:
        _compare(sirst[0], nudt[1], paired=True)
    assert said not in str(error.value)  # each has one


def test_what_is_not_there_and_unknown_forms_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no results\.json there\. Test first: sam-spl test --dataset"):
        _compare(tmp_path / "nowhere")
    with pytest.raises(
        ConfigError, match="format: word is not valid, choose one of text, markdown, latex, html, csv"
    ):
        CompareConfig(runs=["a"], format="word")


def test_networks_are_ranked_by_their_runs(tmp_path, capsys):
    for name, seed, noise in (("a-1", 1, 0.01), ("a-2", 2, 0.01), ("b-1", 3, 0.2), ("b-2", 4, 0.2)):
        report = result(name, seed, noise, images=60)
        report["weights"]["title"] = name[0]
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(report))
    fixed = result("c", 5, 0.2, images=60)
    fixed["weights"] = {"file": "/configs/model/c.yaml", "model": "c", "trainable": False}
    (tmp_path / "c.json").write_text(json.dumps(fixed))

    _compare(tmp_path, tmp_path / "c.json", rank="fa", picture=str(tmp_path / "ranking.png"))
    shown = capsys.readouterr().out.partition("\nranking by ")[2].splitlines()
    assert shown[0] == "Fa on SIRST, 60 images, protocol native; in brackets: 95 % intervals"
    places = [line.split() for line in shown[2:5]]
    assert places[0][:3] == ["1", "a", "2"]
    assert {tuple(place[1:3]) for place in places[1:]} == {("b", "2"), ("c", "1")}
    assert places[0][-3:] == ["2,", "3", "-"]  # better than both
    assert [place[-2:] for place in places[1:]] == [["-", "3"], ["-", "2"]]
    assert shown[5].startswith("The data support the order of 2 of 3 pairs")
    assert (tmp_path / "ranking.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ConfigError, match=r"--rank: 2 results of one network"):
        _compare(tmp_path / "a-1", tmp_path / "a-2", rank="iou")
    with pytest.raises(ConfigError, match=r"picture: shows a ranking\. Add --rank iou"):
        _compare(tmp_path, picture="x.png")
    with pytest.raises(ConfigError, match="is no picture"):
        _compare(tmp_path, rank="iou", picture=str(tmp_path / "x.doc"))
