"""Random changes of valid content: bytes, plain values, and words of a command line."""

from __future__ import annotations

import copy
import json
import struct
from random import Random
from typing import Any

_NUMBERS = (0, -1, 1, 2, 64.5, -5, 10**12, -(10**12), 2**31, 2**63, 10**30, 1e308, -1e308, 1e-320, 0.5)
_TEXTS = ("", " ", "x", "nan", "../../x", "/", ".", "\n", "\x00", "\x1b[31m", "\ud800", "é" * 40, "a" * 5000)
_OTHERS = (None, True, False, [], {}, [[]], [None], {"": 0}, float("nan"), float("inf"), float("-inf"))
_WORDS = (
    *("", "null", "nan", "inf", "-inf", "-1", "0", "1e308", "-1e308", "1000000000000", "9" * 30, "abc"),
    *("[]", "{}", "[1", "'", '"', "true", "../../x", "/dev/null", "x:y", "canary.py:Net", "="),
    *("${x}", "${oc.env:HOME}", "${", "%s", "\n", "\x1b[31m", "\udcff", "1e-400", "0x10", "1_0", "[nan]"),
    *("[1,2,3]", "{a:1}", "é", "日本", "-", "--", "---", "a" * 5000, "[" * 500, "???", "*", "?", "~nobody"),
)
_EXTREME = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 60000, 2**24, 10**9)


def change_bytes(rng: Random, data: bytes) -> bytes:
    """One or a few damages, half of them in the first 200 bytes, where headers are."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        end = len(changed) if rng.random() < 0.5 else min(200, len(changed))
        at = rng.randrange(end) if end else 0
        kind = rng.randrange(8)
        if kind == 0 and changed:
            for _ in range(rng.choice((1, 1, 8, 64))):
                changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            changed[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(_EXTREME))
        elif kind == 3:
            changed[at : at + 8] = struct.pack(rng.choice("<>") + "Q", rng.choice((2**63, 2**40, 2**64 - 1)))
        elif kind == 4:
            changed[at:at] = rng.randbytes(rng.choice((1, 4, 1000)))
        elif kind == 5:
            del changed[at : at + rng.choice((1, 4, 100))]
        elif kind == 6:
            changed[at : at + rng.choice((1, 4, 100))] = bytes(rng.choice((1, 4, 100)))
        else:
            changed[at:at] = changed[rng.randrange(end or 1) :][: rng.choice((4, 1000))]
    return bytes(changed)


def change_value(rng: Random, value: Any) -> Any:
    """A copy of plain values in which one to three places are others."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(value)
        if not places:
            return hostile(rng)
        of, key = rng.choice(places)
        kind = rng.randrange(10)
        if kind == 0:
            del of[key]
        elif kind == 1 and isinstance(of, dict):
            of[rng.choice(_TEXTS)] = of.pop(key)
        elif kind == 2 and isinstance(of, list):
            of[key:key] = [copy.deepcopy(of[key])] * rng.choice((1, 3, 1000))
        elif kind == 3:
            of[key] = [of[key]]
        elif kind == 4 and isinstance(of[key], int | float | str):
            of[key] = str(of[key]) if not isinstance(of[key], str) else rng.choice(_NUMBERS)
        elif kind == 5 and isinstance(of[key], int | float):
            of[key] = -of[key]
        else:
            of[key] = hostile(rng)
    return value


def change_json(rng: Random, text: str) -> bytes:
    """JSON with other values in it, or damaged as text."""
    if rng.random() < 0.75:
        changed = json.dumps(change_value(rng, json.loads(text)))
        return changed.encode("utf-8", "surrogatepass")
    return change_bytes(rng, text.encode())


def hostile(rng: Random) -> Any:
    """A value that is seldom expected."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(_NUMBERS)
    if kind < 0.65:
        return rng.choice(_TEXTS)
    if kind < 0.95:
        return copy.deepcopy(rng.choice(_OTHERS))
    nested: Any = 0
    for _ in range(rng.choice((10, 200))):
        nested = [nested] if rng.random() < 0.5 else {"a": nested}
    return nested


def hostile_word(rng: Random) -> str:
    """A value as it is typed on a command line."""
    return rng.choice(_WORDS)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in plain values."""
    found: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        one = stack.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else []
        for key in keys:
            found.append((one, key))
            stack.append(one[key])
    return found
