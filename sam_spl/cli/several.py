"""What commands of several jobs share: devices that fit all, and one failure that does not end the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from sam_spl.engine.config import TestConfig, TrainConfig
from sam_spl.errors import ConfigError, UserError

if TYPE_CHECKING:
    from sam_spl.results.folder import Result
    from sam_spl.runtime import World

Config = TypeVar("Config", TrainConfig, TestConfig)


def one_after_the_other(
    names: Sequence[str], one: Callable[[str], Sequence[Result | None]], world: World
) -> None:
    """Run all; what fails does not keep the rest from running. Several results end in one table.

    Of several processes one may fail alone, and the others would wait for it: then a failure ends them all.
    """
    results, failed = list["Result"](), dict[str, UserError]()
    for count, name in enumerate(names, 1):
        if len(names) > 1 and world.main:
            print(f"\n[{count}/{len(names)}] {name}", flush=True)
        try:
            results += [result for result in one(name) if result is not None]
        except UserError as error:
            if len(names) == 1 or world.size > 1:
                raise
            failed[name] = error
            print(f"error: {error}", file=sys.stderr)
    if len(results) > 1 and world.main:
        from sam_spl.results.compare import table

        print(f"\n{table([result.report for result in results])}")
    if failed:
        first = next(iter(failed.values()))
        raise first.__class__(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}")


def same_devices(configs: Mapping[str, Config]) -> Config:
    """The first configuration, once it is sure that all of them run on the same devices.

    Raises:
        ConfigError: they do not.
    """
    first = next(iter(configs.values()))
    for config in configs.values():
        if (config.device, config.use_ddp) != (first.device, first.use_ddp):
            raise ConfigError(
                "device, use_ddp: jobs of one command share their devices. Start them one by one."
            )
    return first
