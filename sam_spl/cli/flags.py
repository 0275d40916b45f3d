"""From what a user types to a configuration: published flags and Hydra overrides, side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from sam_spl.cli import auto
from sam_spl.cli.config import check, register
from sam_spl.config import config_folder
from sam_spl.data.config import DatasetConfig
from sam_spl.data.known import dataset_file, dataset_named
from sam_spl.errors import ConfigError, nearest, plain

#: Published flags and what they set. None takes its value but says nothing here (torchrun sets the rank itself).
TRAIN_FLAGS: dict[str, str | None] = {
    "--batch_size": "trainer.batch_size",
    "--image_size": "dataset.image_size",
    "--lr": "optimizer.lr",
    "--epoch": "trainer.epochs",
    "--epochs": "trainer.epochs",
    "--eta_min": "optimizer.eta_min",
    "--loss_func": "loss",
    "--dataset": "dataset",
    "--data_path": "dataset.data_path",
    "--config_path": "model",
    "--save_dir": "save_dir",
    "--seed": "seed",
    "--gpu": "device",
    "--device": "device",
    "--local_rank": None,
    "--local-rank": None,
    "--resume": "resume",
    "--weights": "weights",
    "--use_ddp": "use_ddp",
}
TEST_FLAGS: dict[str, str | None] = {
    "--dataset": "dataset",
    "--data_path": "dataset.data_path",
    "--group": "dataset.group",
    "--image_size": "image_size",
    "--batch_size": "batch_size",
    "--weights": "weights",
    "--save_dir": "output_dir",
    "--seed": "seed",
    "--gpu": "device",
    "--device": "device",
    "--use_ddp": "use_ddp",
    "--local_rank": None,
    "--local-rank": None,
}
_SWITCHES = {"--use_ddp": "true", "--resume": "auto"}  # flags that may stand alone, and what they then mean
_LOSSES = {"bceloss": "bce", "bcewithlogitsloss": "bce", "softiou": "soft_iou", "softiouloss": "soft_iou"}


def overrides_from(argv: Sequence[str], flags: dict[str, str | None]) -> list[str]:
    """Translate a command line to Hydra overrides, the last of two for the same key winning.

    Raises:
        ConfigError: unknown flag, or a flag without its value.
    """
    overrides: dict[str, str] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            key, separator, value = word.partition("=")
            if not separator:
                raise ConfigError(
                    f"{word!r} is neither a flag nor an override. Write --flag value or key=value."
                )
            if key == "dataset":
                value = _each(value, dataset_named)
            overrides[key] = value
            continue
        flag, separator, value = word.partition("=")
        if flag not in flags:
            raise ConfigError(f"{flag}: unknown flag. Nearest: {nearest(flag, flags)}. --help lists all.")
        if not separator:
            if flag in _SWITCHES and _stands_alone(flag, rest):
                value = _SWITCHES[flag]
            elif not rest or rest[0].startswith("--"):
                raise ConfigError(f"{flag}: a value is missing.")
            else:
                value = rest.pop(0)
        key = flags[flag]
        if key is not None:
            overrides[key] = _value(flag, value)
    return [f"{key}={value}" for key, value in overrides.items()]


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose ``configs/<name>.yaml`` with overrides, and check types and rules.

    Raises:
        ConfigError: unknown group, choice or key (with the nearest valid ones), or a value of the wrong kind.
    """
    try:
        config = _compose(name, overrides)
        if config.get("recipe") == "auto":
            given = [word for word in overrides if not word.startswith("recipe=")]
            config = _compose(name, [*given, f"recipe={auto.recipe(config)}"])
        if config.dataset.members:
            _resolve_members(config.dataset)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, name)) from error
    for key in sorted(OmegaConf.missing_keys(config)):
        flag = next((flag for flag, sets in (TRAIN_FLAGS | TEST_FLAGS).items() if sets == key), None)
        raise ConfigError(
            f"{key}: a value is required" + (f", as {flag} VALUE." if flag else f", as {key}=VALUE.")
        )
    check(config)
    return config


def dataset_config(name: str, **changes: Any) -> Any:
    """The :class:`~sam_spl.cli.config.DatasetConfig` of a name or alias.

    Raises:
        ConfigError: unknown.
    """
    return OmegaConf.merge(OmegaConf.structured(DatasetConfig), dataset_file(name), changes)


def _compose(name: str, overrides: Sequence[str]) -> DictConfig:
    """Hydra's composition, with the recipe's name and what ``model.trunk_weights=auto`` stands for put in."""
    register()
    GlobalHydra.instance().clear()
    flat = r"^model\.(?!(?:trunk_weights|arguments|name|recipe\w*)[=.])"
    overrides = [re.sub(flat, "model.arguments.", word) for word in overrides]
    words = OverridesParser.create().parse_overrides(list(overrides))
    arguments = [word for word in words if f"{word.key_or_group}.".startswith("optimizer.args.")]
    with initialize_config_dir(str(config_folder().resolve()), version_base="1.3"):
        rest = [str(word.input_line) for word in words if word not in arguments]
        config = compose(name, overrides=rest, return_hydra_config=True)
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
        # A recipe's arguments are its own optimizer's. Hydra would merge them with those of another one.
        if {"optimizer.name", "optimizer.args"} & {word.key_or_group for word in words}:
            config.optimizer.args = {}
        for word in arguments:
            OmegaConf.update(config, word.key_or_group, word.value(), merge=False)
    if "recipe" in choices:
        config.recipe = choices["recipe"]
        if "trunk_weights" in config.model:
            config.model.trunk_weights = auto.trunk_weights(config)
    return config


def _resolve_members(dataset: Any) -> None:
    """Put the configurations of a union's members in place of their names."""
    members = [
        dataset_config(str(name), data_path=dataset.data_path, missing=dataset.missing)
        for name in dataset.members
    ]
    for member in members:
        if member.source != "folder" or member.members or member.data_path is None:
            raise ConfigError(
                f"dataset: {member.name} cannot be part of a union; its parts are sets of image files."
            )
    if dataset.name == "union":
        dataset.name = "+".join(member.name for member in members)
        dataset.title = "+".join(member.title for member in members)
    dataset.members = members


def _each(value: str, function: Callable[[str], str]) -> str:
    """Apply to each of ``a,b`` or ``[a,b]``."""
    before, inner, after = ("[", value[1:-1], "]") if value.startswith("[") else ("", value, "")
    return before + ",".join(function(name.strip()) for name in inner.split(",")) + after


def help_text(command: str, flags: dict[str, str | None]) -> str:
    """``--help``: flags, groups and examples."""
    width = max(map(len, flags))
    lines = [f"  {flag:<{width}}  {key or 'accepted, set by torchrun'}" for flag, key in flags.items()]
    lines.append(f"  {'-m':<{width}}  one run for each combination of what is given as key=a,b")
    groups = [
        f"  {folder.name:<10} {', '.join(sorted(path.stem for path in folder.glob('*.yaml')))}"
        for folder in sorted(config_folder().iterdir())
        if folder.is_dir() and any(folder.glob("*.yaml"))
    ]
    examples = {
        "training.py": [
            "python training.py --batch_size 12 --image_size 256 --lr 1e-2 --dataset NUDT-SIRST "
            "--save_dir ./checkpoints/NUDT-SIRST --gpu 0",
            "python training.py dataset=sirst recipe=scratch",
            "python training.py dataset=custom --data_path ./my_images model=sam_spl_s trainer.epochs=100",
            "python training.py --resume ./checkpoints/NUDT-SIRST",
            "torchrun --nproc_per_node=4 training.py --dataset NUDT-SIRST --use_ddp",
            "python training.py experiment=datransnet_nudt_sirst",
            "python training.py -m model=sam_spl_t,datransnet dataset=sirst,nudt_sirst test_on=[same]   # four runs",
            "python training.py dataset=[sirst,nudt_sirst] test_on=[irstd_1k]   # train on the union, test on another",
        ],
        "testing.py": [
            "python testing.py --dataset NUDT-SIRST --image_size 256 "
            "--weights ./checkpoints/NUDT-SIRST.pt --device cuda:0",
            "python testing.py dataset=sirst dataset.lists=50_50 weights=./checkpoints/my_run",
            "python testing.py dataset=[sirst,nudt_sirst] weights=[checkpoints/a,checkpoints/b]   # one table",
            "python testing.py dataset=sirst weights=checkpoints/a protocols=[native,sam_spl] figures=4",
        ],
    }[command]
    return "\n".join(
        [
            f"usage: python {command} [--flag value ...] [key=value ...]",
            "",
            "Flags, and the configuration key that each sets:",
            *lines,
            "",
            "Groups (group=choice), from configs/:",
            *groups,
            "",
            "Any key of the configuration can be set as key=value; --config prints the whole of it and exits.",
            "",
            "Examples:",
            *(f"  {example}" for example in examples),
        ]
    )


def _stands_alone(flag: str, rest: Sequence[str]) -> bool:
    """Whether what follows a switch is not its value: nothing, a flag or an override."""
    if not rest or rest[0].startswith("--") or "=" in rest[0]:
        return True
    return flag == "--use_ddp" and rest[0].lower() not in _BOOLEANS


def _value(flag: str, value: str) -> str:
    if flag == "--gpu":
        return f"cuda:{value}" if value.isdigit() else value
    if flag == "--dataset":
        return _each(value, dataset_named)
    if flag == "--loss_func":
        return _LOSSES.get(plain(value), value)
    if flag == "--config_path":
        return _model_from_config_path(value)
    if flag in ("--data_path", "--group", "--save_dir", "--weights", "--resume"):
        return quote(value)
    return value


def quote(value: str) -> str:
    """A string as Hydra's override grammar takes it literally, spaces, commas and brackets too.

    A backslash stands for itself there, unless a quotation mark (or the closing one) follows.
    """
    return "'" + re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", "\\'") + "'"


def _model_from_config_path(value: str) -> str:
    """The published flag names SAM 2's YAML of the trunk: ``.../sam2.1_hiera_s.yaml`` means model=sam_spl_s."""
    stem = Path(value).stem.lower()
    if match := re.search(r"hiera_(t|s|b|l)", stem):
        return f"sam_spl_{match[1]}"
    if (config_folder() / "model" / f"{stem}.yaml").is_file():
        return stem
    raise ConfigError(
        f"--config_path: {value} names no variant. Give a SAM 2 name (sam2.1_hiera_t) or use model=."
    )


def explain(error: Exception, name: str) -> str:
    """Hydra's and OmegaConf's messages in one line, with the nearest valid names."""
    text = " ".join(str(error).split())
    cause = " ".join(str(error.__cause__).split()) if error.__cause__ else ""
    if match := re.search(r"Could not find '([\w]+)/([^']+)'", text):
        group, choice = match.groups()
        choices = [path.stem for path in (config_folder() / group).glob("*.yaml")]
        return f"{group}: {choice!r} is unknown. Nearest: {nearest(choice, choices)}"
    if match := re.search(r"Could not override '([^']+)'", text):
        keys = _keys(name)
        return f"{match[1]}: no such key or group. Nearest: {nearest(match[1], keys)}"
    if match := re.search(r"Value '([^']*)' .*?could not be converted to (\w+)", cause + text):
        key = re.search(r"full_key: (\S+)", cause + text)
        return (
            f"{key[1] if key else 'configuration'}: {match[1]!r} is not a number of kind {match[2].lower()}."
        )
    return f"configuration: {text[:300]} {cause[:200]}".strip()


def _keys(name: str) -> list[str]:
    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return [prefix]
        return [
            prefix,
            *(key for child in node for key in walk(node[child], f"{prefix}.{child}".lstrip("."))),
        ]

    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder().resolve()), version_base="1.3"):
        config = compose(name)
    groups = [folder.name for folder in config_folder().iterdir() if folder.is_dir()]
    return sorted({*walk(OmegaConf.to_container(config), ""), *groups} - {""})


_BOOLEANS = ("true", "false", "1", "0", "yes", "no")
