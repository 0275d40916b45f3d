from __future__ import annotations

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from sam_spl.resize import (
    RULES,
    long_side,
    resize_covered,
    resize_image,
    resize_logits,
    resize_mask,
    resize_touched,
)
from tests.conftest import GOLDEN

CASES = np.load(GOLDEN / "resize.npz")
NAMES = sorted(key.removesuffix("_pil_image") for key in CASES.files if key.endswith("_pil_image"))


@pytest.mark.parametrize("name", NAMES)
def test_images_and_masks_become_what_pillow_and_opencv_make_of_them(name):
    image, mask = CASES[f"{name}_image"], CASES[f"{name}_mask"] > 0
    size = CASES[f"{name}_pil_image"].shape
    for rule, key in (("pillow", "pil"), ("opencv", "cv")):
        difference = resize_image(image, size, rule).astype(int) - CASES[f"{name}_{key}_image"]
        assert np.abs(difference).max() <= 1
        np.testing.assert_array_equal(resize_mask(mask, size, rule), CASES[f"{name}_{key}_mask"] > 0)
    np.testing.assert_array_equal(resize_touched(mask, size), CASES[f"{name}_pil_mask_bilinear"] > 0)


def test_nearest_takes_the_pixel_under_the_centre_at_every_scale_and_in_ties():
    for old in range(1, 200, 7):
        for new in (5, 32, 60, 64, 96, 100, 256):
            # Pillow adds the scale up in float64, which decides exact ties.
            at = np.full(new, old / new)
            at[0] /= 2
            expected = np.floor(np.cumsum(at)).astype(int)
            for k in range(old):
                mask = np.zeros((old, 1), bool)
                mask[k] = True
                np.testing.assert_array_equal(
                    resize_mask(mask, (new, 1))[:, 0], expected == k, str((old, new))
                )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("size", [(40, 30), (150, 160), (40, 160)])
def test_every_type_of_image_gives_the_same_picture(dtype, channels, size):
    image = np.random.default_rng(0).integers(0, 256, (100, 120, *channels), np.uint8)
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    out = resize_image((image * np.array(scale, dtype)).astype(dtype), size)
    assert (out.dtype, out.shape) == (dtype, (*size, *channels))
    assert np.abs(out / scale - resize_image(image, size).astype(float)).max() <= 1.01
    view = resize_image(image[::-1, ::-1].swapaxes(0, 1), size[::-1])
    assert np.abs(view[::-1, ::-1].swapaxes(0, 1).astype(int) - resize_image(image, size)).max() <= 1


@pytest.mark.parametrize(("old", "new"), [(592, 256), (1024, 256), (300, 200), (64, 96)])
def test_no_target_of_one_pixel_leaves_an_antialiased_image(old, new):
    image = np.zeros((old, 8), np.uint8)
    rows = np.random.default_rng(old).integers(old, size=60)
    for row in rows:
        image[:] = 0
        image[row] = 255
        out = resize_image(image, (new, 8))
        assert out.max() >= 255 * min(1, new / old) * 0.5 - 1  # midway between two pixels each has half
        centre = (out[:, 0] * (np.arange(new) + 0.5)).sum() / out[:, 0].sum()
        if 8 < row < old - 8:
            assert centre == pytest.approx((row + 0.5) * new / old, abs=0.15)


def test_what_the_opencv_rule_loses_at_a_quarter_of_the_size():
    lost = 0
    for row in range(128):
        image = np.zeros((128, 128), np.uint8)
        image[row] = 255
        lost += resize_image(image, (32, 32), "opencv").max() == 0
    assert lost == 64  # of two rows in four; in both directions three positions of four vanish


@pytest.mark.parametrize("rule", RULES)
def test_nearest_masks_against_their_images(rule):
    """Pillow's masks lie on their images; OpenCV's half a pixel of the result below and right of them."""
    offsets = []
    for top in range(40, 80):
        image = np.zeros((148, 148), np.uint8)
        image[top : top + 12, 60:72] = 255
        out, mask = resize_image(image, (64, 64), rule), resize_mask(image > 0, (64, 64), rule)
        rows = np.arange(64)
        offsets.append((rows * mask.any(1)).sum() / mask.any(1).sum() - (rows * out.sum(1)).sum() / out.sum())
    assert np.mean(offsets) == pytest.approx(0 if rule == "pillow" else 0.5, abs=0.03)


def test_covered_masks_count_half_and_lose_no_target():
    mask = np.zeros((300, 300), bool)
    mask[100:140, 100:140] = True
    assert resize_covered(mask, (75, 75)).sum() == 100
    alone = np.zeros((300, 300), bool)
    points = [(11, 17), (50, 201), (101, 77), (299, 299), (0, 0), (203, 150)]
    for row, column in points:
        alone[row, column] = True
    out = resize_covered(alone | mask, (64, 64))
    for row, column in points:
        assert out[row * 64 // 300, column * 64 // 300]
    assert cv2.connectedComponents(out.view(np.uint8))[0] - 1 == len(points) + 1
    assert not resize_covered(np.zeros((300, 300), bool), (64, 64)).any()
    assert resize_covered(mask, (600, 600)).sum() == 4 * mask.sum()


def test_an_array_that_cannot_be_written_to_is_no_reason_for_a_warning(recwarn):
    image = np.zeros((90, 80), np.uint8)
    image.flags.writeable = False
    resize_image(image, (40, 40))
    assert not list(recwarn)


def test_long_side_rounds_as_published():
    assert long_side((100, 148), 64) == (int(100 * 64 / 148 + 0.5), 64)
    assert long_side((7, 2), 9) == (9, int(2 * 9 / 7 + 0.5))
    assert long_side((3, 2), 3 * 5) == (15, 10)
    assert long_side((200, 25), 100) == (100, 13)  # 12.5 is rounded up


def test_logits_are_interpolated_bilinearly():
    ramp = torch.arange(8.0).view(1, 8, 1).expand(1, 8, 4)
    torch.testing.assert_close(
        resize_logits(ramp, (16, 4))[0, 1:-1, 0], (torch.arange(16.0)[1:-1] + 0.5) / 2 - 0.5
    )
    assert resize_logits(ramp, (8, 4)) is ramp


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("size", [(40, 31), (150, 60), (40, 160), (101, 60), (7, 1)])
def test_rows_and_columns_one_after_the_other_are_pillow_s_resize(size, channels):
    image = np.random.default_rng(3).integers(0, 256, (101, 122, *channels), np.uint8)
    pillow = PIL.Image.fromarray(image).resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    assert np.abs(resize_image(image, size).astype(int) - np.asarray(pillow)).max() <= 1
    planes = np.atleast_3d(image).astype(np.float32) / 255
    exact = [
        np.asarray(PIL.Image.fromarray(plane).resize(size[::-1], PIL.Image.Resampling.BILINEAR))
        for plane in np.ascontiguousarray(planes.transpose(2, 0, 1))
    ]
    out = np.atleast_3d(resize_image(image.astype(np.float32) / 255, size))
    np.testing.assert_allclose(out, np.stack(exact, -1), atol=1e-5)  # the weights are float32
