"""Files: found, read without unpickling, written whole."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch

import sam_spl
from sam_spl.errors import InputError
from sam_spl.weights import formats
from sam_spl.weights.formats import find_weights, read_weights, save_weights


@pytest.mark.parametrize("nothing", ["", " "])
def test_no_name_is_not_the_current_folder(tmp_path, monkeypatch, nothing):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"^weights: no file is named\. Give a weights file or a run folder\.$"
    ):
        read_weights(nothing)
    with pytest.raises(InputError, match=r"\. is a folder without"):
        read_weights(".")


def test_weights_that_come_along_are_found_by_name(tmp_path, monkeypatch, tiny):
    along, here = tmp_path / "along", tmp_path / "here"
    description = {**sam_spl.models.registry.built_from(tiny), "mean": [0.5], "std": [0.5], "image_size": 64}
    file = save_weights(along / "net-sirst.safetensors", tiny.state_dict(), description)
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(formats, "weights_folder", lambda: along)
    assert find_weights("net-sirst") == file
    with pytest.raises(InputError, match=r"no file other .* a run folder, or one of net-sirst\.$"):
        find_weights("other")
    own = save_weights(here / "net-sirst", tiny.state_dict(), description)  # what lies here comes first
    assert find_weights("net-sirst").resolve() == own.resolve()


def test_tensors_without_one_shape_are_no_state_dict(tmp_path, tiny):
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    torch.save({**tiny.state_dict(), "decoder.heads.0.bias": nested}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="no plain state dict"):
        sam_spl.load_weights(tiny, tmp_path / "w.pt")


class _Bomb:
    def __reduce__(self):
        return print, ("the bomb went off",)


def _bomb(path):
    path.write_bytes(pickle.dumps({"model": _Bomb()}))


def _zipped_bomb(path):
    torch.save({"model": _Bomb()}, path)


def _truncated(path):
    torch.save({"weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:1500])


def _truncated_safetensors(path):
    save_weights(path, {"weight": torch.zeros(1000)}, {})
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.pt", _bomb, "pickled code"),
        ("w.pt", _zipped_bomb, "pickled code"),
        ("w.pt", _truncated, "damaged, truncated"),
        ("w.safetensors", _truncated_safetensors, "damaged, truncated"),
        ("w.pt", lambda path: path.write_bytes(b""), "damaged, truncated"),
        ("w.pt", lambda path: path.write_text("hello"), "damaged, truncated"),
        ("w.pt", lambda path: torch.save([1, 2], path), "no weights"),
        ("w.pt", lambda path: torch.save({"a": 1}, path), "no plain state dict"),
        ("w.pt", lambda path: torch.save({1: torch.zeros(1)}, path), "no weights"),
        ("w.pt", lambda path: None, "no file"),
        ("w", lambda path: path.mkdir(), "without best.safetensors"),
    ],
)
def test_files_that_are_no_weights_end_in_one_message_and_run_nothing(tmp_path, capsys, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / name)
    assert "bomb went off" not in capsys.readouterr().out


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])  # of NumPy 1 and 2
def test_numpy_numbers_beside_tensors_are_left_out_and_numpys_code_is_not_run(tmp_path, module):
    content = {"state_dict": {"w": torch.ones(2)}, "mean_IOU": np.float64(0.67), "epoch": np.int64(3)}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    written = (tmp_path / "w.pt").read_bytes()
    named, count = re.subn(rb"numpy\._?core(?=\.multiarray\n)", module, written)
    assert count == 1  # the second number refers to the first's
    (tmp_path / "w.pt").write_bytes(named)
    assert torch.equal(read_weights(tmp_path / "w.pt").state["w"], torch.ones(2))
    loaded = formats.read_torch(tmp_path / "w.pt")
    assert {type(loaded[key]).__module__ for key in ("mean_IOU", "epoch")} == {formats.__name__}


def test_what_is_no_number_is_no_weight_and_runs_nothing(tmp_path, capsys):
    torch.save({"state_dict": {"w": torch.ones(2)}, "iou": np.array([_Bomb()], object)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="pickled code"):
        read_weights(tmp_path / "a.pt")
    assert "bomb went off" not in capsys.readouterr().out
    torch.save({"w": torch.ones(2), "iou": np.float64(0.67)}, tmp_path / "b.pt")
    with pytest.raises(InputError, match=r"no plain state dict \(first keys: w, iou\)"):
        read_weights(tmp_path / "b.pt")


def test_a_failed_write_leaves_neither_file_nor_remains(tmp_path, tiny):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save_weights(tmp_path / "file" / "w.pt", tiny.state_dict(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
