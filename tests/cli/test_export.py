"""``sam-spl export``: what is refused."""

from __future__ import annotations

import pytest

from sam_spl.cli.export import ExportConfig
from sam_spl.cli.main import execute
from sam_spl.errors import ConfigError, InputError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "a.pt"}, r"^output: a\.pt is not valid, give FILE\.onnx"),
        ({"output": "a.onnx", "precision": "bf16"}, "precision: bf16 is not valid, choose one of fp32, fp16"),
        ({"output": "a.onnx", "train_size": 8}, "train_size: 8 is not valid"),
        ({"output": "a.onnx", "precision": "fp16", "int8": "images"}, "exclude each other"),
    ],
)
def test_options_that_no_export_can_have_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ExportConfig("a.pt", **options)


def test_a_folder_without_images_is_found_before_anything_is_computed(tmp_path):
    with pytest.raises(InputError, match=r"^images: no image files in"):
        execute(["export", "none.pt", "-o", str(tmp_path / "a.onnx"), "--images", str(tmp_path)])
