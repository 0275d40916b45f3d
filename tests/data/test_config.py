from __future__ import annotations

import math
import subprocess
import sys

import pytest

from sam_spl import config as configuration
from sam_spl.config import plain, read
from sam_spl.data.config import RESIZE_RULES, CopyPasteConfig, DatasetConfig
from sam_spl.data.known import dataset_contents, dataset_named, network_input
from sam_spl.data.transforms import AUGMENTATIONS
from sam_spl.errors import ConfigError
from sam_spl.resize import RULES
from tests.conftest import ROOT


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder of a user's own settings, used in addition to the toolkit's."""
    monkeypatch.setattr(configuration, "_own_folders", [])
    (tmp_path / "dataset").mkdir()
    configuration.add_config_folder(tmp_path)
    return tmp_path / "dataset"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_path": None}, r"dataset\.data_path: a value is required, as --data_path FOLDER"),
        ({"source": "video"}, r"dataset\.source: video is not valid, .*folder, synthetic"),
        ({"missing": "ignore"}, r"dataset\.missing: ignore is not valid, .*error, skip"),
        ({"resize": "nearest"}, r"dataset\.resize: nearest is not valid, .*pillow, opencv"),
        ({"image_size": 31}, r"dataset\.image_size: 31 is not valid, must be at least 32 pixels"),
        ({"test_size": 0}, r"dataset\.test_size: 0 is not valid"),
        ({"image_size": "big"}, r"dataset\.image_size: 'big' is not a whole number"),
        ({"mean": [0.5]}, r"dataset\.mean, dataset\.std: .* one value or one per channel"),
        ({"mean": [], "std": []}, r"dataset\.mean, dataset\.std"),
        ({"std": [0.2, 0.0, 0.2]}, "std above 0"),
        ({"mean": [math.inf], "std": [1.0]}, "finite"),
        ({"mean": [0.5], "std": [math.nan]}, "finite"),
        (
            {"synthetic": {"train": -1}},
            r"dataset\.synthetic\.train: -1 is not valid, give a number of images",
        ),
        ({"synthetic": {"val": "abc"}}, r"dataset\.synthetic\.val: abc is not valid"),
        ({"synthetic": {"areas": 5}}, r"dataset\.synthetic\.areas: 5 is not valid, give two numbers"),
        ({"synthetic": {"scr": ["a", 2]}}, r"dataset\.synthetic\.scr: .* give two numbers"),
        (
            {"synthetic": {"empty": "abc"}},
            r"dataset\.synthetic\.empty: abc is not valid, must be in \[0, 1\]",
        ),
        ({"synthetic": {"most_targets": 0}}, r"dataset\.synthetic\.most_targets: 0 is not valid"),
        ({"members": ["sirst", "NUAA-SIRST"]}, r"dataset: \[SIRST,SIRST\] is not valid, name SIRST once"),
        ({"group": "(a"}, r"dataset\.group: '\(a' is not a regular expression"),
        ({"copy_paste": 1.5}, r"dataset\.copy_paste: 1\.5 is not valid, must be in \[0, 1\]"),
        ({"imagesize": 64}, r"dataset\.imagesize: no such key\. Nearest: image_size"),
        ({"members": ["nudt", "synthetic"]}, "synthetic cannot be part of a union"),
        ({"members": ["sirst3"]}, "sirst3 cannot be part of a union"),
        ({"members": ["custom"]}, "custom cannot be part of a union"),
        ({"members": ["nudtt"]}, "'nudtt' is unknown. Nearest: NUDT"),
    ],
)
def test_values_that_no_data_set_can_have_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        DatasetConfig.named("sirst", **changes)


@pytest.mark.parametrize(
    ("values", "message"), [({"probability": 2.0}, "probability: 2.0"), ({"source": "test"}, "source: test")]
)
def test_copy_paste_refuses_what_it_cannot_do(values, message):
    with pytest.raises(ConfigError, match=f"copy_paste.{message} is not valid"):
        read(CopyPasteConfig, values)


def test_generated_images_need_no_folder():
    assert DatasetConfig.named("synthetic", data_path=None).data_path is None


def test_the_resize_rules_are_those_that_are_implemented():
    assert RESIZE_RULES == RULES


def test_a_union_takes_names_and_reads_back_as_it_was_saved():
    union = DatasetConfig.named("union", members=["SIRST", "nudt"], data_path="here", missing="skip")
    assert (union.name, union.title) == ("sirst+nudt_sirst", "SIRST+NUDT-SIRST")
    assert union.members == [
        DatasetConfig.named(name, data_path="here", missing="skip") for name in ("sirst", "nudt_sirst")
    ]
    assert read(DatasetConfig, plain(union)) == union
    moved = read(DatasetConfig, plain(union) | {"data_path": "there"})
    assert [member.data_path for member in moved.members] == ["there", "there"]
    named = DatasetConfig.named("sirst3")
    assert (named.title, [member.name for member in named.members]) == (
        "SIRST3",
        ["sirst", "nudt_sirst", "irstd_1k"],
    )


def test_a_file_in_a_folder_of_ones_own_is_a_set(own_folder):
    (own_folder / "sea.yaml").write_text("title: My-Sea\naliases: [baltic]\nmean: [0.2]\nstd: [0.1]\n")
    assert dataset_named("my sea") == "sea"
    config = DatasetConfig.named("Baltic", lists="a")
    assert (config.name, config.title, config.mean, config.lists) == ("sea", "My-Sea", [0.2], "a")
    union = DatasetConfig.named("union", members=["sea", "sirst"])
    assert union.title == "My-Sea+SIRST"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1\n", "cannot be read"),
        ("mean: ${no.such.key}\n", "cannot be read"),
        ("mean: ${no_resolver:1}\n", "cannot be read"),
        ("a: 1\na: 2\n", "cannot be read"),
        ("5\n", "cannot be read"),
        ("\x00", "cannot be read"),
        ("- a\n- b\n", "holds no key: value"),
        ("aliases: baltic\n", "aliases: baltic is not a list"),
        ("official_lists: null\n", "official_lists: None is not a list"),
    ],
)
def test_a_faulty_file_is_named_in_one_line(own_folder, content, message):
    (own_folder / "sea.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        dataset_named("Sea")
    assert str(error.value).startswith(str(own_folder / "sea.yaml"))
    assert "\n" not in str(error.value)


def test_a_faulty_file_stops_what_needs_it_and_nothing_else(own_folder, caplog):
    (own_folder / "sea.yaml").write_text("aliases: [1\n")
    assert DatasetConfig.named("sirst").title == "SIRST"
    assert caplog.text == ""  # the file of a name is read, and no other
    for name in ("NUAA-SIRST", "IRSTD"):  # an alias may be any file's
        assert dataset_named(name) in ("sirst", "irstd_1k")
    (line,) = caplog.messages  # once
    assert line.startswith(f"warning: data set sea is left out: {own_folder / 'sea.yaml'}: cannot be read")
    assert "\n" not in line
    assert "sea" not in dataset_contents()
    for use in (dataset_named, DatasetConfig.named):
        with pytest.raises(ConfigError, match=r"sea\.yaml: cannot be read"):
            use("sea")


@pytest.mark.parametrize("group", ["recipe", "experiment"])
def test_a_recipe_without_its_first_line_is_refused(tmp_path, group):
    path = tmp_path / "mine.yaml"
    for text in ("trainer: {epochs: 1}\n", "# mine\n# @package _global_\nseed: 1\n", "# @package model\n"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"mine\.yaml: sets nothing\. Make '# @package _global_'"):
            configuration.check_group_file(group, path)
        configuration.check_group_file("model", path)
    path.write_text("\n# @package _global_\nseed: ${no.such.key}\n")  # another file may have the key
    configuration.check_group_file(group, path)
    path.write_text("# @package _global_\na: [1\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: cannot be read"):
        configuration.check_group_file(group, path)
    for shipped in configuration.group_files(group).values():
        configuration.check_group_file(group, shipped)


def test_a_file_may_not_name_code(own_folder):
    (own_folder / "sea.yaml").write_text("augment: my_package.transforms:Mine\n")
    with pytest.raises(ConfigError, match=r"sea\.yaml: augment: .* trainer\.augment=my_package"):
        DatasetConfig.named("sea")
    assert DatasetConfig.named("sirst", augment="my_package.transforms:Mine").name == "sirst"


def test_a_networks_input_is_the_same_from_a_file_and_from_settings():
    assert network_input({}) == network_input(DatasetConfig.named("sirst"))
    assert network_input(DatasetConfig.named("irstd_1k"))["image_size"] == 512
    assert network_input({"native_test": True})["image_size"] is None


def test_reading_settings_imports_nothing_heavy():
    code = (
        "import sys; from sam_spl.data.config import DatasetConfig; DatasetConfig.named('sirst3');"
        "print([name for name in ('numpy', 'cv2', 'torch', 'skimage') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_on_data_names_every_set_with_its_counts_and_its_example_is_a_set(own_folder):
    page = (ROOT / "docs" / "data.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for path in sorted((ROOT / "configs" / "dataset").glob("*.yaml")):
        content = configuration.group_file("dataset", path.stem)
        assert content["title"] in rows
        row = rows[content["title"]].replace(" / - / ", "/").replace(" / ", "/")
        assert all(counts in row for counts in content.get("published_splits", []))
        assert all(sha in page for sha in content.get("official_lists", []))
    example = page.partition("```yaml\n")[2].partition("```")[0]
    (own_folder / "harbour.yaml").write_text(example)
    config = DatasetConfig.named("My Harbour")
    assert (config.name, config.mean, config.group) == ("harbour", [0.31], r"^(.+)_\d+$")
    for name in AUGMENTATIONS:
        assert name in rows
