"""Hostile images, masks, lists of them, and predictions."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import cv2
import numpy as np
import PIL.Image
from scipy.io import savemat

from tests.fuzz.change import change_bytes, hostile
from tests.fuzz.judge import Case
from tests.fuzz.valid import TEST, copy_set

_FORMS = (".png", ".jpg", ".bmp", ".tif", ".webp", ".gif", ".pgm", ".jp2")


def png(width: int, height: int, *, bits: int = 8, colour: int = 0, rows: int | None = None) -> bytes:
    """A PNG of zeros, of which only ``rows`` are there. It is written row by row: it may be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    line = bytes(1 + (width * channels * bits + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(line) for _ in range(height if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def encoded(values: np.ndarray, form: str) -> bytes:
    """An array as an image file."""
    if form == ".gif":
        stream = io.BytesIO()
        PIL.Image.fromarray(values).save(stream, "GIF")
        return stream.getvalue()
    return bytes(cv2.imencode(form, values)[1])


def _grey(value: int = 40) -> np.ndarray:
    image = np.full((40, 48), value, np.uint8)
    image[10:13, 20:23] = 255
    return image


def _float(value: float) -> bytes:
    image = np.zeros((40, 48), np.float32)
    image[10:13, 20:23] = value
    return encoded(image, ".tif")


def _integers(kind: type, low: int, high: int) -> bytes:
    stream = io.BytesIO()
    values = np.full((40, 48), low, kind)
    values[10:13, 20:23] = high
    PIL.Image.fromarray(values.astype(np.int32)).save(stream, "TIFF")
    return stream.getvalue()


#: Name -> content and suffix of an image or a mask that is not what it should be, or is only just.
_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "header of 60000x60000": (lambda: png(60000, 60000, rows=10), ".png"),
    "20000x20032 of zeros": (lambda: png(20000, 20032), ".png"),
    "20000x20032 in 16 bits": (lambda: png(20000, 20032, bits=16, rows=300), ".png"),
    "header of 2^31 - 1": (lambda: png(2**31 - 1, 1, bits=1, rows=0), ".png"),
    "header of 0x0": (lambda: png(0, 0), ".png"),
    "one pixel": (lambda: png(1, 1), ".png"),
    "1 x 15000": (lambda: png(1, 15000), ".png"),
    "palette without colours": (lambda: png(48, 40, colour=3), ".png"),
    "grey with alpha": (lambda: png(48, 40, colour=4), ".png"),
    "one bit": (lambda: png(48, 40, bits=1), ".png"),
    "empty file": (lambda: b"", ".png"),
    "text": (lambda: b"this is no image\n" * 9, ".png"),
    "only the magic": (lambda: b"\x89PNG\r\n\x1a\n", ".png"),
    "truncated": (lambda: encoded(_grey(), ".png")[:60], ".png"),
    "jpeg called png": (lambda: encoded(_grey(), ".jpg"), ".png"),
    "floats": (lambda: _float(1.0), ".tif"),
    "floats of NaN": (lambda: _float(float("nan")), ".tif"),
    "floats of inf": (lambda: _float(float("inf")), ".tif"),
    "floats of 1e30": (lambda: _float(1e30), ".tif"),
    "HDR": (lambda: encoded(np.full((40, 48, 3), 0.5, np.float32), ".hdr"), ".png"),
    "negative integers": (lambda: _integers(np.int32, -5, 200), ".tif"),
    "integers of 32 bits": (lambda: _integers(np.int32, 0, 2**31 - 1), ".tif"),
    "zip bomb of text": (lambda: zlib.compress(bytes(10**8)), ".png"),
    "bmp of negative height": (lambda: _changed_bmp(22, -(2**31)), ".bmp"),
    "bmp of 2^31 - 1": (lambda: _changed_bmp(18, 2**31 - 1), ".bmp"),
    "pgm of 10^9": (lambda: b"P5\n1000000000 1000000000\n255\n" + bytes(100), ".pgm"),
    "an html page": (lambda: b"<!doctype html><title>404</title>", ".png"),
}


def _changed_bmp(at: int, value: int) -> bytes:
    data = bytearray(encoded(_grey(), ".bmp"))
    data[at : at + 4] = struct.pack("<i", value)
    return bytes(data)


def _others(path: Path, how: str) -> None:
    """Things that are no regular files."""
    if how == "FIFO":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "link to nothing":
        path.symlink_to("nowhere.png")
    elif how == "link to itself":
        path.symlink_to(path)
    elif how == "link to /dev/zero":
        path.symlink_to("/dev/zero")
    elif how == "unreadable":
        path.write_bytes(b"x")
        path.chmod(0)


_NO_FILES = ("FIFO", "folder", "link to nothing", "link to itself", "link to /dev/zero", "unreadable")


def _use(rng: Random, part: str, folder: Path, valid: Path, name: str) -> list[str]:
    """A command that reads ``folder/data``, in which the image or mask ``name`` is hostile."""
    data = folder / "data"
    predictions = ["score", "--predictions", str(valid / "png"), "--masks", str(data / "masks")]
    ways = [
        ["check", str(data), "-o", "checks"],
        [*TEST, "--data_path", str(data), "--weights", str(valid / "run"), "split=all", "--save_dir", "o"],
        ["prepare", str(data / "images"), "--masks", str(data / "masks"), "-o", "made"],
    ]
    if part == "images":
        file = str(data / "images" / name)
        # A tile is as large as the network's input: what tiles cost is not what is tested.
        ways.append(["predict", file, "--weights", str(valid / "run"), "-o", "o", "device=cpu", "tile=none"])
        ways.append(["predict", str(data / "images"), "--weights", str(valid / "run"), "-o", "o"])
        ways.append(["visualize", file, "--weights", str(valid / "run"), "-o", "o", "formats=png"])
    else:
        ways.append([*predictions, "bootstrap=10"])
    return rng.choice(ways)


def _put(part: str, folder: Path, valid: Path, suffix: str) -> Path:
    path = copy_set(valid, folder) / part / "im_2.png"
    path.unlink()
    return path.with_suffix(suffix if suffix in (".png", ".bmp", ".tif", ".jpg") else ".png")


def _named_pictures() -> list[Case]:
    cases = []
    for part in ("images", "masks"):
        for name in (*_FILES, *_NO_FILES):
            for way in range(6 if part == "images" else 4):

                def make(
                    folder: Path, valid: Path, part: str = part, name: str = name, way: int = way
                ) -> list[str]:
                    content, suffix = _FILES.get(name, (None, ".png"))
                    path = _put(part, folder, valid, suffix)
                    if content is None:
                        _others(path, name)
                    else:
                        path.write_bytes(content())
                    return _use(_Fixed(way), part, folder, valid, path.name)

                # prepare and check tell of a folder called like an image, or of an image that is not there.
                cases.append(Case(part, f"{name}, way {way}", make, ("im_2", "data", "image", "mask")))
    return cases


class _Fixed(Random):
    """Chooses the ways one after the other."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self._at = at

    def choice(self, seq):
        return seq[self._at % len(seq)]


def _random_picture(part: str) -> Callable[[Random, Path, Path], list[str]]:
    def make(rng: Random, folder: Path, valid: Path) -> list[str]:
        form = rng.choice(_FORMS)
        values = _grey(rng.choice((0, 40)))
        if rng.random() < 0.3:
            values = np.repeat(values[..., None], 3, 2)
        if rng.random() < 0.3 and form in (".png", ".tif", ".pgm") and values.ndim == 2:
            values = values.astype(np.uint16) * 257
        path = _put(part, folder, valid, form)
        data = encoded(values, form)
        path.write_bytes(change_bytes(rng, data) if rng.random() < 0.9 else data)
        return _use(rng, part, folder, valid, path.name)

    return make


def _listing(name: str, content: bytes | None, *words: str) -> Case:
    """A data set with another training list, or a score with such a list."""

    def make(folder: Path, valid: Path) -> list[str]:
        path = copy_set(valid, folder) / "train.txt"
        path.unlink()
        if content is None:
            _others(path, name.partition(" train")[0])
        else:
            path.write_bytes(content)
        if words:
            return [word.format(data=folder / "data", valid=valid, list=path) for word in words]
        return ["check", str(folder / "data"), "-o", "checks"]

    return Case("lists", name, make, ("train.txt", "data", "im_"))


_SCORE_LIST = ("score", "--predictions", "{valid}/png", "--masks", "{data}/masks", "--list", "{list}")
_TRAIN_LIST = ("train", "--config", "dataset=custom", "dataset.data_path={data}")

_LISTS: dict[str, bytes | None] = {
    "10 MB on one line": b"a" * 10**7,
    "10 MB on one line, with slashes": b"a/" * 5 * 10**6,
    "a million lines": b"im_0\n" * 10**6,
    "a million names": b"\n".join(b"%d" % k for k in range(10**6)),
    "UTF-16 with BOM": "im_0\nim_1\n".encode("utf-16"),
    "UTF-16 without BOM": "im_0\nim_1\n".encode("utf-16-le"),
    "UTF-32 with BOM": "im_0\nim_1\n".encode("utf-32"),
    "Latin-1": "im_0\nBrücke\n".encode("latin-1"),
    "UTF-8 with BOM and CRLF": "im_0\r\nim_1\r\n".encode("utf-8-sig"),
    "empty": b"",
    "blank lines": b"\n\n \n",
    "zeros": bytes(1000),
    "paths out of the folder": b"../../../valid/data/images/im_0\n/etc/passwd\n..\n",
    "control characters": b"im_0\n\x1b[31m\x07\n",
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "FIFO train.txt": None,
    "folder train.txt": None,
    "link to /dev/zero train.txt": None,
    "link to itself train.txt": None,
}


def _random_list(rng: Random, folder: Path, valid: Path) -> list[str]:
    path = copy_set(valid, folder) / rng.choice(("train.txt", "test.txt"))
    text = path.read_text()
    if rng.random() < 0.4:
        names = [str(hostile(rng)) for _ in range(rng.choice((1, 5)))]
        text += "\n".join(name.encode("utf-8", "replace").decode() for name in names)
    coding = rng.choice(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"))
    data = text.encode(coding)
    path.write_bytes(change_bytes(rng, data) if rng.random() < 0.7 else data)
    words = rng.choice((_SCORE_LIST, _SCORE_LIST, ("check", "{data}", "-o", "checks")))
    return [word.format(data=folder / "data", valid=valid, list=path) for word in words]


def _scored(
    name: str, write: Callable[[Path], None], *words: str, about: tuple[str, ...] = ("im_1", "predictions")
) -> Case:
    """A score of valid predictions, of which one is another."""

    def make(folder: Path, valid: Path) -> list[str]:
        copied = Path(shutil.copytree(valid / "npy", folder / "predictions"))
        (copied / "im_1.npy").unlink()
        write(copied / "im_1.npy")
        masks = str(valid / "data" / "masks")
        return ["score", "--predictions", str(copied), "--masks", masks, "bootstrap=10", *words]

    return Case("predictions", name, make, about)


def _npy(header: str) -> Callable[[Path], None]:
    text = header.encode().ljust(117) + b"\n"
    return lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text + bytes(99))


def _saved(values: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, values, allow_pickle=True)


def _mat(change: Callable[[bytes], bytes], **content: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path = path.with_suffix(".mat")
        savemat(path, content or {"prob": np.full((40, 48), 0.5, np.float32)}, do_compression=True)
        path.write_bytes(change(path.read_bytes()))

    return write


class _Code:
    """Unpickled, it writes the canary's file."""

    def __reduce__(self):
        return exec, ("import canary",)


def _named_predictions() -> list[Case]:
    shape = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"
    half = np.full((40, 48), 0.5, np.float32)
    nothing = np.zeros((0, 0))
    cases = [
        _scored("npy header of 10^12", _npy(shape.format("<f4", "(1000000, 1000000)"))),
        _scored("npy header of 10^30", _npy(shape.format("<f4", f"({10**15}, {10**15})"))),
        _scored("npy header of negative sides", _npy(shape.format("<f4", "(-40, -48)"))),
        _scored("npy header of text", _npy(shape.format("<f4", "('a', 'b')"))),
        _scored("npy header with a call", _npy("__import__('canary')")),
        _scored("npy header of deep brackets", _npy("(" * 110)),
        _scored("npy of objects", _saved(np.array([[_Code()]], object))),
        _scored("npy of structures", _saved(np.zeros((40, 48), [("a", "f4")]))),
        _scored("npy of dates", _saved(np.zeros((40, 48), "M8[s]"))),
        _scored("npy of complex numbers", _saved(half * 1j)),
        _scored("npy of 200 dimensions of one", _saved(half.reshape(40, 48, *(1,) * 30))),
        _scored("npy of nothing", _saved(nothing)),
        _scored("npy of NaN", _saved(half * np.nan)),
        _scored("npy of 1e308", _saved(half.astype(float) * 1e308)),
        _scored("npy truncated", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x76")),
        _scored("npy empty", lambda path: path.write_bytes(b"")),
        _scored("npy that is a zip", lambda path: np.savez(path.open("wb"), a=half)),
        _scored("npy that is a FIFO", lambda path: os.mkfifo(path)),
        _scored("npy that is a folder", lambda path: path.mkdir()),
        _scored("mat empty", _mat(lambda data: b"")),
        _scored("mat of zeros", _mat(lambda data: bytes(1000))),
        _scored("mat truncated", _mat(lambda data: data[: len(data) // 2])),
        _scored(
            "mat of version 7.3", _mat(lambda data: b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + data)
        ),
        _scored("mat of two maps", _mat(lambda data: data, a=half, b=half)),
        _scored("mat of cells", _mat(lambda data: data, a=np.array([[half]], object))),
        _scored("mat of text", _mat(lambda data: data, a="text")),
        _scored("mat of a structure", _mat(lambda data: data, a={"b": half})),
    ]
    for bit in range(0, 8 * 200, 37):  # of the header and of what follows it

        def flip(data: bytes, bit: int = bit) -> bytes:
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)

        cases.append(_scored(f"mat with bit {bit} flipped", _mat(flip)))
    for name in ("../../x", "/proc/x", "..", ".", "a/b", "\n", "a" * 300, "x\x1b[31m"):
        about = ("name",)
        cases.append(_scored(f"named {name[:8]!r}", _saved(half), "--name", name, about=about))
    more = {"image_size": "1000000", "bootstrap": "1000000000", "scale": "nan", "fa_budget": "nan"}
    for key, value in (*more.items(), ("scale", "-1"), ("fa_budget", "inf"), ("scale", "inf")):
        cases.append(_scored(f"{key} {value}", _saved(half), f"{key}={value}", about=(key,)))
    return cases


def _random_prediction(rng: Random, folder: Path, valid: Path) -> list[str]:
    form = rng.choice(("npy", "mat", "png"))
    copied = Path(shutil.copytree(valid / form, folder / "predictions"))
    path = copied / f"im_{rng.randrange(4)}.{form}"
    path.write_bytes(change_bytes(rng, path.read_bytes()))
    masks = str(valid / "data" / "masks")
    more = rng.choice(([], [], ["--logits"], ["--resize"], ["scale=255"], ["protocols=[native,sam_spl]"]))
    return ["score", "--predictions", str(copied), "--masks", masks, "bootstrap=10", *more]


NAMED = [
    *_named_pictures(),
    *(_listing(name, content) for name, content in _LISTS.items()),
    *(_listing(f"{name}, scored", content, *_SCORE_LIST) for name, content in _LISTS.items() if content),
    *_named_predictions(),
]
RANDOM = {
    "images": (_random_picture("images"), ("im_2", "data", "images")),
    "masks": (_random_picture("masks"), ("im_2", "data", "masks", "predictions")),
    "lists": (_random_list, ("t.txt", "train.txt", "data", "im_")),
    "predictions": (_random_prediction, ("im_", "predictions")),
}
