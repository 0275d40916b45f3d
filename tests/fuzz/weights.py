"""Hostile weights, and hostile runs to resume."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import torch

from sam_spl.engine.config import TrainConfig
from tests.fuzz.change import change_bytes, change_json, change_value, hostile
from tests.fuzz.judge import Case
from tests.fuzz.valid import TEST, TRAIN

_RUN_NAMES = ("last.pt", "run", "resume", "dataset", "optimizer", "model")
_NAMES = ("weights", "half", "best", "model", "image_size", "engine")


class Code:
    """Unpickled, it imports the canary."""

    def __reduce__(self):
        return exec, ("import sys; sys.path.insert(0, '../../../../..'); import canary",)


def _use(way: int, file: Path, valid: Path) -> list[str]:
    data = str(valid / "data")
    image = str(valid / "data" / "images" / "im_2.png")
    ways = (
        ["convert", str(file), "other.safetensors", "--to", "ours"],
        ["predict", image, "--weights", str(file), "-o", "o", "device=cpu", "save=[mask]"],
        [*TEST, "--data_path", data, "--weights", str(file), "--save_dir", "o"],
        ["profile", str(file), "device=cpu", "repeat=1"],
        [*TRAIN, "trainer.epochs=1", "--weights", str(file), "save_dir=run"],
    )
    return ways[way % len(ways)]


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a file, and its tensors."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_safetensors(header: bytes, body: bytes) -> bytes:
    """The file of a header and tensors."""
    return struct.pack("<Q", len(header)) + header + body


def _described(name: str, text: str | None = None, way: int = 0, **changes: Any) -> Case:
    """A safetensors file whose description has other values, or is another text."""

    def make(folder: Path, valid: Path) -> list[str]:
        header, body = split_safetensors((valid / "weights.safetensors").read_bytes())
        description = json.loads(header["__metadata__"]["sam_spl"])
        for key, value in changes.items():
            if value is ...:
                description.pop(key, None)
            else:
                description[key] = value
        header["__metadata__"]["sam_spl"] = json.dumps(description) if text is None else text
        path = folder / "weights.safetensors"
        path.write_bytes(join_safetensors(json.dumps(header).encode(), body))
        return _use(way, path, valid)

    return Case("weights", f"{name}, way {way}", make, _NAMES)


def _argument(key: str, value: Any, way: int = 0) -> Case:
    """One argument of the network is another, or (...) is missing."""

    def make(folder: Path, valid: Path) -> list[str]:
        header, body = split_safetensors((valid / "weights.safetensors").read_bytes())
        description = json.loads(header["__metadata__"]["sam_spl"])
        if value is ...:
            del description["arguments"][key]
        else:
            description["arguments"][key] = value
        header["__metadata__"]["sam_spl"] = json.dumps(description)
        path = folder / "weights.safetensors"
        path.write_bytes(join_safetensors(json.dumps(header).encode(), body))
        return _use(way, path, valid)

    shown = "missing" if value is ... else json.dumps(value)[:30]
    return Case("weights", f"argument {key} {shown}, way {way}", make, _NAMES)


def _tensors(name: str, change: Callable[[dict[str, Any]], Any], way: int = 0) -> Case:
    """A ``.pt`` file whose content ``change`` changes in place, or gives anew."""

    def make(folder: Path, valid: Path) -> list[str]:
        content = torch.load(valid / "weights.pt", weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, folder / "weights.pt")
        return _use(way, folder / "weights.pt", valid)

    return Case("weights", f"{name}, way {way}", make, _NAMES)


def _raw(name: str, suffix: str, write: Callable[[Path, Path], None], way: int = 0) -> Case:
    def make(folder: Path, valid: Path) -> list[str]:
        write(folder / f"weights{suffix}", valid)
        return _use(way, folder / f"weights{suffix}", valid)

    return Case("weights", f"{name}, way {way}", make, _NAMES)


def _first(content: dict[str, Any], change: Callable[[torch.Tensor], Any]) -> None:
    key = next(key for key, value in content["model"].items() if value.ndim > 1)
    content["model"][key] = change(content["model"][key])


def _every(content: dict[str, Any], value: float) -> None:
    for tensor in content["model"].values():
        if tensor.is_floating_point():
            tensor.fill_(value)


def _quantised(tensor: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def _legacy(content: Any) -> Callable[[Path, Path], None]:
    return lambda path, valid: torch.save(content, path, _use_new_zipfile_serialization=False)


def _bomb(path: Path, valid: Path) -> None:
    """Tensors that state far more than is there."""
    header, _ = split_safetensors((valid / "weights.safetensors").read_bytes())
    table = {"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    path.write_bytes(
        join_safetensors(json.dumps({**table, "__metadata__": header["__metadata__"]}).encode(), b"")
    )


def _expanded(path: Path, valid: Path) -> None:
    """A tensor of 10^12 values that is one value, seen through strides of zero."""
    content = torch.load(valid / "weights.pt", weights_only=True)
    _first(content, lambda tensor: torch.zeros(1).expand(10**6, 10**6))
    torch.save(content, path)


def _deflated(path: Path, valid: Path) -> None:
    """An archive whose 3 GB of zeros take 3 MB."""
    with zipfile.ZipFile(valid / "weights.pt") as source, zipfile.ZipFile(path, "w", 8) as target:
        for entry in source.infolist():
            data = source.read(entry)
            target.writestr(entry.filename, data)
        with target.open("weights/data/9999", "w", force_zip64=True) as stream:
            for _ in range(300):
                stream.write(bytes(10**7))


def _named_weights() -> list[Case]:
    cases = []
    texts = {
        "no JSON": "{",
        "empty": "",
        "a list": "[]",
        "null": "null",
        "a number": "1",
        "NaN": '{"mean": [NaN]}',
        "nested 10^5 deep": "[" * 10**5 + "]" * 10**5,
        "a number of 10^5 digits": f'{{"image_size": {"9" * 10**5}}}',
    }
    cases += [_described(f"metadata {name}", text) for name, text in texts.items()]
    for size in (-5, 0, "x", 64.5, 20000, 10**12, True, [64], None, float("inf")):
        cases += [_described(f"image_size {size!r}", way=way, image_size=size) for way in (0, 1, 2, 3)]
    for key in ("model", "arguments", "mean", "std", "image_size", "in_channels", "resize", "threshold"):
        for value in (..., None, [], {}, "x", -1, 1e308, [None], ["a"], "canary:Net"):
            shown = "missing" if value is ... else repr(value)
            cases.append(_described(f"{key} {shown}", way=len(cases), **{key: value}))
    for key in ("trained_on", "calibration", "title", "settings", "selected_by", "extra"):
        for value in (None, [], {"a": [1]}, "\x1b[31m\n" * 9, "a" * 10**6, 1e308):
            cases.append(_described(f"{key} {str(value)[:9]!r}", way=2, **{key: value}))
    arguments = {
        "stages": ([], [0, 0, 0], [-1, 2, 2], [1], [1, 2, 2, 2, 2, 2, 2], [10**9, 1, 1], [1, 10**5, 2], "x"),
        "block": ("x", "", 1, None, "canary:Net", "__class__", "a" * 9999),
        "window_spec": ([], [0, 0, 0], [-1, -1, -1], [4], [10**6] * 3, [4, 2, 1e9], None),
        "num_heads": (0, -1, 3, 10**9, 1.5, "1", None, True),
        "embed_dim": (0, -16, 1, 17, 10**6, 10**12, 1e308, "16", None),
        "global_att_blocks": ([-1], [10**12], ["a"], None, list(range(5))),
        "pos_size": ([0, 0], [-1, 7], [10**5, 10**5], [7], 7, [7, 7, 7]),
        "use_sam_decoder": (0, "x", None, []),
        "head_bias": (1e308, "x", [1.0], float("inf")),
        "unknown": (1,),
        "self": (1,),
    }
    for key, values in arguments.items():
        if key not in ("unknown", "self"):
            cases.append(_argument(key, ...))
        cases += [_argument(key, value, way=k % 4) for k, value in enumerate(values)]
    for way in range(5):
        cases += [
            _tensors("NaN", lambda content: _every(content, float("nan")), way),
            _tensors("infinite", lambda content: _every(content, float("inf")), way),
            _tensors("3e38", lambda content: _every(content, 3e38), way),
            _tensors("sparse", lambda content: _first(content, lambda t: t.to_sparse()), way),
            _tensors("meta", lambda content: _first(content, lambda t: t.to("meta")), way),
            _tensors("quantised", lambda content: _first(content, _quantised), way),
            _tensors("complex", lambda content: _first(content, lambda t: t + 0j), way),
            _tensors("integers", lambda content: _first(content, lambda t: t.int()), way),
            _tensors("float8", lambda content: _first(content, lambda t: t.to(torch.float8_e4m3fn)), way),
            _tensors("a number", lambda content: _first(content, lambda t: 1.0), way),
            _tensors("missing", lambda content: (content["model"].popitem(), None)[1], way),
            _tensors("code", lambda content: {"state_dict": Code()}, way),
            _tensors("network named by a file", _name_the_canary, way),
        ]
    cases += [
        _raw("expanded tensor", ".pt", _expanded),
        _raw("safetensors of 4 TB", ".safetensors", _bomb),
        _raw("archive of 3 GB of zeros", ".pt", _deflated),
        _raw("legacy pickle of code", ".pt", _legacy({"a": Code()})),
        _raw("legacy pickle of numbers", ".pt", _legacy({"a": 1})),
        _raw("bare pickle of code", ".pt", lambda path, valid: path.write_bytes(pickle.dumps(Code()))),
        _raw("bare pickle called pth", ".pth", lambda path, valid: path.write_bytes(pickle.dumps([Code()]))),
        _raw("deep pickle", ".pt", lambda path, valid: path.write_bytes(b"\x80\x02" + b"]" * 10**6 + b".")),
        _raw("empty pt", ".pt", lambda path, valid: path.write_bytes(b"")),
        _raw("empty safetensors", ".safetensors", lambda path, valid: path.write_bytes(b"")),
        _raw("safetensors of zeros", ".safetensors", lambda path, valid: path.write_bytes(bytes(100))),
        _raw("header of 10^12", ".safetensors", lambda path, valid: path.write_bytes(b"\0\0\0\0\0\1\0\0{}")),
        _raw("FIFO", ".pt", lambda path, valid: os.mkfifo(path)),
        _raw("FIFO of safetensors", ".safetensors", lambda path, valid: os.mkfifo(path)),
        _raw("folder called pt", ".pt", lambda path, valid: path.mkdir()),
        _raw("onnx of text", ".onnx", lambda path, valid: path.write_bytes(b"text"), 1),
        _raw("onnx empty", ".onnx", lambda path, valid: path.write_bytes(b""), 2),
        _raw(
            "onnx of random bytes",
            ".onnx",
            lambda path, valid: path.write_bytes(Random(1).randbytes(5000)),
            1,
        ),
        _raw(
            "state dict with odd names",
            ".pth",
            lambda path, valid: torch.save({"\n" * 900: torch.zeros(2)}, path),
        ),
        _raw("state dict of 10^5 names", ".pth", _many),
    ]
    return cases


def _name_the_canary(content: dict[str, Any]) -> None:
    content["description"] |= {"model": "../../../../../canary.py:Net", "arguments": {}}


def _many(path: Path, valid: Path) -> None:
    torch.save({f"name_{k}": torch.zeros(1).expand(2) for k in range(10**4)}, path)


def _random_weights(rng: Random, folder: Path, valid: Path) -> list[str]:
    kind = rng.randrange(5)
    suffix = ".safetensors" if kind < 3 else ".pt"
    path = folder / f"weights{suffix}"
    data = (valid / path.name).read_bytes()
    if kind == 0:
        path.write_bytes(change_bytes(rng, data))
    elif kind in (1, 2):
        header, body = split_safetensors(data)
        if kind == 1:
            text = header["__metadata__"]["sam_spl"]
            header["__metadata__"]["sam_spl"] = change_json(rng, text).decode("utf-8", "replace")
            path.write_bytes(join_safetensors(json.dumps(header).encode(), body))
        else:
            path.write_bytes(join_safetensors(change_json(rng, json.dumps(header)), body))
    elif kind == 3:
        path.write_bytes(_changed_archive(rng, data))
    else:
        content = torch.load(io.BytesIO(data), weights_only=True)
        _change_content(rng, content)
        torch.save(content, path)
    return _use(rng.randrange(5), path, valid)


def _changed_archive(rng: Random, data: bytes) -> bytes:
    """A ``.pt`` file with another pickle in it, or damaged as a whole."""
    if rng.random() < 0.3:
        return change_bytes(rng, data)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(stream, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = _changed_pickle(rng, content)
            target.writestr(entry.filename, content)
    return stream.getvalue()


def _changed_pickle(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 10))):
        at = rng.randrange(len(changed))
        changed[at : at + rng.choice((0, 1))] = bytes([rng.choice(b"cR(]})t0Nb.\x80QhqXKJ")])
    return bytes(changed)


def _change_content(rng: Random, content: dict[str, Any]) -> None:
    """Change one thing in what ``torch.load`` gave, in place."""
    key = rng.choice(list(content))
    value = content[key]
    if rng.random() < 0.1:
        del content[key]
    elif rng.random() < 0.1:
        content[key] = hostile(rng)
    elif isinstance(value, dict) and any(isinstance(one, torch.Tensor) for one in value.values()):
        name = rng.choice(list(value))
        one = value[name]
        others = (None, 1.0, "x", torch.zeros(0), torch.zeros(3), torch.zeros(2, dtype=torch.int64), [one])
        if rng.random() < 0.2 or not isinstance(one, torch.Tensor):
            value.pop(name)
        else:
            value[name] = rng.choice((*others, one.half(), one.double(), one * float("nan"), one[None]))
    elif isinstance(value, dict | list):
        content[key] = _changed_deep(rng, value)
    else:
        content[key] = hostile(rng)


def _changed_deep(rng: Random, value: Any) -> Any:
    try:
        return change_value(rng, value)
    except RuntimeError:  # tensors that cannot be copied
        return hostile(rng)


@contextmanager
def _recursion(limit: int) -> Iterator[None]:
    """Write what is nested deeper than Python's limit; what reads it has the usual one."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(usual)


def _resume(name: str, change: Callable[[dict[str, Any]], Any], kind: str = "last.pt") -> Case:
    """A run whose ``last.pt`` holds something else."""

    def make(folder: Path, valid: Path) -> list[str]:
        run = Path(shutil.copytree(valid / "run", folder / "out" / "run"))
        content = torch.load(run / "last.pt", weights_only=True)
        changed = change(content)
        with _recursion(10**4):
            torch.save(content if changed is None else changed, run / "last.pt")
        return ["train", "--resume", str(run), "trainer.epochs=2"]

    return Case(kind, name, make, _RUN_NAMES)


def _config(name: str, path: str, value: Any) -> Case:
    def change(content: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        values = content["config"]
        for parent in parents:
            values = values[parent]
        values[last] = value

    return _resume(f"config {name}", change)


def _groups(content: dict[str, Any], **values: Any) -> None:
    for group in content["optimizer"]["param_groups"]:
        group.update(values)


def _moments(content: dict[str, Any], change: Callable[[torch.Tensor], Any]) -> None:
    for state in content["optimizer"]["state"].values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                state[key] = change(value)


def _half_with(scaler: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["config"]["precision"], content["scaler"] = "fp16", scaler

    return change


def _brackets(depth: int) -> Any:
    nested: Any = 0
    for _ in range(depth):
        nested = {"a": [nested]}
    return nested


_PLACE = 0x5EED5EED  # a number that stands where another value goes


def _rewritten(data: bytes, place: bytes = b"", *, more: bool = False) -> bytes:
    """An archive with other pickled bytes where :data:`_PLACE` is, or 3 GB of zeros more, which take 3 MB."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(stream, "w", 8 if more else 0) as target,
    ):
        for entry in source.infolist():
            content = source.read(entry)
            if place and entry.filename.endswith("data.pkl"):
                content = content.replace(b"J" + struct.pack("<i", _PLACE), place)
            target.writestr(entry.filename, content)
        if more:
            name = f"{source.infolist()[0].filename.partition('/')[0]}/data/9999"
            with target.open(name, "w", force_zip64=True) as zeros:
                for _ in range(300):
                    zeros.write(bytes(10**7))
    return stream.getvalue()


def _nested(key: str) -> Case:
    """A value of ``last.pt`` is brackets in brackets, too deep for ``torch.save`` to write."""

    def make(folder: Path, valid: Path) -> list[str]:
        run = Path(shutil.copytree(valid / "run", folder / "out" / "run"))
        content = torch.load(run / "last.pt", weights_only=True)
        content[key] = [{"epoch": 1, "loss": _PLACE}] if key == "history" else {**content[key], "a": _PLACE}
        torch.save(content, run / "last.pt")
        nested = b"]" * 10**5 + b"a" * (10**5 - 1)
        (run / "last.pt").write_bytes(_rewritten((run / "last.pt").read_bytes(), nested))
        return ["train", "--resume", str(run), "trainer.epochs=2"]

    return Case("last.pt", f"{key} nested 10^5 deep", make, _RUN_NAMES)


_WITHIN = ("step", "total", "seen", "seconds", "bad", "skipped", "bad_in_row", "lr", "minutes")


def _named_within() -> list[Case]:
    """What ``last.pt`` says of an epoch that is under way."""
    values = (
        None,
        True,
        -1,
        1,
        2.5,
        10**12,
        10**400,
        1e308,
        float("nan"),
        float("inf"),
        "x",
        [1],
        torch.ones(2),
    )
    cases = []
    for key in _WITHIN:
        for value in values:

            def change(content: dict[str, Any], key: str = key, value: Any = value) -> None:
                content["within"] = {**content["within"], key: value}

            shown = repr(value).replace("\n", "")[:15]
            cases.append(_resume(f"within {key} {shown}", change))
    more: dict[str, dict[Any, Any]] = {
        "the last step without time": {"step": 1, "seen": 2, "seconds": 0.0},
        "the last step in no time": {"step": 1, "seen": 2, "seconds": 1e-320},
        "the last step without images": {"step": 1, "seen": 0, "seconds": 1.0},
        "numbers as keys": {1: 2},
        "unknown keys": {"epoch": 7, "model": 1, "__class__": 1},
    }
    return cases + [
        _resume(f"within {name}", lambda c, w=w: c["within"].update(w)) for name, w in more.items()
    ]


def _named_previous() -> list[Case]:
    """``last.pt`` is torn, and ``last.previous.pt`` beside it is one thing or another."""
    previous: dict[str, Callable[[Path, bytes], Any]] = {
        "valid": lambda path, data: path.write_bytes(data),
        "torn as well": lambda path, data: path.write_bytes(data[: len(data) // 2]),
        "empty": lambda path, data: path.write_bytes(b""),
        "code": lambda path, data: torch.save({"format": Code()}, path),
        "bare pickled code": lambda path, data: path.write_bytes(pickle.dumps(Code())),
        "a folder": lambda path, data: path.mkdir(),
        "a FIFO": lambda path, data: os.mkfifo(path),
        "a link to itself": lambda path, data: path.symlink_to(path.name),
        "a link to last.pt": lambda path, data: path.symlink_to("last.pt"),
        "the weights": lambda path, data: torch.save({"model": {"a": torch.zeros(1)}}, path),
    }
    lasts: dict[str, Callable[[Path, bytes], Any]] = {
        "torn": lambda path, data: path.write_bytes(data[: len(data) // 2]),
        "missing": lambda path, data: path.unlink(),
        "a FIFO": lambda path, data: (path.unlink(), os.mkfifo(path)),
    }
    cases = []
    for name, write in previous.items():
        for last, spoil in lasts.items():

            def make(folder: Path, valid: Path, write: Any = write, spoil: Any = spoil) -> list[str]:
                run = Path(shutil.copytree(valid / "run", folder / "out" / "run"))
                data = (run / "last.pt").read_bytes()
                (run / "last.previous.pt").unlink(missing_ok=True)
                write(run / "last.previous.pt", data)
                spoil(run / "last.pt", data)
                return ["train", "--resume", str(run), "trainer.epochs=2"]

            cases.append(Case("last.pt", f"{last}, previous {name}", make, _RUN_NAMES))
    return cases


def _named_runs() -> list[Case]:
    keys = (
        "format",
        "config",
        "description",
        "model",
        "optimizer",
        "scaler",
        "epoch",
        "history",
        "processes",
    )
    keys += ("ema", "ema_updates", "best", "frozen", "rng", "within", "cuda_rng")
    cases = []
    for key in keys:
        cases.append(_resume(f"{key} missing", lambda content, k=key: content.__delitem__(k)))
        for value in (None, True, -1, 10**12, 10**400, 1e308, "x", [], {}, [1], {"a": 1}, torch.zeros(2)):
            shown = repr(value).replace("\n", "")[:15]
            cases.append(_resume(f"{key} {shown}", lambda content, k=key, v=value: content.__setitem__(k, v)))
    canary = "../../../../../canary.py:{}"
    cases += [
        _config("network of code", "model.name", canary.format("Net")),
        _config("loss of code", "loss.name", canary.format("sing")),
        _config("augmentation of code", "trainer.augment", canary.format("sing")),
        _config("the set's augmentation of code", "dataset.augment", canary.format("sing")),
        _config("logger of code", "logger", canary.format("sing")),
        _config("test_on of code", "test_on", [canary.format("sing")]),
        _config("optimizer of code", "optimizer.name", canary.format("sing")),
        _config("optimizer that is no name", "optimizer.name", "../x"),
        _config("recipe out of the folder", "recipe", "../../../x"),
        _config("interpolation of the environment", "dataset.title", "${oc.env:HOME}"),
        _config("interpolation of nothing", "dataset.title", "${nothing}"),
        _config("title out of the folder", "dataset.title", "../../../x"),
        _config("save_dir elsewhere", "save_dir", "/"),
        _config("data_path null", "dataset.data_path", None),
        _config("image_size 10^6", "dataset.image_size", 10**6),
        _config("image_size text", "dataset.image_size", "x"),
        _config("synthetic -1", "dataset.synthetic", {"train": -1}),
        _config("synthetic 10^12", "dataset.synthetic", {"train": 10**12}),
        _config("synthetic unknown", "dataset.synthetic", {"a" * 9999: 1}),
        _config("batch_size 10^12", "trainer.batch_size", 10**12),
        _config("lr NaN", "optimizer.lr", float("nan")),
        _config("members", "dataset.members", [{"name": "x", "augment": canary.format("sing")}]),
        _config("members of nothing", "dataset.members", [None]),
        _config("unknown key", "unknown", 1),
        _config("embed_dim", "model.arguments", {"embed_dim": 10**9}),
        _config("lr nested 400 deep", "optimizer.lr", _brackets(400)),
        _config("suggested", "model.suggested", {"head_bias": "x"}),
        _config("synthetic nested", "dataset.synthetic", {"scr": [[[]]]}),
        _resume(
            "frozen elsewhere", lambda c: c.update(frozen={"file": "../../x.safetensors", "sha256": "0"})
        ),
        _resume("history of NaN", lambda c: c.update(history=[{"epoch": float("nan")}] * 3)),
        _resume("history of others", lambda c: c.update(history=["x", None])),
        _resume("model of code", lambda c: c.update(model=Code())),
        _resume("rng of another size", lambda c: c.update(rng=torch.zeros(7, dtype=torch.uint8))),
        _resume("rng of floats", lambda c: c.update(rng=torch.zeros(5056))),
        _resume("optimizer groups", lambda c: c["optimizer"].update(param_groups=[])),
        _resume("optimizer state", lambda c: c["optimizer"].update(state={0: {"exp_avg": "x"}})),
        _resume("optimizer step", lambda c: _groups(c, step=-2)),
        _resume("optimizer betas", lambda c: _groups(c, betas="x")),
        _resume("optimizer lr_scale", lambda c: _groups(c, lr_scale="x")),
        _resume("optimizer weight_decay", lambda c: _groups(c, weight_decay=1e308)),
        _resume("optimizer moments of another shape", lambda c: _moments(c, lambda t: torch.zeros(3))),
        _resume("optimizer moments of NaN", lambda c: _moments(c, lambda t: t * float("nan"))),
        _resume("optimizer moments of integers", lambda c: _moments(c, lambda t: t.long())),
        _resume("optimizer moments sparse", lambda c: _moments(c, lambda t: t.to_sparse())),
        _resume("optimizer moments meta", lambda c: _moments(c, lambda t: t.to("meta"))),
        _resume("history of huge numbers", lambda c: c["history"][0].update(iou=10**400)),
        _resume("history of 10^5 rows", lambda c: c.update(history=c["history"] * 10**5)),
        _resume("cuda_rng of another size", lambda c: c.update(cuda_rng=torch.zeros(7, dtype=torch.uint8))),
        _resume("scaler of text", _half_with({"scale": "x", "growth_factor": [], "_growth_tracker": None})),
        _resume("scaler of nothing", _half_with({})),
        *(_nested(key) for key in ("config", "description", "history", "optimizer", "within", "model")),
        *_named_within(),
        *_named_previous(),
        _resume("a list", lambda c: [1]),
        _resume("nothing", lambda c: {}),
    ]
    whole = {
        "torn": lambda data: data[: len(data) // 2],
        "empty": lambda data: b"",
        "zeros": lambda data: bytes(len(data)),
        "text": lambda data: b"text",
        "pickled code": lambda data: pickle.dumps(Code()),
        "of 3 GB of zeros": lambda data: _rewritten(data, more=True),
        "of other checksums": lambda data: data.replace(b"sam_spl_t", b"sam_spl_s"),
    }
    for name, change in whole.items():

        def make(folder: Path, valid: Path, change: Callable[[bytes], bytes] = change) -> list[str]:
            run = Path(shutil.copytree(valid / "run", folder / "out" / "run"))
            (run / "last.pt").write_bytes(change((run / "last.pt").read_bytes()))
            return ["train", "--resume", str(run), "trainer.epochs=2"]

        cases.append(Case("last.pt", f"whole {name}", make, ("last.pt", "run")))
    return cases


def _metrics(name: str, change: Callable[[bytes], bytes] | None) -> Case:
    def make(folder: Path, valid: Path) -> list[str]:
        run = Path(shutil.copytree(valid / "run", folder / "out" / "run"))
        path = run / "metrics.jsonl"
        data = path.read_bytes()
        path.unlink()
        if change is None:
            path.mkdir() if name == "folder" else os.mkfifo(path) if name == "FIFO" else None
        else:
            path.write_bytes(change(data))
        return ["train", "--resume", str(run), "trainer.epochs=2"]

    return Case("metrics.jsonl", name, make, ("metrics.jsonl", "run"))


_NAMED_METRICS = [
    _metrics("torn last line", lambda data: data[:-20]),
    _metrics("half a line more", lambda data: data + b'{"epoch": 2, "lo'),
    _metrics("empty", lambda data: b""),
    _metrics("zeros", lambda data: bytes(1000)),
    _metrics("no JSON", lambda data: b"text\n"),
    _metrics("a list", lambda data: b"[]\n" + data),
    _metrics("nested 10^5 deep", lambda data: b"[" * 10**5 + b"\n"),
    _metrics("NaN", lambda data: b'{"epoch": NaN}\n'),
    _metrics("twice the same epoch", lambda data: data + data),
    _metrics("10 MB on one line", lambda data: b"a" * 10**7),
    _metrics("UTF-16", lambda data: data.decode().encode("utf-16")),
    _metrics("missing", None),
    _metrics("folder", None),
    _metrics("FIFO", None),
]


def _random_run(rng: Random, folder: Path, valid: Path) -> list[str]:
    run = Path(shutil.copytree(valid / "run", folder / "out" / "run"))
    path = run / "last.pt"
    kind = rng.randrange(4)
    if kind == 0:
        path.write_bytes(_changed_archive(rng, path.read_bytes()))
    else:
        content = torch.load(path, weights_only=True)
        if kind == 1:
            _change_content(rng, content)
        else:
            # Long runs are no faults: what counts the epochs and images of a run stays.
            config = copy.deepcopy(content["config"])
            changed = change_value(rng, config)
            for parent, key in (
                ("trainer", "epochs"),
                ("trainer", "minutes"),
                ("trainer", "eval_every"),
                ("dataset", "synthetic"),
            ):
                if isinstance(changed.get(parent), dict):
                    changed[parent][key] = config[parent][key]
            content["config"] = changed
        torch.save(content, path)
    return ["train", "--resume", str(run), "trainer.epochs=2"]


def _random_metrics(rng: Random, folder: Path, valid: Path) -> list[str]:
    run = Path(shutil.copytree(valid / "run", folder / "out" / "run"))
    path = run / "metrics.jsonl"
    data = path.read_bytes()
    path.write_bytes(change_bytes(rng, data) if rng.random() < 0.5 else change_json(rng, data.decode()))
    return ["train", "--resume", str(run), "trainer.epochs=2"]


NAMED = [*_named_weights(), *_named_runs(), *_NAMED_METRICS]
RANDOM = {
    "weights": (_random_weights, _NAMES),
    "last.pt": (_random_run, (*_RUN_NAMES, *(one.name for one in fields(TrainConfig)))),
    "metrics.jsonl": (_random_metrics, ("metrics.jsonl", "run")),
}
