#!/usr/bin/env python3
"""Measure speed: networks, the training step, testing, what feeds them and what scores them.

Everything that is compared is interleaved, round by round; figures are medians with minimum and maximum.

    python scripts/benchmark.py --models sam_spl_t datransnet --json now.json
    python scripts/benchmark.py --models sam_spl_t --reference path/to/file.py:function
    python scripts/benchmark.py --what stages latency startup --precision fp32 bf16
    python scripts/benchmark.py --what data
    python scripts/benchmark.py --what growth --models sam_spl_t datransnet --time_limit 600
    python scripts/benchmark.py --json now.json --compare before.json      measures, then compares
    python scripts/benchmark.py --compare before.json now.json             compares two files

What there is to measure (--what):
    test      forward pass in inference mode
    train     forward pass, loss and backward; the loss is the mean binary cross entropy, summed over maps
    latency   from one stored image at its own size to its probability map, 20 images a round
    stages    an epoch of training and a test with report, on generated images, as a whole and by stage
    data      generating, augmenting, resizing, checking and counting, on one core
    startup   importing, the help, and training up to its first step
    growth    time and memory against image size, batch and number of files; every row a process of its own

The figures in docs/benchmarks.md come from here.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch
from benchmark import data, growth, networks, stages
from benchmark.rows import HEADER, Row, beside_reference, compare, line, machine, read_results

from sam_spl.cli.main import finish
from sam_spl.errors import ConfigError, InputError
from sam_spl.files import write_text
from sam_spl.models.registry import network_class
from sam_spl.registry import import_object
from sam_spl.runtime import pick_device, pick_precision, promise_float32

WHAT = ("test", "train", "latency", "stages", "data", "startup", "growth")


def benchmark(argv: list[str]) -> None:
    """Measure, write down and compare as the command line says."""
    options = parse(argv)
    files = [read_results(path) for path in options.compare]
    if len(files) == 2:
        tell(*files)
        return
    promise_float32()
    device = pick_device(options.device)
    settle(options, device)
    results: dict[str, Any] = {"machine": machine(device), "arguments": vars(options), "rows": []}
    print(", ".join(f"{key} {value}" for key, value in results["machine"].items()))
    print(HEADER)
    rows: list[Row] = []
    for some in sections(options):
        for row in some:
            rows.append(row)
            print(line(row), flush=True)
            if options.json:  # after every row: an interruption loses what comes later only
                results["rows"] = [asdict(row) for row in rows]
                write_text(options.json, json.dumps(results, indent=1) + "\n")
    for text in beside_reference(rows):
        print(text)
    if files:
        tell(files[0], json.loads(json.dumps(results | {"rows": [asdict(row) for row in rows]})))


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: values that do not go together.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--what", nargs="+", choices=WHAT, default=["test", "train"], help="default: test train")
    add("--models", nargs="+", default=["sam_spl_t"], help="names, or file.py:Class; default: sam_spl_t")
    add("--image_size", nargs="+", type=size_of, help="pixels, 256 or 512x640 (H x W); default: 256, in "
        "growth 256 512 1024 2048")  # fmt: skip
    add("--batch_size", nargs="+", type=positive, help="default: 4, in growth 1 2 4 8 16")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--precision", nargs="+", choices=("fp32", "bf16", "fp16"),
        help="default: fp32, and bf16 where the hardware supports it")  # fmt: skip
    add("--compile", nargs="+", choices=("false", "true"), default=["false"],
        help="in test, train, latency and growth; a reference is never compiled")  # fmt: skip
    add("--repeat", type=positive, default=5, help="rounds, after one that warms up; default: 5")
    add("--images", nargs="+", type=positive, help="images of stages and startup, default: 16; in "
        "growth the numbers of files, default: 1000 10000 100000")  # fmt: skip
    add("--reference", metavar="FILE.py:FUNCTION", help="in test and train: called without arguments or with "
        "the model's name if it takes one, it returns a torch module (from an image to a map or a list of "
        "maps), timed in the same rounds, weights and images laid out as PyTorch does")  # fmt: skip
    add("--memory", action=argparse.BooleanOptionalAction, default=True, help="peak memory of test and "
        "train, for which each row is done once more in a process of its own")  # fmt: skip
    add("--time_limit", type=positive, default=600, help="seconds of a process of its own; default: 600")
    add("--json", metavar="OUT", help="write machine, arguments and rows to a file")
    add("--compare", nargs="+", default=[], metavar="FILE", help="an earlier --json file, compared with "
        "this run or with a second file; exit code 1 if a row takes over 10 %% longer, outside both "
        "spreads")  # fmt: skip
    options = parser.parse_args(argv)
    if len(options.compare) > 2:
        raise ConfigError(f"--compare: {len(options.compare)} files. Give one, or two to measure nothing.")
    if options.json and not Path(options.json).resolve().parent.is_dir():
        raise InputError(f"--json: no folder {Path(options.json).parent}. Make it first.")
    return options


def size_of(text: str) -> tuple[int, int]:
    """(H, W) of ``256`` or ``512x640``."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if min(height, width) < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size from 32 pixels up, as 256 or 512x640")
    return height, width


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def settle(options: argparse.Namespace, device: torch.device) -> None:
    """Put in what depends on the machine, and look at what can fail before minutes are spent.

    Raises:
        ConfigError: no such network or reference, or one that cannot stand for several.
    """
    options.device = str(device)
    if options.precision is None:
        fast = pick_precision("auto", device)
        options.precision = ["fp32", *(["bf16"] if fast is torch.bfloat16 else [])]
    for key in ("models", "image_size", "batch_size", "precision", "compile", "images"):
        if (values := getattr(options, key)) is not None:
            setattr(options, key, list(dict.fromkeys(values)))
    for model in options.models:
        network_class(model)
    if options.reference:
        function = import_object(options.reference, "--reference")
        if len(options.models) > 1 and callable(function) and not networks.takes_a_name(function):
            raise ConfigError(
                f"--reference: {options.reference} takes no name, so it cannot stand for "
                f"{len(options.models)} networks. Give one of --models, or let it take the name."
            )
    if "stages" in options.what or "startup" in options.what:
        for height, width in options.image_size or []:
            if height != width:
                raise ConfigError(f"--image_size: {height}x{width}: stages and startup take squares, as 256.")


def sections(options: argparse.Namespace) -> Iterator[Iterable[Row]]:
    """The rows that are asked for, one kind of measurement after the other."""
    what, device, repeat = options.what, options.device, options.repeat
    sizes, batches = options.image_size or [(256, 256)], options.batch_size or [4]
    limit = options.time_limit
    if modes := [mode for mode in ("test", "train") if mode in what]:
        cases = cases_of(options, modes, product(sizes, batches), reference=options.reference)
        yield networks.measure(cases, repeat, memory=options.memory, limit=limit)
    if "latency" in what:
        yield networks.latency(cases_of(options, ["test"], product(sizes, [1])), repeat)
    if "stages" in what:
        images = (options.images or [16])[0]
        yield from stages_of(options, [height for height, _ in sizes], batches, images)
    if "data" in what:
        for height, _ in sizes:
            yield data.measure(height, repeat)
    if "startup" in what:
        images = (options.images or [16])[0]
        yield growth.starts(options.models, sizes[0][0], images, device, repeat)
    if "growth" in what:
        sizes = options.image_size or [(side, side) for side in (256, 512, 1024, 2048)]
        batches = options.batch_size or [1, 2, 4, 8, 16]
        least = min(sizes, key=math.prod), min(batches)
        shapes = dict.fromkeys([*((size, least[1]) for size in sizes), *((least[0], n) for n in batches)])
        yield growth.networks(cases_of(options, ["test", "train"], shapes), repeat, limit)
        yield growth.files(options.images or [1_000, 10_000, 100_000], repeat, limit)


def cases_of(
    options: argparse.Namespace,
    modes: Iterable[str],
    shapes: Iterable[tuple[tuple[int, int], int]],
    reference: str | None = None,
) -> list[networks.Case]:
    """Every combination of networks, modes, (size, batch), precisions and compilation; references eager."""
    kinds = [(how == "true", None) for how in options.compile]
    kinds += [(False, reference)] if reference else []
    every = product(options.models, modes, shapes, options.precision, kinds)
    return [
        networks.Case(name, mode, precision, compiled, other, size, batch, options.device)
        for name, mode, (size, batch), precision, (compiled, other) in every
    ]


def stages_of(
    options: argparse.Namespace, sizes: Iterable[int], batches: Iterable[int], images: int
) -> Iterator[list[Row]]:
    """Rows of training and testing on generated images of each size."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            stages.write_images(folder, images, size)
            every = product(options.models, options.precision, batches)
            settings = [
                stages.Setting(name, precision, size, batch, options.device, folder)
                for name, precision, batch in every
            ]
            yield stages.measure(settings, images, options.repeat)


def tell(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Print what changed; leave with exit code 1 if something got slower."""
    lines, slower = compare(old, new)
    print("\n".join(lines))
    if slower:
        sys.exit(1)


if __name__ == "__main__":
    finish(lambda: benchmark(sys.argv[1:]))
