"""What a weights file says of itself, checked once when it is read: files come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sam_spl.config import LARGEST_SIDE, SMALLEST_SIDE
from sam_spl.errors import InputError
from sam_spl.foreign import brief
from sam_spl.resize import RULES


def check_description(content: Any, path: Path) -> dict[str, Any]:
    """The description in a file of ours.

    What :func:`~sam_spl.weights.formats.save_weights` was given: ``model`` and ``arguments`` as for
    :func:`~sam_spl.models.registry.build_model`; the network's input as ``mean`` and ``std`` (of values in
    [0, 1], one for all channels or one each), ``image_size`` (the side of a square in pixels, None for each
    image's own size) and ``resize`` (how images get there); ``threshold`` (the probability above which
    prediction takes a pixel for target) and ``calibration`` (where it comes from, and the ``settings`` that
    its promise is for); ``trained_on`` (the data set's title, lists and fingerprints, and how validation
    images were ``held_out`` of a list); ``settings`` and ``selected_by``. A key may be absent, where its
    partner is too; further keys are kept as they are, whatever JSON can hold: results repeat the whole
    description.

    Raises:
        InputError: a value of another kind or that JSON cannot hold, a size below 32, a spread that is not
            positive, or a key without its partner.
    """

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise InputError(
                f"{path}: its description is malformed: {what}. Save or fetch the file again, or give its "
                "tensors as a plain state dict."
            )

    require(_is_table(content), f"{_shown(content)} is not a table of names and values")
    for key, value in content.items():
        try:
            json.dumps(value, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            require(False, f"{_shown(key)} is not JSON ({_shown(error)})")
    for key, (holds, needed) in _RULES.items():
        if key in content:
            require(holds(content[key]), f"{key} is {_shown(content[key])}, which needs to be {needed}")
    for key, partner in _PARTNERS:
        require(partner in content or key not in content, f"it states {key} but not {partner}")
    if "mean" in content:
        require(len(content["mean"]) == len(content["std"]), "mean and std have different numbers of values")
    return content


_LONGEST = 10_000  # characters of a text, which commands print
_UNIT = 10**6  # above means and spreads, and below one over the smallest spread


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _is_origin(value: Any) -> bool:
    if not _is_table(value):
        return False
    words = (value.get(key) for key in ("dataset", "lists", "fingerprint"))
    samples = value.get("samples", {})
    return (
        all(word is None or _is_text(word) for word in words)
        and _is_table_of_text(value.get("sets", {}))
        and _is_table(samples)
        and all(map(_is_table_of_text, samples.values()))
        and _is_draw(value.get("held_out"))
    )


def _is_draw(value: Any) -> bool:
    if value is None:
        return True
    if not _is_table(value):
        return False
    share, seed = value.get("share"), value.get("seed")
    return _are_numbers([share]) and 0 < share < 1 and isinstance(seed, int) and seed >= 0


def _is_table_of_text(value: Any) -> bool:
    return _is_table(value) and all(map(_is_text, value.values()))


def _are_numbers(value: Any) -> bool:
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= _UNIT for x in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_is_text, "a name"),
    "arguments": (_is_table, "a table of names and values"),
    "in_channels": (_is_count, "a number of channels"),
    "mean": (_are_numbers, "a list of numbers"),
    "std": (lambda value: _are_numbers(value) and min(value) >= 1 / _UNIT, "a list of numbers above 0"),
    "image_size": (
        lambda value: value is None or (_is_count(value) and SMALLEST_SIDE <= value <= LARGEST_SIDE),
        f"a whole number of pixels from {SMALLEST_SIDE} to {LARGEST_SIDE}, as training has it, or null",
    ),
    "resize": (lambda value: _is_text(value) and value in RULES, f"one of {', '.join(RULES)}"),
    "trained_on": (
        lambda value: value is None or _is_origin(value),
        "a table, its dataset, lists and fingerprint text, its sets a table of text, its samples tables of "
        "text, its held_out a share and a seed",
    ),
    "title": (_is_text, "text"),
    "threshold": (
        lambda value: _are_numbers([value]) and 0 < value < 1,
        "a probability between 0 and 1",
    ),
    "calibration": (
        lambda value: _is_table(value) and _is_table(value.get("settings", {})),
        "a table, its settings a table",
    ),
    "settings": (_is_text, "text"),
    "selected_by": (_is_text, "text"),
}
_PARTNERS = (("model", "arguments"), ("arguments", "model"), ("mean", "std"), ("std", "mean"))


def _shown(value: Any) -> str:
    try:
        return brief(value)
    except RecursionError:  # a table in tables by the thousand
        return "nested too deeply"
