from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam_spl.data import transforms
from sam_spl.data.copy_paste import CopyPaste, cut
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.data.transforms import (
    AUGMENTATIONS,
    RandomCrop,
    ResizeCrop,
    ResizeFlip,
    ScaleCrop,
    TargetCrop,
    build_transform,
    flip,
    pad_to,
)
from sam_spl.errors import ConfigError
from sam_spl.resize import RULES, resize_covered, resize_mask, resize_touched


def _pair(height: int = 60, width: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """A dark image with one bright target, which an image and its mask must keep together."""
    image = np.full((height, width), 10, np.uint8)
    image[20:26, 30:38] = 250
    return image, image > 100


#: How each augmentation resizes masks.
MASK_RULES = {
    "resize": resize_mask,
    "resize_flip": resize_touched,
    "scale_crop": resize_mask,
    "resize_crop": resize_mask,
    "random_crop": None,  # it does not
    "target_crop": lambda mask, size, rule: resize_covered(mask, size),
    "native_crop": lambda mask, size, rule: resize_covered(mask, size),
}


def _noise(size: tuple[int, int], seed: int) -> np.ndarray:
    """A mask of small targets all over the image."""
    points = np.random.default_rng(seed).random(size) > 0.995
    return cv2.dilate(points.view(np.uint8), np.ones((3, 2), np.uint8)) > 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(60, 90), (64, 64), (40, 120)])
def test_every_augmentation_gives_squares_of_the_stored_type(name, size, rule):
    for seed in range(30):
        mask = _noise(size, seed)
        out, out_mask = AUGMENTATIONS[name](64, rule)(mask * np.uint8(255), mask, np.random.default_rng(seed))
        assert out.shape == out_mask.shape
        assert out.shape[0] == out.shape[1] <= 64
        assert (out.dtype, out_mask.dtype) == (np.uint8, bool)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(60, 90), (64, 64), (40, 120)])
def test_every_augmentation_moves_the_mask_with_the_image(name, size, rule, monkeypatch):
    """An image that is its own mask, resized as masks are and not blurred, stays its own mask exactly."""
    resized = MASK_RULES[name]
    monkeypatch.setattr(
        transforms, "resize_image", lambda image, to, by: resized(image > 0, to, by) * np.uint8(255)
    )
    monkeypatch.setattr(transforms, "blur", lambda image, radius: image)
    targets = 0
    for seed in range(30):
        mask = _noise(size, seed)
        out, out_mask = AUGMENTATIONS[name](64, rule)(mask * np.uint8(255), mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(out > 0, out_mask)
        targets += out_mask.any()
    assert targets > 15


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(60, 90), (200, 130), (120, 300)])
def test_image_and_mask_stay_where_they_are_to_each_other(name, size):
    """The centre of the target's brightness is the centre of its mask, but for rounding."""
    transform, offsets = AUGMENTATIONS[name](64, "pillow"), []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        image, mask = np.zeros(size, np.float32), np.zeros(size, bool)
        top, left = (int(rng.integers(20, side - 30)) for side in size)
        image[top : top + 9, left : left + 9], mask[top : top + 9, left : left + 9] = 200, True
        out, out_mask = transform(image, mask, rng)
        if out_mask.sum() > 0 and not (out_mask[[0, -1]].any() or out_mask[:, [0, -1]].any()):
            grid = np.indices(out.shape)
            bright = (grid * out).sum((1, 2)) / out.sum()
            marked = (grid * out_mask).sum((1, 2)) / out_mask.sum()
            offsets.append(np.abs(bright - marked))
    assert len(offsets) > 20
    assert np.mean(offsets) < 0.25


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(2, 600), (600, 2), (1, 1), (1, 40), (3, 3)])
def test_images_of_a_pixel_or_two_give_squares_too(name, size):
    image = np.full(size, 200, np.uint8)
    for mask in (np.zeros(size, bool), np.ones(size, bool)):
        for seed in range(20):
            out, out_mask = AUGMENTATIONS[name](64, "pillow")(image, mask, np.random.default_rng(seed))
            assert out.shape == out_mask.shape
            assert out.shape[0] == out.shape[1] > 0


def test_transforms_follow_their_generator():
    transform = ScaleCrop(64)
    first = transform(*_pair(), np.random.default_rng(5))
    again = transform(*_pair(), np.random.default_rng(5))
    other = transform(*_pair(), np.random.default_rng(6))
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any()


def test_flips_reach_all_eight_symmetries_equally_often():
    image = np.array([[1, 2], [3, 4]], np.uint8)
    rng = np.random.default_rng(0)
    seen: dict[bytes, int] = {}
    for _ in range(4000):
        out, mask = flip(image, image > 2, rng)
        np.testing.assert_array_equal(mask, out > 2)
        key = np.ascontiguousarray(out).tobytes()
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 8
    assert min(seen.values()) > 400


def test_scale_crop_uses_scales_over_its_whole_range():
    image = np.full((64, 64), 200, np.uint8)
    filled = [
        (ScaleCrop(64)(image, image > 0, np.random.default_rng(seed))[0] > 100).mean() for seed in range(300)
    ]
    # Half the long side leaves a quarter of the square, all else is padding; above 1 nothing is padded.
    assert min(filled) == pytest.approx(0.25, abs=0.03)
    assert np.mean(np.array(filled) == 1) == pytest.approx(2 / 3, abs=0.08)


def test_resize_flip_keeps_every_touched_mask_pixel():
    mask = np.zeros((128, 128), bool)
    mask[64, 64] = True
    _, out = ResizeFlip(256)(mask.astype(np.uint8), mask, np.random.default_rng(0))
    # Bilinear upsampling spreads one pixel over 4x4, and all of them count.
    assert out.sum() == 16


def test_padding_goes_right_and_below():
    image, mask = pad_to(*_pair(30, 45), 64)
    assert image.shape == mask.shape == (64, 64)
    assert not image[30:].any()
    assert not image[:, 45:].any()
    assert image[:30, :45].all()


def test_target_crops_hold_a_target_as_often_as_asked():
    image, mask = _pair(256, 256)
    held = [TargetCrop(64, 256)(image, mask, np.random.default_rng(seed))[1].any() for seed in range(300)]
    assert np.mean(held) == pytest.approx(0.8 + 0.2 * 0.09, abs=0.06)


def test_random_crops_hold_a_target_as_often_as_they_draw_again_for_one():
    """A drawn crop is taken if it shows a target, as a share p of all does, else with probability 1/2."""
    image, mask = _pair(256, 256)
    anywhere = [
        transforms.random_crop(image, mask, 128, np.random.default_rng(seed))[1].any() for seed in range(2000)
    ]
    held = [RandomCrop(128)(image, mask, np.random.default_rng(seed))[1].any() for seed in range(2000)]
    p = np.mean(anywhere)
    assert 0.02 < p < 0.2
    assert np.mean(held) == pytest.approx(2 * p / (1 + p), abs=0.03)
    without = np.zeros_like(mask)
    assert not RandomCrop(128)(image, without, np.random.default_rng(0))[1].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_random_crops_keep_the_scale_and_pad_with_the_background_of_each_channel(dtype):
    image = np.zeros((40, 50, 3), dtype)
    image[...] = 11, 22, 33
    image[10:14, 20:25] = 200
    mask = image[..., 0] > 100
    for seed in range(10):
        out, out_mask = RandomCrop(64)(image, mask, np.random.default_rng(seed))
        assert (out.shape, out.dtype, out_mask.sum()) == ((64, 64, 3), dtype, 20)
        assert (out[out_mask] == 200).all()
        assert (out[~out_mask] == np.array([11, 22, 33], dtype)).all()


def test_resize_crops_show_nine_tenths_and_turn_upside_down_alone():
    mask = np.zeros((96, 80), bool)
    ramp = np.arange(80, dtype=np.float32)[None] + 1000 * np.arange(96, dtype=np.float32)[:, None]
    upside_down = 0
    for seed in range(200):
        out, _ = ResizeCrop(72)(ramp, mask, np.random.default_rng(seed))
        down, right = out[40, 40] - out[30, 40], out[40, 40] - out[40, 30]
        assert abs(down) == pytest.approx(12_000, rel=1e-3)  # 96 rows became 80
        assert right == pytest.approx(10, rel=1e-2)  # 80 columns stayed 80, and are not mirrored
        upside_down += down < 0
    assert upside_down == pytest.approx(100, abs=25)


def test_unknown_augmentations_name_the_nearest():
    with pytest.raises(ConfigError, match="Nearest: scale_crop"):
        build_transform("scalecrop", 64, SyntheticSource(1, 64))


def test_a_registered_augmentation_and_one_by_reference_are_taken(tmp_path):
    class Darker:
        def __init__(self, image_size: int, rule: str) -> None:
            self.resize = transforms.Resize(image_size, rule)

        def __call__(self, image, mask, rng):
            image, mask = self.resize(image, mask, rng)
            return image // 2, mask

    name = "test_darker"
    AUGMENTATIONS.register(name, Darker)
    try:
        out, _ = build_transform(name, 64, SyntheticSource(1, 64))(*_pair(), np.random.default_rng(0))
    finally:
        del AUGMENTATIONS._entries[name]
    assert (out.shape, out.max()) == ((64, 64), 125)

    file = tmp_path / "mine.py"
    file.write_text(
        "from sam_spl.data.transforms import Resize\n"
        "def bright(size, rule):\n"
        "    inner = Resize(size, rule)\n"
        "    return lambda image, mask, rng: (255 - inner(image, mask, rng)[0], inner(image, mask, rng)[1])\n"
    )
    out, _ = build_transform(f"{file}:bright", 32, SyntheticSource(1, 64))(*_pair(), np.random.default_rng(0))
    assert (out.shape, out.max()) == ((32, 32), 245)


def test_chips_are_rectangles_around_targets():
    image, mask = _pair()
    ((chip, chip_mask),) = cut(image, mask)
    np.testing.assert_array_equal(chip, image[18:28, 28:40])
    np.testing.assert_array_equal(chip_mask, mask[18:28, 28:40])


def test_copy_paste_adds_targets_from_the_training_source_alone():
    source = SyntheticSource(20, 64, seed=3, empty=0)
    chips = [chip for index in range(20) for chip in cut(*source.load(index))]
    paste = CopyPaste.from_source(source, probability=1.0)
    assert len(paste.chips) == len(chips)
    image, mask = np.zeros((64, 64), np.uint8), np.zeros((64, 64), bool)
    numbers = []
    for seed in range(60):
        out, out_mask = paste(image, mask, np.random.default_rng(seed))
        numbers.append(cv2.connectedComponents(out_mask.view(np.uint8))[0] - 1)
        assert (out[out_mask] > 0).all()
    assert not image.any()  # the cached original is not written to
    assert min(numbers) >= 1
    assert max(numbers) > 20


def test_copy_paste_probability():
    paste = CopyPaste([(np.full((2, 2), 9, np.uint8), np.ones((2, 2), bool))], probability=0.3)
    image, mask = np.zeros((16, 16), np.uint8), np.zeros((16, 16), bool)
    pasted = [paste(image, mask, np.random.default_rng(seed))[1].any() for seed in range(500)]
    assert np.mean(pasted) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(
    ("image_type", "shape"), [(np.uint8, (16, 16)), (np.uint8, (16, 16, 3)), (np.uint16, (16, 16))]
)
@pytest.mark.parametrize("chip", [np.full((2, 2), 9, np.uint8), np.full((2, 2, 3), 9, np.uint8)])
def test_chips_take_the_channels_and_depth_of_the_image(image_type, shape, chip):
    paste = CopyPaste([(chip, np.ones((2, 2), bool))], probability=1.0)
    out, mask = paste(np.zeros(shape, image_type), np.zeros(shape[:2], bool), np.random.default_rng(0))
    assert out.shape == shape
    assert (out[mask] == (9 * 257 if image_type == np.uint16 else 9)).all()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_flips_mirror_and_turn_pixels_of_every_type_as_the_draws_say(shape, dtype):
    image = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    mask = image.reshape(5, 7, -1)[..., 0] > 100
    for seed in range(40):
        up, left, turned = np.random.default_rng(seed).random(3) < 0.5
        axes = [axis for axis, wanted in enumerate((up, left)) if wanted]
        out, out_mask = flip(image, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(
            out, np.flip(image, axes).swapaxes(0, 1) if turned else np.flip(image, axes)
        )
        np.testing.assert_array_equal(out_mask, np.flip(mask, axes).T if turned else np.flip(mask, axes))
        assert (out.dtype, out_mask.dtype) == (dtype, bool)
        assert out.flags.c_contiguous


@pytest.mark.parametrize("size", [(60, 90), (1, 3), (2, 64)])
def test_reflection_repeats_the_edge_and_goes_on_in_small_images(size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    mask = image[..., 0] > 100
    out, out_mask = transforms.reflect_to(image, mask, 64)
    border = [(0, max(0, 64 - side)) for side in size]
    np.testing.assert_array_equal(out, np.pad(image, [*border, (0, 0)], mode="symmetric"))
    np.testing.assert_array_equal(out_mask, np.pad(mask, border, mode="symmetric"))


def test_chips_are_pasted_in_the_order_of_their_draws_one_number_at_a_time():
    """An independent reading of the draws: one call for each number, too large chips leave theirs out."""
    rng = np.random.default_rng(1)
    sizes = [(3, 4), (40, 2), (16, 16), (1, 1), (2, 17)]
    chips = [(rng.integers(1, 255, size, np.uint8), rng.random(size) > 0.5) for size in sizes]
    paste = CopyPaste(chips, probability=1.0)
    for seed in range(30):
        image, mask = np.zeros((16, 16), np.uint8), np.zeros((16, 16), bool)
        out, out_mask = paste(image, mask, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        rng.random()
        for index in rng.integers(len(chips), size=rng.integers(1, 101)):
            h, w = sizes[index]
            if h <= 16 and w <= 16:
                top, left = rng.integers(0, 17 - h), rng.integers(0, 17 - w)
                image[top : top + h, left : left + w], mask[top : top + h, left : left + w] = chips[index]
        np.testing.assert_array_equal(out, image)
        np.testing.assert_array_equal(out_mask, mask)
