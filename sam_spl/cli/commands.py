"""The two commands: read the command line, compose, then import what computes and run it.

PyTorch and what builds on it take seconds to import, so ``--help`` and a mistyped flag do without.
"""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from sam_spl.cli.flags import TEST_FLAGS, TRAIN_FLAGS, compose_config, help_text, overrides_from


def train(argv: list[str]) -> None:
    """``training.py``."""
    if {"-h", "--help"} & set(argv):
        print(help_text("training.py", TRAIN_FLAGS))
        return
    overrides = overrides_from(_without(argv, "--config"), TRAIN_FLAGS)
    config = compose_config("train", overrides)
    if "--config" in argv:
        print(OmegaConf.to_yaml(config))
        return

    from sam_spl.cli.train import run
    from sam_spl.engine.checkpoint import find_last, read_last
    from sam_spl.engine.distributed import distributed

    state = None
    if config.resume is not None:
        last = find_last(config.save_dir if config.resume == "auto" else config.resume)
        state = read_last(last)
        overrides = _merge(state["overrides"], overrides)
        config = compose_config("train", overrides)
        config.save_dir = str(last.parent)
    with distributed(config.device, config.precision, use_ddp=config.use_ddp) as world:
        run(config, overrides, state, world)


def test(argv: list[str]) -> None:
    """``testing.py``."""
    if {"-h", "--help"} & set(argv):
        print(help_text("testing.py", TEST_FLAGS))
        return
    config: DictConfig = compose_config("test", overrides_from(_without(argv, "--config"), TEST_FLAGS))
    if "--config" in argv:
        print(OmegaConf.to_yaml(config))
        return

    from sam_spl.cli.test import run
    from sam_spl.engine.distributed import distributed

    with distributed(config.device, config.precision, use_ddp=config.use_ddp) as world:
        run(config, world)


def _without(argv: list[str], flag: str) -> list[str]:
    return [word for word in argv if word != flag]


def _merge(saved: list[str], given: list[str]) -> list[str]:
    """The overrides of a resumed run: its own, and what was given anew in their place."""
    merged = dict(word.split("=", 1) for word in [*saved, *given])
    return [f"{key}={value}" for key, value in merged.items()]
