"""The two commands: read the command line, compose, then import what computes and run it.

PyTorch and what builds on it take seconds to import, so ``--help`` and a mistyped flag do without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from sam_spl.cli.flags import (
    TEST_FLAGS,
    TRAIN_FLAGS,
    compose_config,
    help_text,
    overrides_from,
    quote,
)
from sam_spl.cli.sweep import as_sweep, as_union, jobs
from sam_spl.data.known import dataset_named
from sam_spl.data.pairing import has_images
from sam_spl.errors import ConfigError, UserError

if TYPE_CHECKING:
    from sam_spl.runtime import World


def train(argv: list[str]) -> None:
    """``training.py``: one run, or with ``-m`` one after the other."""
    if {"-h", "--help"} & set(argv):
        print(help_text("training.py", TRAIN_FLAGS))
        return
    overrides = as_union(overrides_from(_without(argv, "--config", *_MULTIRUN), TRAIN_FLAGS))
    runs = jobs(overrides, multirun=bool({*_MULTIRUN} & set(argv)))
    if len(runs) > 1:
        runs = {name: _in_own_folder(words, name) for name, words in runs.items()}
    configs = {name: compose_config("train", words) for name, words in runs.items()}
    if "--config" in argv:
        print("---\n".join(OmegaConf.to_yaml(config) for config in configs.values()))
        return

    from sam_spl.engine.record import find_last, read_last
    from sam_spl.runtime import distributed

    states: dict[str, Any] = dict.fromkeys(runs)
    for name, config in configs.items():
        if config.resume is None:
            continue
        last = find_last(config.save_dir if config.resume == "auto" else config.resume)
        states[name] = read_last(last)
        runs[name] = _merge(states[name]["overrides"], runs[name])
        configs[name] = compose_config("train", runs[name])
        configs[name].save_dir = str(last.parent)

    _hold_them_all(configs.values())
    tests = {name: _tests_after(config) for name, config in configs.items()}
    first = _same_devices(configs)
    with distributed(first.device, first.precision, use_ddp=first.use_ddp) as world:

        def one(name: str) -> list[dict[str, Any]]:
            from sam_spl.cli.train import run
            from sam_spl.data.catalog import open_dataset

            for test in tests[name]:  # what is missing is to be known before the training, not after it
                open_dataset(test.dataset).part("all" if test.split == "auto" else test.split)
            run(configs[name], runs[name], states[name], _at_precision(world, configs[name]))
            return _run_tests(tests[name], world)

        _one_after_the_other(list(configs), one, world)


def test(argv: list[str]) -> None:
    """``testing.py``: one file on one set, or every file of a list on every set of a list."""
    if {"-h", "--help"} & set(argv):
        print(help_text("testing.py", TEST_FLAGS))
        return
    overrides = overrides_from(_without(argv, "--config", *_MULTIRUN), TEST_FLAGS)
    runs = jobs(as_sweep(overrides, ("dataset", "weights")), multirun=True)
    configs = {name: compose_config("test", words) for name, words in runs.items()}
    if "--config" in argv:
        print("---\n".join(OmegaConf.to_yaml(config) for config in configs.values()))
        return
    for name, config in configs.items():
        if name and config.output_dir is not None:
            config.output_dir = str(Path(config.output_dir) / name)
    _hold_them_all(configs.values())

    from sam_spl.runtime import distributed

    first = _same_devices(configs)
    with distributed(first.device, first.precision, use_ddp=first.use_ddp) as world:
        _one_after_the_other(list(configs), lambda name: _run_tests([configs[name]], world), world)


_MULTIRUN = ("-m", "--multirun")


def _one_after_the_other(names: list[str], one: Callable[[str], list[dict[str, Any]]], world: World) -> None:
    """Run all; what fails does not keep the rest from running. Several results end in one table.

    Of several processes one may fail alone, and the others would wait for it: then a failure ends them all.
    """
    reports, failed = [], {}
    for count, name in enumerate(names, 1):
        if len(names) > 1 and world.main:
            print(f"\n[{count}/{len(names)}] {name}", flush=True)
        try:
            reports += one(name)
        except UserError as error:
            if len(names) == 1 or world.size > 1:
                raise
            failed[name] = error
            print(f"error: {error}", file=sys.stderr)
    if len(reports) > 1 and world.main:
        from sam_spl.results.compare import table

        print(f"\n{table(reports)}")
    if failed:
        raise next(iter(failed.values())).__class__(
            f"{len(failed)} of {len(names)} failed: {', '.join(failed)}"
        )


def _run_tests(configs: list[DictConfig], world: World) -> list[dict[str, Any]]:
    from sam_spl.cli.test import run

    reports = [run(config, _at_precision(world, config)) for config in configs]
    return [report for report in reports if report is not None]


def _tests_after(config: DictConfig) -> list[DictConfig]:
    """The tests that ``test_on`` asks for, composed before anything runs."""
    common = [f"weights={quote(config.save_dir)}", f"device={config.device}"]
    common += [f"num_workers={config.num_workers}"] if config.num_workers is not None else []
    tests = []
    for name in config.test_on:
        if name == "same":
            test = compose_config("test", common)
            test.dataset = config.dataset
        else:
            folder = Path(config.dataset.data_path).expanduser()
            holder = folder.resolve().parent if has_images(folder) else folder
            path = [f"dataset.data_path={quote(str(holder))}"] if dataset_named(name) != "synthetic" else []
            test = compose_config("test", [*common, f"dataset={dataset_named(name)}", *path])
        tests.append(test)
    return tests


def _hold_them_all(configs: Iterable[DictConfig]) -> None:
    """Several sets cannot be read from the folder of one.

    Raises:
        ConfigError: they would be.
    """
    asked: dict[str, set[str]] = {}
    for dataset in (config.dataset for config in configs):
        if dataset.source == "folder":
            asked.setdefault(dataset.data_path, set()).add(dataset.title)
    for path, titles in asked.items():
        if len(titles) > 1 and has_images(path):
            raise ConfigError(
                f"dataset.data_path: {path} is one data set, but {len(titles)} are asked for "
                f"({', '.join(sorted(titles))}). Give the folder that holds them."
            )


def _in_own_folder(overrides: list[str], name: str) -> list[str]:
    """A run of several: in a folder of its own below ``save_dir``."""
    given = next(
        (word.partition("=")[2].strip("'") for word in overrides if word.startswith("save_dir=")), None
    )
    rest = [word for word in overrides if not word.startswith("save_dir=")]
    return [*rest, f"save_dir={quote(str(Path(given or './checkpoints') / name))}"]


def _same_devices(configs: dict[str, DictConfig]) -> DictConfig:
    """The first configuration, once it is sure that all of them run on the same devices."""
    first = next(iter(configs.values()))
    for config in configs.values():
        if (config.device, config.use_ddp) != (first.device, first.use_ddp):
            raise ConfigError(
                "device, use_ddp: runs of one command share their devices. Start them one by one."
            )
    return first


def _at_precision(world: World, config: DictConfig) -> World:
    from sam_spl.runtime import pick_precision

    return replace(world, precision=pick_precision(config.precision, world.device))


def _without(argv: list[str], *flags: str) -> list[str]:
    return [word for word in argv if word not in flags]


def _merge(saved: list[str], given: list[str]) -> list[str]:
    """The overrides of a resumed run: its own, and what was given anew in their place."""
    merged = dict(word.split("=", 1) for word in [*saved, *given])
    return [f"{key}={value}" for key, value in merged.items()]
