"""Running a bench: each row trains, is tested, and leaves its evidence. What is done is not run again."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sam_spl.bench.evidence import read_evidence, write_evidence
from sam_spl.bench.machine import machine
from sam_spl.bench.tables import evidence_file, write_tables
from sam_spl.config import plain
from sam_spl.engine.config import TestConfig, TrainConfig
from sam_spl.engine.testing import test
from sam_spl.engine.training import settings_of, train
from sam_spl.errors import ConfigError, InputError, UserError
from sam_spl.models.registry import model_file
from sam_spl.predict.cost import cost_of
from sam_spl.predict.predictor import load_network
from sam_spl.results.folder import Result
from sam_spl.runtime import World, pick_device

_PASSES = 10  # that are timed of each network
_SIDE = 256  # pixels, of an image of a set that states no size


@dataclass(frozen=True)
class Row:
    """One network with one seed, or one detector that has nothing to train.

    Attributes:
        name: of its files.
        network: as on the command line.
        training: None where there is nothing to train.
        testing: of what was trained.
        commands: ``train`` and ``test``, which do the same alone.
    """

    name: str
    network: str
    training: TrainConfig | None
    testing: TestConfig
    commands: Mapping[str, str]

    @property
    def asked(self) -> dict[str, Any]:
        """What has to be equal for a row that is there to be the one that is asked for."""
        of, tested = self.training, self.testing
        return {
            "network": self.network,
            "seed": of and of.seed,
            "minutes": of and of.trainer.minutes,
            "settings": settings_of(of) if of else model_file(self.network).get("arguments", {}),
            "dataset": tested.dataset.title,
            "lists": tested.dataset.lists,
            "protocols": tested.protocols,
        }


def bench(rows: Sequence[Row], folder: Path) -> None:
    """Run the rows that are not done, and write the tables after each.

    Raises:
        ConfigError: the folder has a row of that name that was made with other settings.
        InputError: rows failed, which does not keep the others from running.
        KeyboardInterrupt: it was interrupted; the same call goes on.
    """
    todo = [row for row in rows if not _is_done(row, folder)]
    write_tables(folder)
    failed = []
    for row in rows:
        if row not in todo:
            print(f"{row.name}: done before")
    for count, row in enumerate(todo, 1):
        print(f"\n[{count}/{len(todo)}] {row.name}", flush=True)
        try:
            measure(row, folder)
        except KeyboardInterrupt as stopped:
            raise type(stopped)(
                f"{row.name} is not done. The same command goes on from what is saved."
            ) from None
        except UserError as error:
            failed.append(row.name)
            print(f"error: {row.name}: {error}", file=sys.stderr)
        except Exception:  # a fault in one network does not cost the others' night
            failed.append(row.name)
            traceback.print_exc()
        else:
            write_tables(folder)
    print(f"\n{write_tables(folder)}\ntables under all protocols, plots and evidence are in {folder}")
    if failed:
        raise InputError(f"bench: {len(failed)} of {len(rows)} rows failed: {', '.join(failed)}")


def _is_done(row: Row, folder: Path) -> bool:
    file = evidence_file(folder, row.name)
    if not file.is_file():
        return False
    before = read_evidence(file).report["bench"]["asked"]
    if changed := [key for key, value in row.asked.items() if before.get(key) != value]:
        raise ConfigError(
            f"{file}: the row was made with other settings ({', '.join(changed)}; see config in the file). "
            "Choose another --output, or remove the row's evidence and its folder in runs/."
        )
    return True


def measure(row: Row, folder: Path) -> None:
    """Train, or go on with it; test; and write the evidence.

    Raises:
        InputError: data, weights or devices are not what they should be, or training diverges.
    """
    history: list[dict[str, Any]] = train(row.training).history if row.training else []
    result = test(row.testing)
    assert result is not None  # of one process
    bench = {
        "asked": row.asked,
        "commands": dict(row.commands),
        "training": {
            "seconds": round(sum(epoch["seconds"] for epoch in history), 2),
            "epochs": len(history),
            "images": sum(epoch["images_seen"] for epoch in history),
        },
        "cost": _cost(row, result),
        "machine": machine(pick_device(row.testing.device)),
        "config": {"train": row.training and plain(row.training), "test": plain(row.testing)},
    }
    write_evidence(evidence_file(folder, row.name), result.report, bench)


def _cost(row: Row, result: Result) -> dict[str, Any]:
    """Of one image of the size that the network is trained on, at batch 1 and in float32."""
    side = (row.training or row.testing).dataset.image_size or _SIDE
    model, _ = load_network(row.testing.weights, network=row.testing.model)
    world = World(0, 1, pick_device(row.testing.device)).at("fp32")
    return {**asdict(cost_of(model, (side, side), world, _PASSES)), "image_size": side}
