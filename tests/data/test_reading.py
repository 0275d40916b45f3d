from __future__ import annotations

import cv2
import numpy as np
import PIL.Image
import pytest

from sam_spl.data.reading import as_image, read_image, read_mask
from tests.conftest import write_palette_png


def test_modes(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colour = np.dstack([grey, grey + 1, grey + 2])
    files = {
        "grey": grey,
        "equal": np.dstack([grey] * 3),
        "alpha": np.dstack([grey, grey, grey, np.full_like(grey, 9)]),
        "deep": grey.astype(np.uint16) * 1000,
        "colour": colour,
    }
    for name, content in files.items():
        cv2.imwrite(str(tmp_path / f"{name} (1).png"), content)
    for name in ("grey", "equal", "alpha"):
        np.testing.assert_array_equal(read_image(tmp_path / f"{name} (1).png"), grey)
    np.testing.assert_array_equal(read_image(tmp_path / "deep (1).png"), files["deep"])
    np.testing.assert_array_equal(read_image(tmp_path / "colour (1).png"), colour[..., ::-1])  # RGB


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1], [0, 1]), ([0, 255], [0, 1]), ([0, 64, 128, 255], [0, 0, 1, 1]), ([0, 0], [0, 0])],
)
def test_masks_are_binarised(tmp_path, values, expected):
    cv2.imwrite(str(tmp_path / "m.png"), np.array([values], np.uint8))
    assert read_mask(tmp_path / "m.png").tolist() == [[bool(value) for value in expected]]


def test_formats(tmp_path):
    """PNG, BMP, TIFF, 16 bits, palette and alpha give the same picture."""
    grey, mask = _draw()
    palette = np.stack([np.arange(256, dtype=np.uint8)] * 3, -1)
    files = {
        "a.png": grey,
        "b.bmp": grey,
        "c.tiff": grey,
        "d.png": np.dstack([grey, grey, grey, np.full_like(grey, 7)]),
    }
    for name, content in files.items():
        cv2.imwrite(str(tmp_path / name), content)
    write_palette_png(tmp_path / "e.png", grey, palette)
    for name in [*files, "e.png"]:
        np.testing.assert_array_equal(read_image(tmp_path / name), grey, err_msg=name)
    deep = grey.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "f.tif"), deep)
    np.testing.assert_array_equal(read_image(tmp_path / "f.tif"), deep)

    masks = {
        "0 and 1": mask // 255,
        "0 and 255 in 16 bits": mask.astype(np.uint16),
        "16 bits": mask.astype(np.uint16) * 257,
        "alpha": np.dstack([mask, mask, mask, np.full_like(mask, 255)]),
        "three values": np.where(mask, 255, 64).astype(np.uint8),
    }
    for name, content in masks.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), content)
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), mask > 0, err_msg=name)
    write_palette_png(tmp_path / "palette.png", mask // 255, palette * np.uint8(255))  # index 1 is white
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png"), mask > 0)


def _draw() -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((40, 56), np.uint8)
    mask[5:8, 10:13] = 255
    return np.where(mask, 230, 40).astype(np.uint8), mask


def test_a_path_needs_no_more_than_opencv(tmp_path, recwarn):
    """Pillow, which is asked how the image is turned, knows no PAM files, and warns of large ones."""
    image = np.random.default_rng(0).integers(0, 256, (40, 56), dtype=np.uint8)
    (tmp_path / "a.pam").write_bytes(cv2.imencode(".pam", image)[1].tobytes())
    with pytest.raises(PIL.UnidentifiedImageError):
        PIL.Image.open(tmp_path / "a.pam")
    np.testing.assert_array_equal(as_image(tmp_path / "a.pam"), image)
    large = np.zeros((9000, 10000), np.uint8)
    large[3, 5] = 9
    cv2.imwrite(str(tmp_path / "large.png"), large)
    np.testing.assert_array_equal(as_image(str(tmp_path / "large.png")), large)
    assert not recwarn.list
