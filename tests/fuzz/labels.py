"""Hostile COCO and LabelMe files, and result files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.change import change_json
from tests.fuzz.judge import Case

_NAMES = ("coco", "annotation", "im_", "images")


def _prepare(valid: Path, *words: str) -> list[str]:
    return ["prepare", str(valid / "data" / "images"), "-o", "made", "--unlabelled", "empty", *words]


def _coco(name: str, make: Callable[[dict[str, Any]], Any]) -> Case:
    """A COCO file that ``make`` changes in place, or gives anew (as text, too)."""

    def write(folder: Path, valid: Path) -> list[str]:
        content = json.loads((valid / "coco.json").read_text())
        changed = make(content)
        text = changed if isinstance(changed, str) else json.dumps(content if changed is None else changed)
        (folder / "coco.json").write_text(text)
        return _prepare(valid, "--coco", str(folder / "coco.json"))

    return Case("coco", name, write, _NAMES)


def _annotation(name: str, **more: Any) -> Case:
    return _coco(name, lambda content: content.__setitem__("annotations", [{"image_id": 0, **more}]))


def _circle(count: int) -> list[float]:
    angles = (2 * math.pi * k / count for k in range(count))
    return [side for a in angles for side in (24 + 15 * math.cos(a), 20 + 15 * math.sin(a))]


def _named_coco() -> list[Case]:
    nan, inf = float("nan"), float("inf")
    boxes = {
        "negative": [3, 4, -5, -6],
        "of NaN": [nan, 4, 5, 6],
        "of 1e308": [1e308, 1e308, 1e308, 1e308],
        "of -1e308": [-1e308, -1e308, 1e308, 1e308],
        "of infinity": [3, 4, inf, inf],
        "of text": ["a", "b", "c", "d"],
        "of numbers as text": ["3", "4", "5", "6"],
        "of three": [3, 4, 5],
        "of null": [None] * 4,
        "of lists": [[1], [2], [3], [4]],
        "of 10^30": [10**30, 0, 10**30, 4],
        "outside": [1000, 1000, 5, 5],
        "that is text": "1234",
        "that is null": None,
    }
    polygons = {
        "without corners": [[]],
        "of one corner": [[3, 4]],
        "of an odd number": [[3, 4, 5]],
        "of text": [["a", "b"]],
        "that is text": ["abcd"],
        "of NaN": [[nan, nan, 4, 4, 5, 5]],
        "of 1e308": [[-1e308, -1e308, 1e308, -1e308, 1e308, 1e308]],
        "of infinity": [[0, 0, inf, 0, inf, inf]],
        "of 10^30": [[0, 0, 10**30, 0, 10**30, 10**30]],
        "of null": [[None, None, 1, 1]],
        "nested deeper": [[[3, 4], [5, 6], [7, 8]]],
        "of 10^6 corners": [_circle(10**6)],
        "of 10^5 rectangles": [[3, 4, 9, 4, 9, 8, 3, 8]] * 10**5,
    }
    size = {"size": [40, 48]}
    runs = {
        "of another size": {"size": [10, 10], "counts": [100]},
        "of 3e9": {"size": [60000, 50000], "counts": [3 * 10**9]},
        "of negative size": {"size": [-40, -48], "counts": [40 * 48]},
        "of size zero": {"size": [0, 0], "counts": []},
        "of a size of text": {"size": "ab", "counts": []},
        "of a size of NaN": {"size": [nan, nan], "counts": []},
        "of a size of 1e308": {"size": [1e308, 1e308], "counts": []},
        "negative": {**size, "counts": [-5, 1925]},
        "of 1e308": {**size, "counts": [1e308]},
        "of null": {**size, "counts": None},
        "of a number": {**size, "counts": 5},
        "of letters": {**size, "counts": "éé"},
        "cut off": {**size, "counts": "ooooo"},
        "of a long number": {**size, "counts": "o" * 200000 + "0"},
        "without counts": size,
        "without size": {"counts": [1]},
    }
    cases = [_annotation(f"box {name}", bbox=box) for name, box in boxes.items()]
    cases += [_annotation(f"polygon {name}", segmentation=one) for name, one in polygons.items()]
    cases += [_annotation(f"run lengths {name}", segmentation=one) for name, one in runs.items()]
    names = {"empty": "", "of a folder": ".", "out": "../../x", "absolute": "/etc/passwd", "null": None}
    names |= {"long": "a" * 10000, "of a line feed": "\n", "of NUL": "\0.png", "list": ["im_0.png"]}
    for name, value in names.items():
        cases.append(
            _coco(f"file name {name}", lambda content, v=value: content["images"][0].update(file_name=v))
        )
    whole = {
        "empty": "",
        "null": "null",
        "a list": "[]",
        "a number": "1e999",
        "nested 10^5 deep": "[" * 10**5 + "]" * 10**5,
        "tables nested 10^5 deep": '{"a":' * 10**5 + "1" + "}" * 10**5,
        "a number of 10^5 digits": f'{{"images": [{{"id": {"9" * 10**5}, "file_name": "im_0.png"}}]}}',
        "UTF-16": "\ufeff{}",
        "images null": '{"images": null, "annotations": null}',
        "images a table": '{"images": {"a": 1}, "annotations": []}',
        "ids lists": '{"images": [{"id": [1], "file_name": "im_0.png"}], "annotations": []}',
        "no annotations": '{"images": [{"id": 1, "file_name": "im_0.png"}]}',
        "surrogates": '{"images": [{"id": 1, "file_name": "\\ud800"}], "annotations": []}',
    }
    cases += [_coco(f"whole {name}", lambda content, t=text: t) for name, text in whole.items()]
    for name in ("FIFO", "folder", "no UTF-8"):

        def make(folder: Path, valid: Path, name: str = name) -> list[str]:
            path = folder / "coco.json"
            if name == "FIFO":
                os.mkfifo(path)
            elif name == "folder":
                path.mkdir()
            else:
                path.write_bytes(b'{"a": "\xff"}')
            return _prepare(valid, "--coco", str(path))

        cases.append(Case("coco", f"file that is a {name}", make, _NAMES))
    return cases


def _labelme(name: str, make: Callable[[dict[str, Any]], Any]) -> Case:
    def write(folder: Path, valid: Path) -> list[str]:
        (folder / "labels").mkdir()
        content = json.loads((valid / "labelme" / "im_0.json").read_text())
        changed = make(content)
        text = changed if isinstance(changed, str) else json.dumps(content if changed is None else changed)
        (folder / "labels" / "im_0.json").write_text(text)
        return _prepare(valid, "--labelme", str(folder / "labels"))

    return Case("labelme", name, write, ("im_0",))


def _shape(name: str, kind: Any, points: Any) -> Case:
    shape = {"shape_type": kind, "points": points}
    return _labelme(name, lambda content: content.__setitem__("shapes", [shape]))


def _named_labelme() -> list[Case]:
    nan = float("nan")
    pairs = [[24 + 15 * math.cos(k / 1e5), 20 + 15 * math.sin(k / 1e5)] for k in range(0, 10**6, 1)]
    return [
        _shape("polygon of 10^6 points", "polygon", pairs),
        _shape("polygon of nothing", "polygon", []),
        _shape("polygon of NaN", "polygon", [[nan, nan]] * 3),
        _shape("polygon of 1e308", "polygon", [[-1e308, 0], [1e308, 0], [0, 1e308]]),
        _shape("polygon of text", "polygon", ["ab", "cd"]),
        _shape("polygon of a table", "polygon", {"a": 1}),
        _shape("point of nothing", "point", []),
        _shape("point of 1e308", "point", [[1e308, 1e308]]),
        _shape("point of infinity", "point", [[float("inf"), 0]]),
        _shape("rectangle of one", "rectangle", [[1, 2]]),
        _shape("rectangle of NaN", "rectangle", [[nan, 2], [3, nan]]),
        _shape("rectangle of 1e308", "rectangle", [[-1e308, -1e308], [1e308, 1e308]]),
        _shape("circle of one", "circle", [[1, 2]]),
        _shape("circle of NaN", "circle", [[nan, 2], [3, 4]]),
        _shape("circle of 1e308", "circle", [[0, 0], [1e308, 1e308]]),
        _shape("circle of 1e9", "circle", [[0, 0], [1e9, 1e9]]),
        _shape("circle far away", "circle", [[1e300, 0], [1e300, 4]]),
        _shape("kind a list", ["polygon"], [[1, 2]]),
        _shape("kind unknown", "x" * 10**4, [[1, 2]]),
        _shape("points null", "polygon", None),
        _labelme("shapes null", lambda content: content.__setitem__("shapes", None)),
        _labelme("shapes text", lambda content: content.__setitem__("shapes", "abc")),
        _labelme("shape a number", lambda content: content.__setitem__("shapes", [1])),
        _labelme("a list", lambda content: "[]"),
        _labelme("empty", lambda content: ""),
        _labelme("nested 10^5 deep", lambda content: "[" * 10**5 + "]" * 10**5),
    ]


def _random_coco(rng: Random, folder: Path, valid: Path) -> list[str]:
    (folder / "coco.json").write_bytes(change_json(rng, (valid / "coco.json").read_text()))
    return _prepare(valid, "--coco", str(folder / "coco.json"))


def _random_labelme(rng: Random, folder: Path, valid: Path) -> list[str]:
    (folder / "labels").mkdir()
    name = f"im_{rng.randrange(4)}.json"
    (folder / "labels" / name).write_bytes(change_json(rng, (valid / "labelme" / name).read_text()))
    return _prepare(valid, "--labelme", str(folder / "labels"))


def _random_result(rng: Random, folder: Path, valid: Path) -> list[str]:
    """Two result files to compare, one of them another than a test wrote."""
    text = (valid / "results" / "results.json").read_text()
    for name, content in (("a", change_json(rng, text)), ("b", text.encode())):
        (folder / name).mkdir()
        (folder / name / "results.json").write_bytes(content)
    more = rng.choice(([], ["--paired"], ["--format", "latex"], ["--format", "csv"]))
    return ["compare", str(folder / "a"), str(folder / "b"), *more]


NAMED = [*_named_coco(), *_named_labelme()]
RANDOM = {
    "coco": (_random_coco, _NAMES),
    "labelme": (_random_labelme, ("im_",)),
    "results": (_random_result, ("results.json", "paired", "case", "results")),
}
