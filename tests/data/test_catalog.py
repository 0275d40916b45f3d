"""Every published layout, as a small copy on disk, read through the catalogue by the set's names."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_spl.data.catalog import group_names, groups_of, locate, open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.data.known import dataset_file, dataset_named
from sam_spl.errors import ConfigError, InputError
from tests.conftest import ROOT, write_folder

SETS = sorted(path.stem for path in (ROOT / "configs" / "dataset").glob("*.yaml"))

#: data set, image path, mask path (both of a name), names to train on and to test on, lists: path -> role
LAYOUTS = {
    "NUDT-SIRST, img_idx": (
        "NUDT-SIRST",
        "NUDT-SIRST/images/{}.png",
        "NUDT-SIRST/masks/{}.png",
        {
            "NUDT-SIRST/img_idx/train_NUDT-SIRST.txt": "train",
            "NUDT-SIRST/img_idx/test_NUDT-SIRST.txt": "test",
        },
    ),
    "NUDT-SIRST, 50_50": (
        "nudt_sirst",
        "NUDT-SIRST/images/{}.png",
        "NUDT-SIRST/masks/{}.png",
        {"NUDT-SIRST/50_50/train.txt": "train", "NUDT-SIRST/50_50/test.txt": "test"},
    ),
    "NUDT-SIRST, split folders": (
        "nudt",
        "nudt_sirst/{role}/images/{}.png",
        "nudt_sirst/{role}/masks/{}.png",
        {},
    ),
    "IRSTD-1k, its own folders, lists at the root": (
        "IRSTD-1k",
        "IRSTD-1k/IRSTD1k_Img/{}.png",
        "IRSTD-1k/IRSTD1k_Label/{}.png",
        {"IRSTD-1k/trainval.txt": "train", "IRSTD-1k/test.txt": "test"},
    ),
    "IRSTD-1k, img_idx": (
        "irstd1k",
        "IRSTD-1K/images/{}.png",
        "IRSTD-1K/masks/{}.png",
        {"IRSTD-1K/img_idx/train_IRSTD-1K.txt": "train", "IRSTD-1K/img_idx/test_IRSTD-1K.txt": "test"},
    ),
    "IRSTDID-SKY, capitals in one more folder": (
        "IRSTDID-SKY",
        "IRSTDID-800/IRSTDID-SKY/Images/{}.png",
        "IRSTDID-800/IRSTDID-SKY/Masks/{}.png",
        {"IRSTDID-800/IRSTDID-SKY/train.txt": "train", "IRSTDID-800/IRSTDID-SKY/test.txt": "test"},
    ),
    "NUDT-Sea, idx_4961+847": (
        "NUDT-Sea",
        "NUDT-SIRST-Sea/images/{}.png",
        "NUDT-SIRST-Sea/masks/{}.png",
        {"NUDT-SIRST-Sea/idx_4961+847/train.txt": "train", "NUDT-SIRST-Sea/idx_4961+847/test.txt": "test"},
    ),
    "SIRST, _pixels0 and idx_427": (
        "SIRST",
        "SIRST/images/{}.png",
        "SIRST/masks/{}_pixels0.png",
        {"SIRST/idx_427/trainval.txt": "train", "SIRST/idx_427/test.txt": "test"},
    ),
    "SIRST as NUAA-SIRST, img_idx": (
        "NUAA-SIRST",
        "NUAA-SIRST/images/{}.png",
        "NUAA-SIRST/masks/{}.png",
        {
            "NUAA-SIRST/img_idx/train_NUAA-SIRST.txt": "train",
            "NUAA-SIRST/img_idx/test_NUAA-SIRST.txt": "test",
        },
    ),
    "SIRST v2": (
        "sirst-v2",
        "SIRSTv2/mixed/{}.png",
        "SIRSTv2/annotations/masks/{}_pixels0.png",
        {"SIRSTv2/splits/train_full.txt": "train", "SIRSTv2/splits/test_full.txt": "test"},
    ),
    "SIRST-Aug, split folders": (
        "SIRST-aug",
        "sirst_aug/{role}/images/{}.png",
        "sirst_aug/{role}/masks/{}_mask.png",
        {},
    ),
    "SIRST-Aug, masks among the images": (
        "SIRSTAUG",
        "SIRST-Aug/images/{}.png",
        "SIRST-Aug/images/{}_mask.png",
        {"SIRST-Aug/trainval.txt": "train", "SIRST-Aug/test.txt": "test"},
    ),
    "SIRST-Aug, all at the root": (
        "SIRST-Aug",
        "SIRST-Aug/{}.png",
        "SIRST-Aug/{}_mask.png",
        {"SIRST-Aug/train.txt": "train", "SIRST-Aug/test.txt": "test"},
    ),
    "IRDST, nested BMP with brackets": (
        "IRDST",
        "IRDST/images/44/1({}).bmp",
        "IRDST/masks/44/1({}).png",
        {"IRDST/train.txt": "train", "IRDST/test.txt": "test"},
    ),
    "one's own": (
        "custom",
        "images/{} of (1).jpeg",
        "masks/{} of (1)_label.tif",
        {"train.txt": "train", "test.txt": "test"},
    ),
}
STEMS = {"train": ["000001", "Misc_111", "a b"], "test": ["000002", "XDU7"]}


def _draw(index: int, size: tuple[int, int] = (40, 56)) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros(size, np.uint8)
    mask[5 + index : 8 + index, 10:13] = 255
    return np.where(mask, 230, 40 + index).astype(np.uint8), mask


def build(root: Path, layout: str) -> str:
    """Write a small copy; the data set's name on the command line."""
    name, image, mask, lists = LAYOUTS[layout]
    for role, stems in STEMS.items():
        for index, stem in enumerate(stems):
            for pattern, content in zip((image, mask), _draw(index), strict=True):
                path = root / pattern.format(stem, role="trainval" if role == "train" else role)
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), content)
    below = image.partition("images/")[2] or image.rpartition("/")[2]
    for path, role in lists.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(
            "\n".join(Path(below.format(stem)).with_suffix("").as_posix() for stem in STEMS[role])
        )
    return name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_is_read_as_it_is(tmp_path, layout):
    data = open_dataset(DatasetConfig.named(build(tmp_path, layout), data_path=str(tmp_path)))
    assert {role: part.count for role, part in data.parts.items()} == {"train": 3, "val": 0, "test": 2}
    for role, stems in STEMS.items():
        source = data.part(role).open()
        for index, stem in enumerate(stems):
            position = next(k for k in range(len(source)) if stem in source.name(k))
            image, mask = source.load(position)
            drawn, expected = _draw(index)
            np.testing.assert_array_equal(mask, expected > 0)
            np.testing.assert_allclose(image, drawn, atol=40)  # JPEG


@pytest.mark.parametrize(
    ("title", "spellings"),
    [
        ("NUDT-SIRST", ["nudt-sirst", "NUDT_SIRST", "nudt"]),
        ("IRSTD-1k", ["IRSTD-1K", "IRSTD1k", "irstd_1k"]),
        ("IRSTDID-SKY", ["irstdid-sky", "IRSTDID-800"]),
        ("NUDT-Sea", ["NUDT-SIRST-Sea", "NUDT-sea"]),
        ("SIRST", ["sirst", "SIRST-v1", "NUAA-SIRST"]),
        ("SIRST-v2", ["sirst_v2", "SIRSTv2", "SIRST V2"]),
        ("SIRST-Aug", ["SIRST-aug", "sirstaug"]),
        ("IRDST", ["irdst"]),
        ("SIRST3", ["sirst3"]),
    ],
)
def test_sets_go_by_names_and_aliases_in_any_case(title, spellings):
    assert {str(DatasetConfig.named(name).title) for name in (title, *spellings)} == {title}


@pytest.mark.parametrize("stem", SETS)
def test_no_two_sets_share_a_name(stem):
    config = dataset_file(stem)
    assert {dataset_named(str(name)) for name in (stem, config["title"], *config.get("aliases", []))} == {
        stem
    }


def test_pictures_beside_the_sets_do_not_hide_them(tmp_path):
    name = build(tmp_path, "NUDT-SIRST, 50_50")
    for suffix in ("png", "jpg"):
        cv2.imwrite(str(tmp_path / f"overview.{suffix}"), _draw(0)[0])
        cv2.imwrite(str(tmp_path / "NUDT-SIRST" / f"overview.{suffix}"), _draw(0)[0])
    assert open_dataset(DatasetConfig.named(name, data_path=str(tmp_path))).part("train").count == 3


def test_a_union_is_not_one_folder():
    with pytest.raises(
        ConfigError, match=r"sirst3 is a union of sets\. Use them one by one: sirst, nudt_sirst, irstd_1k"
    ):
        locate(DatasetConfig.named("sirst3"))


def test_the_odd_mask_of_sirst_is_resized_and_any_other_is_an_error(tmp_path):
    name = build(tmp_path, "SIRST, _pixels0 and idx_427")
    masks = tmp_path / "SIRST" / "masks"
    cv2.imwrite(
        str(masks / "Misc_111_pixels0.png"),
        cv2.resize(_draw(1)[1], (112, 80), interpolation=cv2.INTER_NEAREST),
    )
    config = DatasetConfig.named(name, data_path=str(tmp_path))
    source = open_dataset(config).part("train").open()
    np.testing.assert_array_equal(source.load(1)[1], _draw(1)[1] > 0)

    cv2.imwrite(str(masks / "000001_pixels0.png"), np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match=r"000001_pixels0.png is 8x8, .* dataset\.odd_masks=\[000001\]"):
        open_dataset(config).part("train").open()


def test_the_default_split_is_taken_where_there_are_several(tmp_path):
    name = build(tmp_path, "SIRST, _pixels0 and idx_427")
    other = tmp_path / "SIRST" / "50_50"
    other.mkdir()
    (other / "train.txt").write_text("000001\na b\n")
    (other / "test.txt").write_text("XDU7\n")
    assert open_dataset(DatasetConfig.named(name, data_path=str(tmp_path))).lists == "50_50"
    other.rename(other.with_name("mine"))
    with pytest.raises(InputError, match=r"2 splits \(idx_427, mine\)"):
        open_dataset(DatasetConfig.named(name, data_path=str(tmp_path)))


def test_equal_lists_in_two_folders_are_one_split(tmp_path):
    name = build(tmp_path, "NUDT-SIRST, img_idx")
    root = tmp_path / "NUDT-SIRST"
    (root / "50_50").mkdir()
    for role, stems in STEMS.items():
        (root / "50_50" / f"{role}.txt").write_text("".join(f"{stem}.png\r\n" for stem in stems[::-1]))
    assert open_dataset(DatasetConfig.named(name, data_path=str(tmp_path))).part("test").count == 2


def test_several_splits_of_one_folder_are_told_apart_by_their_endings(tmp_path):
    name = build(tmp_path, "SIRST v2")
    splits = tmp_path / "SIRSTv2" / "splits"
    (splits / "train_v1.txt").write_text("000001")
    (splits / "test_v1.txt").write_text("XDU7")
    config = DatasetConfig.named(name, data_path=str(tmp_path))
    assert open_dataset(config).part("train").count == 3  # full is the default
    config.lists = "splits/v1"
    assert open_dataset(config).part("train").count == 1


@pytest.mark.parametrize("missing", ["error", "skip"])
def test_a_set_found_in_part_stops_or_is_counted(tmp_path, missing):
    name = build(tmp_path, "NUDT-SIRST, 50_50")
    root = tmp_path / "NUDT-SIRST"
    (root / "images" / "000001.png").unlink()
    (root / "masks" / "XDU7.png").unlink()
    config = DatasetConfig.named(name, data_path=str(tmp_path), missing=missing)
    if missing == "error":
        with pytest.raises(InputError) as error:
            open_dataset(config)
        assert "train.txt names 1 of 3 images that are not there, first 000001" in str(error.value)
        assert "1 of 2 images in" in str(error.value)
        assert "have no mask, first XDU7" in str(error.value)
    else:
        data = open_dataset(config)
        assert (data.part("train").count, data.part("test").count) == (2, 1)
        assert data.skipped == ("000001", "XDU7")


def test_images_that_no_list_names_need_no_mask(tmp_path):
    name = build(tmp_path, "IRSTDID-SKY, capitals in one more folder")
    cv2.imwrite(str(tmp_path / "IRSTDID-800" / "IRSTDID-SKY" / "Images" / "0501.png"), _draw(0)[0])
    assert open_dataset(DatasetConfig.named(name, data_path=str(tmp_path))).part("train").count == 3


def test_a_frame_is_not_taken_for_the_same_frame_of_another_sequence(tmp_path):
    for sequence in ("44", "45"):
        for kind in ("images", "masks"):
            (tmp_path / kind / sequence).mkdir(parents=True)
            for frame in (1, 2):
                path = tmp_path / kind / sequence / f"1({frame}).bmp"
                cv2.imwrite(str(path), _draw(frame)[kind == "masks"])
    (tmp_path / "train.txt").write_text("44/1(1)\n45/1(2)\n")
    (tmp_path / "test.txt").write_text("44/1(2)\n")
    (tmp_path / "masks" / "44" / "1(1).bmp").unlink()
    (tmp_path / "images" / "45" / "1(2).bmp").unlink()
    data = open_dataset(DatasetConfig.named("custom", data_path=str(tmp_path), missing="skip"))
    assert data.skipped == ("45/1(2)", "44/1(1)")
    assert data.part("test").open().name(0) == "44/1(2)"


@pytest.mark.parametrize(("image", "mask"), [("44/a", "a"), ("a", "44/a")])
def test_images_or_masks_alone_may_lie_in_folders(tmp_path, image, mask):
    for kind, name in (("images", image), ("masks", mask)):
        for stem in ("a", "b"):
            path = tmp_path / kind / f"{name.replace('a', stem)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), _draw(0)[kind == "masks"])
    (tmp_path / "train.txt").write_text("a")
    (tmp_path / "test.txt").write_text("images/" + image.replace("a", "b"))
    data = open_dataset(DatasetConfig.named("custom", data_path=str(tmp_path)))
    assert (data.part("train").count, data.part("test").open().name(0)) == (1, image.replace("a", "b"))


def test_names_that_differ_in_their_suffix_only_are_an_error(tmp_path):
    name = build(tmp_path, "NUDT-SIRST, 50_50")
    cv2.imwrite(str(tmp_path / "NUDT-SIRST" / "images" / "000001.bmp"), _draw(0)[0])
    with pytest.raises(InputError, match=r"000001\.bmp and 000001\.png differ in their suffix only"):
        open_dataset(DatasetConfig.named(name, data_path=str(tmp_path)))


def test_a_union_holds_the_images_of_its_members_under_their_names(tmp_path):
    for layout in ("NUDT-SIRST, 50_50", "SIRST, _pixels0 and idx_427"):
        build(tmp_path, layout)
    config = DatasetConfig.named("union", members=["sirst", "NUDT-SIRST"], data_path=str(tmp_path))
    assert (config.title, config.mean) == ("SIRST+NUDT-SIRST", [0.485, 0.456, 0.406])
    data = open_dataset(config)
    source = data.part("train").open()
    assert [source.name(k) for k in range(6)] == [
        f"{title}/{stem}" for title in ("SIRST", "NUDT-SIRST") for stem in STEMS["train"]
    ]
    alone = open_dataset(DatasetConfig.named("sirst", data_path=str(tmp_path))).part("train")
    assert data.part("train").fingerprint != alone.fingerprint


def _without_lists(tmp_path, counts):
    """Folders of images without lists, by name; every name of an image is in all of them."""
    return {
        name: open_dataset(
            DatasetConfig.named("custom", data_path=str(write_folder(tmp_path / name, count=count)))
        )
        for name, count in counts.items()
    }


def test_a_folder_without_lists_is_tested_whole_by_weights_that_do_not_know_it(tmp_path):
    sets = _without_lists(tmp_path, {"own": 12, "foreign": 10})
    own, foreign = sets.values()
    description = {"dataset": "custom", "sets": own.training_lists}
    held_out = own.part_to_test(description)
    assert (held_out.role, held_out.fingerprint) == ("test", own.parts["test"].fingerprint)
    assert 0 < held_out.count < 12
    for trained_on in (description, None, {}, {"dataset": "SIRST", "fingerprint": "0f"}):
        whole = foreign.part_to_test(trained_on)
        assert (whole.role, whole.count) == ("all", 10)
        assert sorted(whole.open().name(k) for k in range(10)) == [f"im_{k}" for k in range(10)]
    # What is held out for validation was in the training list all the same.
    config = DatasetConfig.named("custom", data_path=str(tmp_path / "own"))
    assert open_dataset(config, val_share=0.3).training_lists == own.training_lists
    # Files of earlier versions state the list that they were trained on alone.
    before = {"dataset": "custom", "fingerprint": own.parts["train"].fingerprint}
    assert own.part_to_test(before).count == held_out.count


def test_a_folder_is_told_again_after_images_came_and_went(tmp_path):
    """By the content of some training images: names like 000001 are in many sets."""
    write_folder(tmp_path / "mine", count=30)
    config = DatasetConfig.named("custom", data_path=str(tmp_path / "mine"))
    before = open_dataset(config)
    trained_on = {"dataset": "custom", "sets": before.training_lists, "samples": before.training_samples}
    assert len(trained_on["samples"]["custom"]) == 16
    source = before.parts["train"].open()
    trained = {source.name(k) for k in range(len(source))}
    for name in list(trained_on["samples"]["custom"])[:12]:
        for folder in ("images", "masks"):
            (tmp_path / "mine" / folder / f"{name}.png").unlink()
    left = next((tmp_path / "mine" / "images").iterdir()).name
    for folder in ("images", "masks"):
        source = tmp_path / "mine" / folder / left
        source.with_name("one_more.png").write_bytes(source.read_bytes())
    after = open_dataset(config)
    assert after.training_lists != before.training_lists
    held_out = after.part_to_test(trained_on)
    assert held_out.role == "test"
    assert not trained & {held_out.open().name(k) for k in range(held_out.count)}
    # Another set whose images go by the same names.
    write_folder(tmp_path / "other", count=30, size=(50, 44))
    other = open_dataset(DatasetConfig.named("custom", data_path=str(tmp_path / "other")))
    assert other.part_to_test({**trained_on, "sets": {"custom": "0f"}}).role == "all"


def test_a_folder_of_another_sets_name_is_asked_about(tmp_path):
    root = write_folder(tmp_path / "SIRST")
    for name, test in (("a", 4), ("b", 5)):
        (root / name).mkdir()
        (root / name / "train.txt").write_text("im_3")
        (root / name / "test.txt").write_text(f"im_{test}")
    with pytest.raises(InputError, match=r"splits .*Its folder is named SIRST: --dataset sirst"):
        open_dataset(DatasetConfig.named("nudt_sirst", data_path=str(root)))
    with pytest.raises(InputError, match="splits") as error:
        open_dataset(DatasetConfig.named("sirst", data_path=str(root)))
    assert "another set" not in str(error.value)


def test_a_set_of_the_same_name_is_not_new_to_weights_though_images_were_added(tmp_path):
    config = DatasetConfig.named("sirst", data_path=str(tmp_path), published_splits=[])
    write_folder(tmp_path / "SIRST", count=12)
    before = open_dataset(config).training_lists
    write_folder(tmp_path / "more" / "SIRST", count=14)
    config.data_path = str(tmp_path / "more")
    grown = open_dataset(config)
    assert grown.training_lists != before
    assert grown.part_to_test({"dataset": "SIRST", "sets": before}).role == "test"
    assert grown.part_to_test({"dataset": "NUDT-SIRST", "sets": {"NUDT-SIRST": "0f"}}).count == 14


def test_sets_with_lists_are_tested_on_their_test_images_by_any_weights(folder):
    data = open_dataset(DatasetConfig.named("custom", data_path=str(folder)))
    part = data.part_to_test(None)
    assert (part.role, part.count) == ("test", 2)


def test_each_set_of_a_union_is_tested_as_it_would_be_alone(tmp_path):
    write_folder(tmp_path / "SIRST", count=12)
    write_folder(tmp_path / "NUDT-SIRST", count=10)
    write_folder(tmp_path / "IRSTD-1k", lists={"train": [0, 1, 2], "test": [3, 4]})
    members = {
        name: DatasetConfig.named(name, data_path=str(tmp_path), published_splits=[], published_size=None)
        for name in ("sirst", "nudt_sirst", "irstd_1k")
    }
    alone = {config.title: open_dataset(config) for config in members.values()}
    union = open_dataset(
        DatasetConfig.named(
            "sirst3", members=list(members.values()), title="all three", data_path=str(tmp_path)
        )
    )
    assert union.training_lists == {title: of.training_lists[title] for title, of in alone.items()}
    part = union.part_to_test({"dataset": "SIRST", "sets": alone["SIRST"].training_lists})
    held_out = alone["SIRST"].parts["test"].count
    assert (part.role, part.count) == ("SIRST test, NUDT-SIRST all, IRSTD-1k test", held_out + 10 + 2)
    # Trained on the union, and tested on one of its sets or on itself.
    trained_on = {"dataset": "all three", "sets": union.training_lists}
    assert alone["NUDT-SIRST"].part_to_test(trained_on).role == union.part_to_test(trained_on).role == "test"
    assert union.part_to_test(None).count == 12 + 10 + 2
    assert union.part("all").count == 12 + 10 + 5


def test_all_is_every_image_once(tmp_path):
    lists = {"train": [0, 1, 2], "val": [2, 3], "test": [4, 5, 0]}
    data = open_dataset(
        DatasetConfig.named("custom", data_path=str(write_folder(tmp_path / "a", lists=lists)))
    )
    source = data.part("all").open()
    assert [source.name(k) for k in range(len(source))] == [f"im_{k}" for k in (0, 1, 2, 3, 4, 5)]

    for role, count in (("train", 3), ("test", 2)):  # other images of the same names
        write_folder(tmp_path / "b" / role, count=count, size=(40, 40 + count))
    part = open_dataset(DatasetConfig.named("custom", data_path=str(tmp_path / "b"))).part("all")
    source = part.open()
    names = {source.name(k): source.load(k)[1].shape[1] for k in range(len(source))}
    assert names == {f"train/im_{k}" if k < 2 else "im_2": 43 for k in range(3)} | {
        f"test/im_{k}": 42 for k in range(2)
    }

    config = DatasetConfig.named("synthetic", image_size=32, synthetic={"train": 3, "val": 1, "test": 2})
    source = open_dataset(config).part("all").open()
    assert len({source.name(k) for k in range(len(source))}) == 6


def test_a_union_of_generated_images_is_refused():
    with pytest.raises(ConfigError, match="synthetic cannot be part of a union"):
        DatasetConfig.named("union", members=["sirst", "synthetic"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("irdst", {"44/1(814)": "44", "44/1(815)": "44", "real/7/1": "real/7", "1(814)": "1(814)"}),
        (
            "sirst_aug",
            {
                "Misc_1_3": "Misc_1",
                "Misc_1_17": "Misc_1",
                "Misc_1": "Misc_1",
                "Misc_2": "Misc_2",
                "0017": "0017",
            },
        ),
    ],
)
def test_frames_and_copies_are_grouped_by_their_names(name, expected):
    assert groups_of(DatasetConfig.named(name), list(expected)) == list(expected.values())


def test_each_set_of_a_union_has_its_own_groups_and_most_sets_have_none():
    assert groups_of(DatasetConfig.named("sirst"), ["Misc_1", "Misc_2"]) is None
    union = DatasetConfig.named("union", members=["sirst", "irdst"])
    names = ["SIRST/Misc_1_1", "SIRST/Misc_1_2", "IRDST/44/1", "IRDST/44/2", "IRDST/45/1"]
    assert groups_of(union, names) == ["SIRST/Misc_1_1", "SIRST/Misc_1_2", "IRDST/44", "IRDST/44", "IRDST/45"]
    union.members[1].group = None
    assert groups_of(union, names) is None
    assert group_names("frame", ["a_frame", "b_frame", "c"]) == ["frame", "frame", "c"]  # all that matches
