"""``sam-spl bench``: several networks, equal time for each, one table that stands on its evidence."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sam_spl.cli.command import Command
from sam_spl.cli.train import COMMAND as TRAIN
from sam_spl.config import require
from sam_spl.errors import ConfigError, InputError

if TYPE_CHECKING:
    from sam_spl.bench.run import Row

_VAL_SHARE = 0.2  # of the training images, where a set has no validation images


@dataclass
class BenchConfig:
    """Train networks for equal time, test them alike, and keep what each figure stands on.

    A row of the table is one network with one seed, or one detector without weights. The same command again
    goes on where it stopped. Without networks the tables are written again; --check says what in them does
    not follow from the evidence.
    """

    networks: list[str] = field(
        default_factory=list
    )  # names as in configs/model/, tophat and the like among them, or module:Class of your own
    dataset: str | None = None  # a set to train and test on, as in sam-spl train
    data_path: str | None = None  # folder of the set; null: as its file says
    lists: str | None = None  # which split of the set, as dataset.lists
    minutes: float = 10.0  # of training of each row; validation and test are not counted
    seeds: list[int] = field(default_factory=lambda: [1, 2])  # a row of each network for each
    output: str = "bench"  # folder of tables, evidence and runs
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    protocols: list[str] = field(default_factory=list)  # the first one is drawn; none named: all there are
    train: list[str] = field(default_factory=list)  # settings for all trainings: train=[trainer.batch_size=4]
    check: str | None = None  # folder of a bench, whose tables are compared with its evidence

    def __post_init__(self) -> None:
        require(0 < self.minutes < float("inf"), "minutes", self.minutes, "must be above 0")
        require(bool(self.seeds), "seeds", self.seeds, "give one at least")
        require(all(seed >= 0 for seed in self.seeds), "seeds", self.seeds, "must be whole numbers >= 0")
        if self.networks and self.dataset is None:
            raise ConfigError(
                "dataset: name the set to train and test on, as --dataset SIRST (or synthetic)."
            )
        if self.check is not None and self.networks:
            raise ConfigError("check: it takes a folder and runs nothing. Leave the networks out.")


def bench(config: BenchConfig) -> None:
    """Run the rows, or compare the tables that are there with their evidence."""
    from pathlib import Path

    from sam_spl.bench import tables

    if config.check is not None:
        folder = Path(config.check).expanduser()
        wrong = tables.check(folder)
        for line in wrong:
            print(line)
        if wrong:
            raise InputError(f"{folder}: what does not follow from the evidence: {len(wrong)}, listed above.")
        print(f"{folder}: every cell of {tables.CSV} and of the tables follows from the evidence")
        return
    folder = Path(config.output).expanduser()
    if not config.networks:
        print(tables.write_tables(folder))
        return
    rows = rows_of(config)

    from sam_spl.bench import run
    from sam_spl.data.config import check_folders

    check_folders(row.testing.dataset for row in rows)
    run.bench(rows, folder)


def rows_of(config: BenchConfig) -> list[Row]:
    """The rows that are asked for, each once.

    Raises:
        ConfigError: a name or a setting is not known, or ``train`` sets what the bench sets.
    """
    from sam_spl.cli.grammar import split
    from sam_spl.config import choice_named
    from sam_spl.metrics.protocols import PROTOCOLS, protocols_named
    from sam_spl.models.registry import is_trainable, network_class
    from sam_spl.registry import is_reference

    protocols = config.protocols or list(PROTOCOLS)
    protocols_named(protocols)
    rows = []
    for network in (choice_named("model", one) for word in config.networks for one in split(word)):
        trained = is_trainable(network_class(network))
        if not trained and is_reference(network):
            raise ConfigError(f"{network}: a detector without weights is known by its YAML file. Write one.")
        rows += [
            _row(replace(config, protocols=protocols), network, seed)
            for seed in (config.seeds if trained else [None])
        ]
    return list({row.name: row for row in rows}.values())


def _row(config: BenchConfig, network: str, seed: int | None) -> Row:
    """A command line of ``sam-spl train`` and one of ``sam-spl test``; without a seed the second alone."""
    from pathlib import Path

    from sam_spl.bench.run import Row
    from sam_spl.bench.tables import run_folder
    from sam_spl.cli.compose import test_config, train_config
    from sam_spl.cli.grammar import parse
    from sam_spl.cli.test import COMMAND as TEST
    from sam_spl.config import config_folders
    from sam_spl.registry import is_reference

    assert config.dataset is not None
    dataset = TRAIN.translate["dataset"](config.dataset)
    sets = [f"dataset={dataset}"]
    sets += [f"dataset.data_path={config.data_path}"] if config.data_path is not None else []
    sets += [f"dataset.lists={config.lists}"] if config.lists is not None else []
    ending = f"-{config.minutes:g}min-seed{seed}" if seed is not None else ""
    name = re.sub(r"[^\w.-]+", "_", f"{dataset}-{network.rpartition(':')[2]}{ending}")
    run = run_folder(Path(config.output).expanduser(), name)
    device = f"device={config.device}"
    learn = [
        *(f"model={network}", *sets, device, f"seed={seed}"),
        *(f"trainer.minutes={config.minutes:g}", f"trainer.val_share={_VAL_SHARE}", "trainer.selection=val"),
        *(f"save_dir={run}", "resume=auto"),
    ]
    examine = [
        *(f"weights={network if seed is None else run}", *sets, device),
        *("split=test", f"protocols=[{','.join(config.protocols)}]"),
        *(f"output_dir={run / 'test'}", "report=0", "overlays=0"),
        *([f"model={network}"] if is_reference(network) else []),
    ]
    own, given = ({word.key for word in parse(words, TRAIN).words} for words in (learn, config.train))
    if taken := sorted(own & given):
        raise ConfigError(f"train: {taken[0]} is set by the bench, for every row alike. Leave it out.")
    learn += config.train
    examine += [word for word in config.train if word.startswith("dataset.")]  # the test sees the same set
    files = [word for folder in config_folders()[:-1] for word in ("--config_dir", str(folder))]
    commands = {"train": learn, "test": examine} if seed is not None else {"test": examine}
    return Row(
        name,
        network,
        train_config(parse(learn, TRAIN).words) if seed is not None else None,
        test_config(parse(examine, TEST).words),
        {of: shlex.join(["sam-spl", of, *files, *words]) for of, words in commands.items()},
    )


COMMAND = Command(
    "bench",
    BenchConfig,
    bench,
    positional=("networks",),
    aliases={"-o": "output", "--gpu": "device"},
    translate={"device": TRAIN.translate["device"]},
    examples=(
        "sam-spl bench tophat mpcm datransnet sam_spl_t --dataset sirst --minutes 10 --seeds 1,2",
        "sam-spl bench my_net.py:MyNet smp --dataset sirst --minutes 30 --seeds 1,2,3 --output bench/mine",
        "sam-spl bench datransnet --dataset sirst --minutes 10 train=[trainer.batch_size=4]",
        "sam-spl bench --output bench      # the tables again, with evidence from other machines",
        "sam-spl bench --check bench       # do they follow from the evidence?",
    ),
)
