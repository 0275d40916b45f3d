"""What a data set holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np

from sam_spl.data.config import DatasetConfig
from sam_spl.data.duplicates import duplicates
from sam_spl.data.examine import Facts, examine
from sam_spl.data.identity import identify
from sam_spl.data.layout import Item, Split, fingerprint

_UNSEEN = 1.0  # of contrast: no mask of SIRST is below 1.5, and 95 % are where masks are shuffled
_LARGE = 0.05  # of an image: no small target is larger
_QUANTILES = {"0": "least", "25": "quarter", "50": "median", "75": "three quarters", "100": "most"}


def check_split(split: Split, named: DatasetConfig) -> dict[str, Any]:
    """Examine every image of a split.

    Args:
        split: from :func:`sam_spl.data.layout.find_split` with ``skip_missing``.
        named: the settings of the set that it is called.

    Returns:
        Plain values for JSON: what there is, and under ``wrong`` and ``noteworthy`` what to do about it.
    """
    pairs = [(item, role) for role in ("train", "val", "test") for item in getattr(split, role)]
    with ThreadPoolExecutor(4) as pool:
        facts = list(pool.map(lambda pair: examine(*pair), pairs))
    read = [one for one in facts if not one.fault]
    by_role = {role: [one for one in facts if one.role == role] for role in ("train", "val", "test")}
    lists = {role: fingerprint(getattr(split, role)) for role in by_role if by_role[role]}
    areas = np.array([area for one in read for area in one.areas])
    train = [one for one in read if one.role == "train"]
    exact, near = duplicates(read)
    official = named.official_lists
    report: dict[str, Any] = {
        "where": str(split.root),
        "lists": split.lists,
        "images": {role: len(of) for role, of in by_role.items()},
        "fingerprints": {
            role: {"sha256": sha, "official": sha in official if official else None}
            for role, sha in lists.items()
        },
        "sizes": _most(f"{one.size[1]}x{one.size[0]}" for one in read),
        "modes": _most(one.mode for one in read),
        "mask_values": _most(str(list(one.mask_values)) for one in read),
        "targets": len(areas),
        "targets_per_image": _most(len(one.areas) for one in read),
        "target_area": {str(q): float(np.percentile(areas, q)) for q in (0, 25, 50, 75, 100)}
        if len(areas)
        else {},
        "train_mean": round(_mean(train), 6) if train else None,
        "train_std": round(_std(train), 6) if train else None,
        "areas": sorted(areas.tolist()),
        "empty_masks": _names(one for one in read if not one.areas),
        "missing": list(split.skipped),
        "unreadable": {one.name: one.fault for one in facts if one.fault},
        "mask_of_another_size": _names(one for one in read if one.size != one.mask_size),
        "mask_not_binary": _names(one for one in read if not _binary(one.mask_values)),
        "mask_read_as_empty": _names(one for one in read if not one.areas and len(one.mask_values) > 1),
        "target_too_large": _names(one for one in read if one.areas and max(one.areas) > _LARGE * one.pixels),
        "target_not_visible": _names(
            one for one in read if one.contrast is not None and one.contrast < _UNSEEN
        ),
        "in_train_and_test": sorted({item.name for item in split.train} & {item.name for item in split.test}),
        "exact_duplicates": exact,
        "near_duplicates": near,
    }
    identity = identify(named, split, [one.size for one in read])
    report["wrong"], report["noteworthy"] = _verdict(report)
    report["wrong"] += [text for text in asdict(identity).values() if text]
    return report


def table(report: dict[str, Any]) -> str:
    """The report in a dozen lines."""

    def most(key: str) -> str:
        values = list(report[key].items())
        shown = ", ".join(f"{value} ({count})" for value, count in values[:4])
        return shown + (f" and {len(values) - 4} more" if len(values) > 4 else "")

    area = report["target_area"]
    rows = [
        ("data set", f"{report['dataset']} in {report['where']}, lists {report['lists']}"),
        ("images", ", ".join(f"{count} {role}" for role, count in report["images"].items())),
        ("sizes", most("sizes")),
        ("modes", most("modes")),
        ("mask values", most("mask_values")),
        ("targets", f"{report['targets']}; per image: {most('targets_per_image')}"),
        ("area in px", ", ".join(f"{name} {area[q]:g}" for q, name in _QUANTILES.items()) if area else "-"),
        ("training mean", f"{report['train_mean']}, std {report['train_std']} (of values in 0 to 1)"),
        ("no target", f"{len(report['empty_masks'])} images"),
    ]
    for role, entry in report["fingerprints"].items():
        known = {True: " (official)", False: " (not a recorded official list)", None: ""}[entry["official"]]
        rows.append((f"{role} list", f"{entry['sha256'][:16]}...{known}"))
    return "\n".join(f"{name:<15} {value}" for name, value in rows)


def examples(split: Split, report: dict[str, Any], count: int) -> list[tuple[Item, str]]:
    """Images to look at, with a caption each: first those that a finding names, then random ones."""
    items = [item for role in ("train", "val", "test") for item in getattr(split, role)]
    items = [item for item in items if item.name not in report["unreadable"]]
    reasons: dict[str, str] = {}
    for key in ("mask_of_another_size", "target_too_large", "mask_read_as_empty", "target_not_visible"):
        for name in report[key][:4]:
            reasons.setdefault(name, key.replace("_", " "))
    for pair in [*report["exact_duplicates"][:2], *report["near_duplicates"][:4]]:
        for name in pair:
            reasons.setdefault(name, f"looks like {pair[pair[0] == name]}")
    roles = {item.name: role for role in ("test", "val", "train") for item in getattr(split, role)}
    by_name = {item.name: item for item in items}
    shown = [name for name in reasons if name in by_name][:count]
    rest = [name for name in by_name if name not in reasons]
    more = min(len(rest), count - len(shown))
    if more:
        shown += [rest[k] for k in np.random.default_rng(0).choice(len(rest), more, replace=False)]
    return [(by_name[name], f"{name} ({roles[name]})\n{reasons.get(name, '')}".strip()) for name in shown]


def _verdict(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What is wrong, and what is only worth knowing; each says how to fix it."""
    wrong: list[str] = []
    noteworthy: list[str] = []

    def add(key: str, text: str, to: list[str] = wrong) -> None:
        names = list(report[key])
        if names:
            first = ", ".join(" = ".join(name) if isinstance(name, list) else name for name in names[:3])
            to.append(f"{len(names)} {text.format(first=first)}")

    add(
        "missing",
        "listed image(s) without file or mask, first {first}. Add them, or use dataset.missing=skip",
    )
    add("unreadable", "image(s) or mask(s) cannot be read, first {first}. Replace them")
    add(
        "mask_of_another_size",
        "mask(s) of another size than the image, first {first}. Fix them, or have them resized: "
        "dataset.odd_masks=[...]",
    )
    add(
        "mask_read_as_empty",
        "mask(s) with values, but none above half, which count as empty, first {first}. Save them with 0 and "
        "255",
    )
    add("target_too_large", "mask(s) mark more than 5 % of the image as one target, first {first}. Inverted?")
    add(
        "target_not_visible",
        "mask(s) without a visible target, first {first}. Check whether the mask belongs to another image",
        noteworthy,
    )
    add(
        "in_train_and_test",
        "image(s) in both the training and the test list, first {first}. Remove them from one",
    )
    add(
        "exact_duplicates",
        "test image(s) equal, pixel for pixel, to training ones, first {first}. Remove them from "
        "the training list",
    )
    add(
        "near_duplicates",
        "pair(s) of a training and a test image look alike (neighbouring frames?), first {first}. Split by "
        "sequence: sam-spl prepare --by sequence",
        noteworthy,
    )
    add(
        "mask_not_binary",
        "mask(s) with more than two values, first {first}. Pixels above half count",
        noteworthy,
    )
    add("empty_masks", "image(s) without target, first {first}", noteworthy)
    if not report["targets"]:
        wrong.append("no mask marks a target. See mask_values")
    return wrong, noteworthy


def _binary(values: tuple[float, ...]) -> bool:
    return len(values) <= 1 or (len(values) == 2 and values[0] == 0 and values[1] in (1, 255, 65535))


def _mean(facts: Sequence[Facts]) -> float:
    return sum(one.total for one in facts) / sum(one.pixels for one in facts)


def _std(facts: Sequence[Facts]) -> float:
    squares = sum(one.squares for one in facts) / sum(one.pixels for one in facts)
    return float(np.sqrt(max(0.0, squares - _mean(facts) ** 2)))


def _most(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in Counter(values).most_common()}


def _names(facts: Any) -> list[str]:
    return [one.name for one in facts]
