"""What a user names becomes files: which ones, in which order, and names for what comes out."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_spl.errors import InputError
from sam_spl.predict.frames import expected_frames, read
from sam_spl.predict.inputs import list_files, name_sources, natural, shown

GREY = np.random.default_rng(5).integers(0, 256, (40, 56), dtype=np.uint8)


def named(*words: Path | str, known: dict[str, str] | None = None, output: Path = Path("out")) -> list[str]:
    files, problems = list_files([str(word) for word in words], output)
    assert not problems
    return [source.name for source in name_sources(files, known or {})]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_folder_is_searched_in_the_order_of_numbers_without_hidden_files(tmp_path):
    touch(tmp_path, "f10.png", "f2.PNG", "b/f1.tif", "notes.txt", ".hidden.png", ".git/x.png", "b/v.mp4")
    assert named(tmp_path) == ["f2", "f10", "b/f1", "b/v"]
    assert named(tmp_path / "b") == ["f1", "v"]
    assert named(tmp_path / "b/f1.tif") == ["f1"]


def test_names_are_relative_to_what_several_words_have_in_common(tmp_path):
    touch(tmp_path, "x/a.png", "x/deep/b.png", "y/a.png")
    assert named(tmp_path / "x", tmp_path / "y") == ["x/a", "x/deep/b", "y/a"]
    assert named(tmp_path / "*" / "a.png") == ["x/a", "y/a"]
    assert named(tmp_path / "x", tmp_path / "x" / "a.png") == ["x/a", "x/deep/b"]  # once


def test_a_pattern_is_searched_and_a_name_that_looks_like_one_is_taken_as_it_is(tmp_path, monkeypatch):
    touch(tmp_path, "frame [1].png", "frame 1.png", "f (2, 3).png", "ночь.png", "sub/夜.png")
    assert named(tmp_path / "frame [1].png") == ["frame [1]"]
    assert named(tmp_path / "f*.png") == ["f (2, 3)", "frame 1", "frame [1]"]
    assert named(f"{tmp_path}/**/*.png") == ["f (2, 3)", "frame 1", "frame [1]", "ночь", "sub/夜"]
    monkeypatch.chdir(tmp_path / "sub")
    assert named("..", output=tmp_path / "sub/out") == [
        "f (2, 3)", "frame 1", "frame [1]", "ночь", "sub/夜",
    ]  # fmt: skip
    assert named("../*1.png") == ["frame 1"]


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"there is no file, folder or pattern '.*nowhere\.png'"):
        named(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match="no image or video in"):
        named(touch(tmp_path, "notes.txt"))


def test_two_files_of_one_stem_have_two_names(tmp_path):
    touch(tmp_path, "a.png", "a.jpg", "A.bmp", "b/a.png", "c.png")
    assert named(tmp_path) == ["A.bmp", "a.jpg", "a.png", "c", "b/a"]


def test_frames_of_a_video_have_a_folder_that_no_image_lies_in(tmp_path):
    touch(tmp_path, "v.mp4", "v/000000.png", "w.png/x.png", "w.jpg")
    assert named(tmp_path) == ["v.mp4", "w", "v/000000", "w.png_/x"]
    known = {str(tmp_path / "v.mp4"): "v"}  # of a run before the folder was there
    assert named(tmp_path, known=known) == ["v", "w", "v_000000.png", "w.png_/x"]


def test_a_name_of_an_earlier_run_stays_and_is_nobody_elses(tmp_path):
    touch(tmp_path, "a.png", "a.jpg")
    known = {str(tmp_path / "a.png"): "a", "/gone/a.jpg.png": "a.jpg"}
    assert named(tmp_path, known=known) == ["a.jpg~2", "a"]


def test_names_can_be_written_anywhere(tmp_path):
    long = "n" * 240
    touch(tmp_path, f"{long}.png", f"{'é' * 120}.png")
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.png", "wb"):
        pass
    names = named(tmp_path)
    assert len(set(names)) == 3
    assert all(len(name.encode()) <= 185 for name in names)
    assert "��" in names


def test_names_of_outputs_are_one_line_and_no_formula(tmp_path):
    """Spreadsheets run what begins so, and a line feed would end a row of the table for many tools."""
    touch(
        tmp_path,
        "=1+1.png",
        "+a.png",
        "-a.png",
        "@a.png",
        "b/=c.png",
        "a=b.png",
        "new\nline.png",
        "e\x1b.png",
    )
    names = named(tmp_path)
    assert sorted(names) == ["_+a", "_-a", "_=1+1", "_@a", "a=b", "b/=c", "e_", "new_line"]
    touch(tmp_path, "new_line.png", "_-a.png")
    assert len({name.casefold() for name in named(tmp_path)}) == 10


def test_names_that_are_no_text_stay_apart_and_a_video_of_such_a_name_is_refused(tmp_path):
    for name in (b"\xff.png", b"\xfe.png", b"\xff.mp4"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as stream:
            stream.write(cv2.imencode(".png", GREY)[1].tobytes())
    files, _ = list_files([str(tmp_path)], tmp_path / "out")
    sources = name_sources(files, {})
    assert len({source.name for source in sources}) == 3
    assert all(shown(source.name) == source.name for source in sources)
    stills = [source for source in sources if source.path.suffix == ".png"]
    for source in stills:
        np.testing.assert_array_equal(next(read(source)).image, GREY)
    (film,) = (source for source in sources if source not in stills)
    with pytest.raises(InputError, match="not UTF-8, by which a video cannot be opened"):
        list(read(film))
    assert expected_frames(film) == 1


def test_pictures_of_a_run_into_another_folder_are_no_input(tmp_path):
    touch(tmp_path, "a.png", "found/masks/a.png", "found/overlays/v.mp4", "found/prob/a.png", "found/b.png")
    assert len(named(tmp_path)) == 5
    touch(tmp_path, "found/predict.json", "found/parts/0.jsonl")
    assert named(tmp_path) == ["a", "found/b"]
    assert named(tmp_path / "found/masks") == ["a"]  # unless they are asked for


def test_what_the_output_folder_holds_is_no_input(tmp_path):
    touch(tmp_path, "a.png", "out/masks/a.png", "out/own.png", "masks/a.png", "deep/a.png")
    (tmp_path / "deep/link.png").symlink_to(tmp_path / "out/own.png")
    (tmp_path / "deep/again").symlink_to(tmp_path)  # a circle
    assert named(tmp_path, output=tmp_path / "out") == ["a", "deep/a", "masks/a"]
    assert named(tmp_path, output=tmp_path / "deep/../out") == ["a", "deep/a", "masks/a"]
    assert named(tmp_path, output=tmp_path) == ["a", "deep/a", "deep/link", "out/own", "out/masks/a"]
    assert named(tmp_path / "out", output=tmp_path) == ["own", "masks/a"]


def test_patterns_find_what_the_search_of_a_folder_finds(tmp_path, monkeypatch):
    """Each file once where links lead in circles, and none of predict's pictures."""
    touch(tmp_path, "a.png", "b/x1.png", "b/x2.tif", "b/c/x3.png", "b/.h/x4.png", "out/masks/x5.png", "n.txt")
    for name in ("b/up", "b/c/top"):
        (tmp_path / name).symlink_to(tmp_path)  # two circles: 2^40 ways round
    out = tmp_path / "out"
    assert named(f"{tmp_path}/**/*.png", output=out) == ["a", "b/x1", "b/c/x3"]
    assert named(f"{tmp_path}/**/x?.*", output=out) == ["x1", "x2", "c/x3"]  # of what they have in common
    assert named(f"{tmp_path}/b/**", output=out) == ["x1", "x2", "c/x3", "c/top/a"]
    assert named(f"{tmp_path}/**/c", output=out) == ["x3"]
    assert named(f"{tmp_path}/*/**/c/*", output=out) == ["x3", "top/a"]
    assert named(f"{tmp_path}/b/*.png", output=out) == ["x1"]
    monkeypatch.chdir(tmp_path)
    assert named("**/*.png", output=out) == ["a", "b/x1", "b/c/x3"]
    assert named("**/n.txt", output=out) == ["n"]  # said to be no image, later
    with pytest.raises(InputError, match="no file, folder or pattern"):
        named(f"{tmp_path}/out/masks/*.png", output=out)
    assert named(f"{tmp_path}/out/masks/*.png", output=tmp_path / "other") == ["x5"]


def test_natural_order():
    names = ["f10", "f2", "f1b", "f", "10", "9", "f02"]
    assert sorted(names, key=natural) == ["9", "10", "f", "f1b", "f02", "f2", "f10"]
