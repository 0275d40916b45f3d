#!/usr/bin/env python3
"""What is in a data set, and what is wrong with it.

python scripts/check_dataset.py SIRST                      # a set of the catalogue, below datasets/
python scripts/check_dataset.py ./my_images                # or a folder
Writes NAME.json and NAME.png (images with their targets outlined, areas) into --output. Ends with exit code 1 where
something is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from sam_spl.cli.errors import run
from sam_spl.cli.flags import dataset_config
from sam_spl.data.catalog import locate
from sam_spl.data.check import check
from sam_spl.data.layout import Item, Split
from sam_spl.errors import InputError
from sam_spl.files import write_text
from sam_spl.report.sheet import draw_sheet

_SHOWN = 24  # images in the picture


def main(argv: list[str]) -> None:
    """Check as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="name or alias of a set of configs/dataset/, or a folder")
    parser.add_argument("--data_path", default="./datasets", help="the set's folder, or one that holds it")
    parser.add_argument("--lists", help="folder of the split lists, where there are several")
    parser.add_argument("--output", default="./checks", help="folder to write into (default: ./checks)")
    options = parser.parse_args(argv)
    folder = Path(options.dataset).expanduser()
    if folder.is_dir():
        config = dataset_config("custom", title=folder.resolve().name, data_path=str(folder))
    else:
        config = dataset_config(options.dataset, data_path=options.data_path)
    config.lists, config.missing = options.lists, "skip"
    split = locate(config)
    report = {"dataset": config.title} | check(split, config)

    output = Path(options.output)
    write_text(output / f"{config.title}.json", json.dumps(report, indent=1) + "\n")
    readable = [item for role in ("train", "val", "test") for item in getattr(split, role)]
    readable = [item for item in readable if item.name not in report["unreadable"]]
    draw_sheet(
        output / f"{config.title}.png", _title(report), _to_show(split, readable, report), report["areas"]
    )
    print(_table(report))
    print(f"{output / config.title}.json and .png written")
    for text in report["noteworthy"]:
        print(f"note:  {text}.")
    for text in report["wrong"]:
        print(f"wrong: {text}.")
    if report["wrong"]:
        raise InputError(f"{config.title}: {len(report['wrong'])} error(s), above; names in the JSON file.")
    count = len(report["noteworthy"])
    print(f"no errors, {count} note{'s' * (count != 1)}.")


def _title(report: dict[str, Any]) -> str:
    images = ", ".join(f"{count} {role}" for role, count in report["images"].items() if count)
    return f"{report['dataset']} (lists {report['lists']}): {images} images, {report['targets']} targets"


def _to_show(split: Split, items: list[Item], report: dict[str, Any]) -> list[tuple[Item, str]]:
    """First what a finding names, then images at random."""
    reasons: dict[str, str] = {}
    for key in ("mask_of_another_size", "target_too_large", "mask_read_as_empty", "target_not_visible"):
        for name in report[key][:4]:
            reasons.setdefault(name, key.replace("_", " "))
    for pair in [*report["exact_duplicates"][:2], *report["near_duplicates"][:4]]:
        for name in pair:
            reasons.setdefault(name, f"looks like {pair[pair[0] == name]}")
    roles = {item.name: role for role in ("test", "val", "train") for item in getattr(split, role)}
    by_name = {item.name: item for item in items}
    shown = [name for name in reasons if name in by_name][:_SHOWN]
    rest = [name for name in by_name if name not in reasons]
    count = min(len(rest), _SHOWN - len(shown))
    shown += (
        [rest[k] for k in np.random.default_rng(0).choice(len(rest), count, replace=False)] if count else []
    )
    return [(by_name[name], f"{name} ({roles[name]})\n{reasons.get(name, '')}".strip()) for name in shown]


def _table(report: dict[str, Any]) -> str:
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


_QUANTILES = {"0": "least", "25": "quarter", "50": "median", "75": "three quarters", "100": "most"}

if __name__ == "__main__":
    run(main)
