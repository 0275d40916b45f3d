"""Files become frames: their values, their number, and what is refused."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from sam_spl.data.reading import as_image, read_image
from sam_spl.errors import InputError
from sam_spl.predict.frames import Frame, read, to_unit
from sam_spl.predict.inputs import Source
from tests.conftest import write_palette_png

GREY = np.random.default_rng(5).integers(0, 256, (40, 56), dtype=np.uint8)
COLOUR = np.random.default_rng(6).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def frames(path: Path, *options) -> list[Frame]:
    return list(read(Source(path, path.name, path.stem), *options))


def png_header(path: Path, width: int, height: int) -> Path:
    """A PNG that states a size and holds hardly any of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(99))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    return path


def video(path: Path, count: int, rate: float = 12.5, colour: bool = False) -> Path:
    """A bright square of 4 pixels that moves by 2 pixels a frame."""
    code = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, (96, 64))
    for k in range(count):
        frame = np.full((64, 96, 3), (90, 40, 10) if colour else (40, 40, 40), np.uint8)
        frame[20:24, 4 + 2 * k % 80 : 8 + 2 * k % 80] = 250
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".pgm", ".jpg"])
def test_files_are_read_as_data_sets_are(image, suffix, tmp_path):
    if suffix == ".pgm" and image.ndim == 3:
        suffix = ".ppm"
    cv2.imwrite(str(tmp_path / f"a{suffix}"), image)
    (frame,) = frames(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(frame.image, read_image(tmp_path / f"a{suffix}"))
    assert (frame.name, frame.index, frame.scale, frame.rate) == ("a", None, "full", None)
    assert frame.image.ndim == image.ndim
    if suffix == ".png":
        np.testing.assert_array_equal(frame.image, image if image.ndim == 2 else image[..., ::-1])


def test_palettes_and_alpha_are_read(tmp_path):
    palette = np.stack([np.arange(256), np.arange(255, -1, -1), np.full(256, 7)], -1).astype(np.uint8)
    write_palette_png(tmp_path / "p.png", GREY, palette)
    (frame,) = frames(tmp_path / "p.png")
    np.testing.assert_array_equal(frame.image, palette[GREY])
    PIL.Image.fromarray(np.dstack([COLOUR, GREY])).save(tmp_path / "alpha.png")
    (frame,) = frames(tmp_path / "alpha.png")
    np.testing.assert_array_equal(frame.image, COLOUR)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_exif_says(suffix, orientation, tmp_path):
    """As every program shows it. Pillow's own rule is the reference."""
    exif = PIL.Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    PIL.Image.fromarray(COLOUR).save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    with PIL.Image.open(path) as image:
        expected = np.asarray(PIL.ImageOps.exif_transpose(image))
    (frame,) = frames(path)
    for found in (frame.image, as_image(path)):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found.astype(int), expected, atol=8 if suffix == ".jpg" else 0)


def test_an_exif_entry_that_is_damaged_turns_nothing(tmp_path):
    PIL.Image.fromarray(GREY).save(tmp_path / "a.png", exif=b"Exif\0\0nothing of TIFF")
    np.testing.assert_array_equal(frames(tmp_path / "a.png")[0].image, GREY)


def test_values_get_to_0_and_1_by_the_rule_that_is_asked_for():
    image = np.array([[7000, 7500], [8000, 9000]], np.uint16)
    assert to_unit(GREY)[0] is GREY
    assert to_unit(image, "full")[0] is image
    unit, rule = to_unit(image)
    assert (rule, unit.dtype) == ("minmax", np.float32)
    np.testing.assert_allclose(unit, [[0, 0.25], [0.5, 1]])
    np.testing.assert_allclose(to_unit(image.astype(np.float32) - 7100)[0], [[0, 0.25], [0.5, 1]], atol=1e-6)
    np.testing.assert_allclose(to_unit(image.astype(np.int32) - 7100)[0], [[0, 0.25], [0.5, 1]], atol=1e-6)
    np.testing.assert_array_equal(to_unit(np.full((2, 3), 5, np.uint16))[0], 0)
    full = np.array([[0, 65535]], np.uint16)
    np.testing.assert_array_equal(to_unit(full, "minmax")[0], [[0, 1]])


def test_percentiles_cut_off_what_lies_outside():
    ramp = np.arange(1001, dtype=np.uint16).reshape(7, 143) + 5000
    unit, rule = to_unit(ramp, "percentile")  # percentiles 0.1 and 99.9 of 0 .. 1000 are 1 and 999
    assert rule == "percentile"
    np.testing.assert_allclose(unit.ravel(), np.clip((np.arange(1001) - 1) / 998, 0, 1), atol=1e-6)


def test_values_without_a_scale_are_refused():
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="not finite"):
            to_unit(np.array([[0, bad]], np.float32))
    with pytest.raises(InputError, match="float32 values, which have no full scale: --range minmax"):
        to_unit(np.zeros((2, 2), np.float32), "full")


def test_a_file_of_14_bits_in_16_says_how_it_was_scaled(tmp_path):
    deep = GREY.astype(np.uint16) * 20 + 7000
    cv2.imwrite(str(tmp_path / "a.tif"), deep)
    PIL.Image.fromarray(deep.astype(np.float32)).save(tmp_path / "f.tif")
    for name in ("a.tif", "f.tif"):
        (frame,) = frames(tmp_path / name)
        assert frame.scale == "minmax"
        np.testing.assert_allclose(frame.image, (GREY - GREY.min()) / np.ptp(GREY), atol=1e-6)
    (frame,) = frames(tmp_path / "a.tif", "full")
    assert (frame.scale, frame.image.dtype) == ("full", np.uint16)
    np.testing.assert_array_equal(frame.image, deep)


@pytest.mark.parametrize("kind", ["L", "I;16", "RGB", "P"])
def test_each_page_of_a_stack_is_a_frame(kind, tmp_path):
    shape = (3, 40, 56, 3) if kind == "RGB" else (3, 40, 56)
    values = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    if kind == "I;16":
        values = values.astype(np.uint16) * 16 + 3
    pages = [PIL.Image.fromarray(one) for one in values]
    if kind == "P":
        pages = [page.convert("P") for page in pages]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    found = frames(tmp_path / "s.tif", "full")
    assert [(one.name, one.index, one.of) for one in found] == [(f"s/{k:06d}", k, 3) for k in range(3)]
    for one, expected in zip(found, values, strict=True):
        np.testing.assert_array_equal(one.image, expected)


def test_smaller_copies_in_a_tiff_file_are_no_frames(tmp_path):
    page, copy = PIL.Image.fromarray(GREY), PIL.Image.fromarray(GREY[::2, ::2].copy())
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(tmp_path / "s.tif", save_all=True, append_images=[copy])
    (frame,) = frames(tmp_path / "s.tif")
    assert (frame.name, frame.index, frame.image.shape) == ("s", None, GREY.shape)


def test_a_stack_cut_short_keeps_the_pages_before(tmp_path):
    pages = [PIL.Image.fromarray(np.roll(GREY, k, 0)) for k in range(5)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    data = (tmp_path / "s.tif").read_bytes()
    (tmp_path / "s.tif").write_bytes(data[: len(data) * 7 // 10])
    found = []
    with pytest.raises(InputError, match=r"page \d .*is not (a )?readable"):
        for frame in read(Source(tmp_path / "s.tif", "s.tif", "s")):
            found.append(frame)
    assert len(found) == 3
    for k, frame in enumerate(found):
        np.testing.assert_array_equal(frame.image, np.roll(GREY, k, 0))


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_video_is_read_frame_by_frame(suffix, tmp_path):
    found = frames(video(tmp_path / f"v{suffix}", 9))
    assert [one.name for one in found] == [f"v/{k:06d}" for k in range(9)]
    assert {(one.rate, one.of, one.image.shape, one.scale) for one in found} == {(12.5, 9, (64, 96), "full")}
    for k, one in enumerate(found):  # grey, although codecs of colours round
        row, column = np.argwhere(one.image > 150).mean(0)
        assert (row, column) == pytest.approx((21.5, 5.5 + 2 * k), abs=0.3)


def test_a_colour_video_stays_colour_in_the_order_red_green_blue(tmp_path):
    image = frames(video(tmp_path / "v.mp4", 3, colour=True))[0].image
    np.testing.assert_allclose(image[50, 50], (10, 40, 90), atol=12)


def test_a_video_cut_short_keeps_what_can_be_read(tmp_path):
    path = video(tmp_path / "v.avi", 60)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = []
    with pytest.raises(InputError, match=r"ends after \d+ of 60 frames \(cut short\?\)"):
        for frame in read(Source(path, "v.avi", "v")):
            found.append(frame.index)
    assert 20 < len(found) < 40
    assert found == list(range(len(found)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", "is empty"),
        ("a.png", b"nothing of an image", r"is not a readable image \(damaged, or of"),
        ("a.gif", b"GIF89a", "is not a readable image"),
        ("a.tif", b"II*\0\xff\xff\xff\xff", "is not a readable image"),
        ("a.mp4", b"nothing of a video", "is not a readable video"),
        ("a.avi", b"", "is empty"),
    ],
)
def test_files_that_are_none_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        frames(tmp_path / name)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_half_a_file_is_refused(suffix, tmp_path):
    data = cv2.imencode(suffix, GREY)[1].tobytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="is not a readable image"):
        frames(tmp_path / f"a{suffix}")


def test_no_content_of_a_file_raises_anything_else(tmp_path):
    """Whole files with bytes changed: they can be read, or they are refused."""
    rng = np.random.default_rng(0)
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp", ".pgm", ".gif"):
        PIL.Image.fromarray(GREY).save(tmp_path / f"a{suffix}")
        whole = np.frombuffer((tmp_path / f"a{suffix}").read_bytes(), np.uint8)
        for _ in range(15):
            data = whole.copy()
            data[rng.integers(0, min(200, len(data)), 3)] = rng.integers(0, 256, 3)
            (tmp_path / f"b{suffix}").write_bytes(data.tobytes())
            try:
                (frame,) = frames(tmp_path / f"b{suffix}", "auto", 0.1)
                as_image(frame.image)
            except InputError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_animated_files_are_refused(suffix, tmp_path):
    pages = [PIL.Image.fromarray(np.roll(GREY, 5 * k, 0)) for k in range(3)]
    path = tmp_path / f"a{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"is animated \(3 frames\)"):
        frames(path)


READ = """
import sys
from pathlib import Path
from sam_spl.errors import InputError
from sam_spl.predict.frames import read
from sam_spl.predict.inputs import Source
for path in map(Path, sys.argv[1:]):
    try:
        print(len(list(read(Source(path, path.name, path.stem)))))
    except InputError as error:
        print(error)
"""


def test_libraries_say_nothing_of_a_damaged_video_themselves(tmp_path, command):
    """In a process of its own: FFmpeg is told at its first use."""
    path = video(tmp_path / "v.mp4", 20)
    data = path.read_bytes()
    (tmp_path / "half.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "hole.mp4").write_bytes(data[:200] + bytes(400) + data[600:])
    (tmp_path / "tail.mp4").write_bytes(data[:4] + data[8:])
    done = command(sys.executable, "-c", READ, *sorted(tmp_path.iterdir()))
    assert done.stderr == ""
    assert done.stdout.count("is not a readable video") >= 2 and done.stdout.endswith("20\n")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    os.mkfifo(tmp_path / "a.mp4")
    for name in ("a.png", "a.mp4"):
        with pytest.raises(InputError, match="is not a regular file"):
            frames(tmp_path / name)


@pytest.mark.parametrize("size", [(60000, 60000), (20000, 20032)])
def test_a_bomb_is_refused_by_its_header_before_it_is_decoded(size, tmp_path, monkeypatch):
    def decode(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    path = png_header(tmp_path / "a.png", *size)
    with pytest.raises(
        InputError, match=f"states {size[0]}x{size[1]} pixels, above the limit of 150 million"
    ):
        frames(path)
    with pytest.raises(InputError, match="decoded"):
        frames(path, "auto", 3600.0)


def test_the_limit_can_be_moved(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), GREY)  # 2240 pixels
    assert len(frames(tmp_path / "a.png", "auto", 0.00224)) == 1
    with pytest.raises(InputError, match="states 56x40 pixels"):
        frames(tmp_path / "a.png", "auto", 0.00223)
    pages = [PIL.Image.fromarray(one) for one in (GREY[:20], GREY)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="page 2 of 2 states 56x40"):
        frames(tmp_path / "s.tif", "auto", 0.00223)
    with pytest.raises(InputError, match="states 96x64"):
        frames(video(tmp_path / "v.mp4", 2), "auto", 0.006)
    assert PIL.Image.MAX_IMAGE_PIXELS  # as it was for others
