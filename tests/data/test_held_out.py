"""Which images are new to weights: whatever lists they are opened with, no training image is among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam_spl.data.catalog import open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.data.held_out import held_out
from sam_spl.errors import InputError
from tests.conftest import write_folder


def config(root: Path, lists: str | None = None, title: str = "SIRST") -> DatasetConfig:
    return DatasetConfig.named("custom", title=title, data_path=str(root), lists=lists)


def described(of: DatasetConfig, selected_by: str = "last epoch", **drawn) -> dict:
    """The description of weights that were trained on a set, as training writes it."""
    data = open_dataset(of, **{f"val_{key}" if key == "share" else key: drawn[key] for key in drawn})
    trained_on = {"dataset": data.title, "lists": data.lists, "sets": data.training_lists}
    trained_on |= {"fingerprint": data.parts["train"].fingerprint, "samples": data.training_samples}
    if drawn:
        trained_on["held_out"] = drawn
    return {"trained_on": trained_on, "selected_by": selected_by}


def numbers(found) -> list[int]:
    return sorted(int(item.name.removeprefix("im_")) for item in found.part.items)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve images and two splits of them."""
    folder = write_folder(tmp_path / "set", 12)
    splits = {
        "half": {"train": range(6), "test": range(6, 12)},
        "third": {"train": [0, 1, 6, 7], "val": [2, 3, 8, 9], "test": [4, 5, 10, 11]},
    }
    for name, roles in splits.items():
        (folder / name).mkdir()
        for role, images in roles.items():
            (folder / name / f"{role}.txt").write_text("\n".join(f"im_{k}" for k in images))
    return folder


def test_images_that_other_lists_have_trained_on_are_left_out(root):
    weights = described(config(root, "half"))
    found = held_out(config(root, "third"), "val", weights, seed=0)
    assert (numbers(found), found.trained, found.chose) == ([8, 9], 2, 0)
    assert len(found.part.open()) == found.part.count == 2
    found = held_out(config(root, "third"), "all", weights, seed=0)
    assert (numbers(found), found.trained) == ([6, 7, 8, 9, 10, 11], 6)
    assert numbers(held_out(config(root, "half"), "test", weights, seed=0)) == [6, 7, 8, 9, 10, 11]
    with pytest.raises(InputError, match=r"^split: these weights were trained on all of the 6 train images"):
        held_out(config(root, "half"), "train", weights, seed=0)


def test_images_that_chose_the_weights_are_counted(root):
    third = config(root, "third")
    by_val = described(third, "IoU on the val images")
    assert held_out(third, "val", by_val, seed=0).chose == 4
    found = held_out(config(root, "half"), "test", by_val, seed=0)
    assert (numbers(found), found.trained, found.chose) == ([8, 9, 10, 11], 2, 2)
    assert held_out(third, "test", described(third, "IoU on the test images"), seed=0).chose == 4
    assert held_out(third, "val", described(third), seed=0).chose == 0


def test_images_that_training_drew_from_its_list_are_validation_images(root):
    half = config(root, "half")
    weights = described(half, "IoU on the val images", share=0.34, seed=5)
    drawn = open_dataset(half, val_share=0.34, seed=5).parts["val"]
    found = held_out(half, "val", weights, seed=0)
    assert found.part.items == drawn.items
    assert (found.part.count, found.trained, found.chose) == (2, 0, 2)
    found = held_out(half, "all", weights, seed=0)
    assert (found.part.count, found.trained, found.chose) == (8, 4, 2)

    other = {**weights, "trained_on": weights["trained_on"] | {"held_out": {"share": 0.34, "seed": 6}}}
    assert open_dataset(half, val_share=0.34, seed=6).parts["val"].items != drawn.items
    assert held_out(half, "all", other, seed=0).trained == 6  # cannot be drawn again: none of the list
    with pytest.raises(InputError, match=r"\(lists half\) has no val images\. Choose another split"):
        held_out(half, "val", other, seed=0)


def test_what_cannot_be_known_is_refused(root):
    weights = described(config(root, "half"))
    for path in (root / "half").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"with lists half, and no lists in .* cannot be known"):
        held_out(config(root), "test", weights, seed=0)
    other = held_out(config(root, title="another"), "test", weights, seed=0)
    assert (other.part.count, other.trained, other.stated) == (4, 0, True)  # of a set with another name


def test_a_folder_without_lists_is_known_by_its_images(tmp_path):
    folder = write_folder(tmp_path / "mine", 12)
    own = config(folder, title="custom")
    weights = described(own)
    test = {item.name for item in open_dataset(own).parts["test"].items}
    (folder / "images/im_0.png").rename(folder / "images/im_x.png")
    (folder / "masks/im_0.png").rename(folder / "masks/im_x.png")  # the list of names is another one now
    found = held_out(own, "all", weights, seed=0)
    assert {item.name for item in found.part.items} - {"im_x"} == test - {"im_0"}
    write_folder(tmp_path / "other", 5, size=(40, 48))  # of the same names
    assert held_out(config(tmp_path / "other", title="custom"), "all", weights, seed=0).trained == 0


def test_weights_that_state_nothing_leave_nothing_out(root):
    found = held_out(config(root, "half"), "test", {}, seed=0)
    assert (found.part.count, found.stated) == (6, False)


def test_generated_training_images_are_not_known_by_name():
    generated = DatasetConfig.named("synthetic")
    weights = {"trained_on": {"dataset": generated.title}, "selected_by": "IoU on the val images"}
    found = held_out(generated, "val", weights, seed=0)
    assert found.chose == found.part.count > 0
    assert held_out(generated, "test", weights, seed=0).chose == 0
    with pytest.raises(InputError, match="trained on generated images"):
        held_out(generated, "all", weights, seed=0)
