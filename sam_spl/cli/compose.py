"""Settings of training or testing from a command line: Hydra composes the files of ``configs/``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sam_spl import config as configuration
from sam_spl.cli.grammar import Word, convert, kinds, own_folders, parse, split
from sam_spl.data.known import dataset_named
from sam_spl.engine import auto
from sam_spl.engine.config import TestConfig, TrainConfig
from sam_spl.errors import ConfigError, nearest
from sam_spl.models.registry import ModelConfig
from sam_spl.registry import is_reference

TRAIN_GROUPS = ("model", "dataset", "recipe", "loss", "experiment")


def train_config(words: Sequence[Word]) -> TrainConfig:
    """The settings of training, with what ``auto`` stands for put in.

    Raises:
        ConfigError: an unknown choice or key (with the nearest valid ones), or a value that is not valid.
    """
    chosen = {word.key: _text(word) for word in words if word.key in TRAIN_GROUPS}
    config = _composed("train", TrainConfig, chosen, words)
    if config.recipe is None:
        model = replace(config.model, trunk_weights=auto.trunk_weights(config.model, config.weights))
        chosen["recipe"] = auto.recipe(model, config.weights)
        config = _composed("train", TrainConfig, chosen, words)
    trunk = auto.trunk_weights(config.model, config.weights)
    return replace(config, model=replace(config.model, trunk_weights=trunk))


def test_config(words: Sequence[Word]) -> TestConfig:
    """The settings of testing.

    Raises:
        ConfigError: as :func:`train_config`.
    """
    return _composed("test", TestConfig, {w.key: _text(w) for w in words if w.key == "dataset"}, words)


def compose(command: str, *words: str) -> TrainConfig | TestConfig:
    """The settings that a command line stands for: ``compose("train", "model=datransnet", "dataset=sirst")``.

    Args:
        command: ``train`` or ``test``.
        *words: as on the command line, ``key=value`` or flags with their values.

    Raises:
        ConfigError: as :func:`train_config`.
    """
    from sam_spl.cli.main import command as named

    make: dict[str, Callable[[Sequence[Word]], TrainConfig | TestConfig]]
    make = {"train": train_config, "test": test_config}
    if command not in make:
        raise ConfigError(f"compose: {command!r} is neither train nor test.")
    folders, rest = own_folders(words)
    for folder in folders:
        configuration.add_config_folder(folder)
    return make[command](parse(rest, named(command)).words)


def _composed(name: str, cls: type[Any], chosen: Mapping[str, str], words: Sequence[Word]) -> Any:
    """Compose the chosen files, set what was typed on top, and check it all."""
    groups, members = dict(chosen), list[str]()
    for group, choice in chosen.items():
        if len(split(choice)) > 1:
            union = f", or write {group}=[{choice}] for their union" if group == "dataset" else ""
            raise ConfigError(f"{group}: {choice}: several values. Add -m to run one after the other{union}.")
    keys = {word.key for word in words}
    if "dataset.data_path" in keys and not keys & {"dataset", "experiment", "resume"}:
        raise ConfigError("dataset.data_path: it needs the name of a set as well: --dataset NAME, or custom.")
    if groups.get("dataset", "").startswith("["):  # the union of several
        members = [dataset_named(one) for one in split(groups["dataset"][1:-1])]
        groups["dataset"] = "union"
    elif "dataset" in groups:
        groups["dataset"] = dataset_named(groups["dataset"])
    own = {group: groups.pop(group) for group in ("model", "loss") if is_reference(groups.get(group, ""))}
    values = _files(name, groups)
    for group, reference in own.items():
        # What a recipe suggests to any network stays.
        suggested = {"suggested": values.model.get("suggested", {})} if group == "model" else {}
        values[group] = {"name": reference, "arguments": {}, **suggested}
    if members:
        values.dataset.members = members
    if name == "train":
        values.model = {key: values.model._get_node(key) for key in _MODEL_KEYS if key in values.model}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls), values)
        assert isinstance(merged, DictConfig)
        _put(merged, words, kinds(cls))
        for key in sorted(OmegaConf.missing_keys(merged)):
            raise ConfigError(f"{key}: a value is required, as --{key} VALUE.")
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None
        raise ConfigError(configuration.explain(error, cls)) from error


_MODEL_KEYS = tuple(one.name for one in fields(ModelConfig))


def _files(name: str, groups: Mapping[str, str]) -> DictConfig:
    """Hydra's composition of the chosen files of each group."""
    import hydra  # half of what --help would import
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    overrides = []
    for group, choice in groups.items():
        files = configuration.group_files(group)
        if choice not in files and not (group == "experiment" and choice == "null"):
            raise ConfigError(f"{group}: {choice!r} is unknown. Nearest: {nearest(choice, files)}")
        if choice != "null":
            configuration.check_group_file(group, files[choice])
            overrides.append(f"{group}={choice}")
    own = [f"file://{folder}" for folder in configuration.config_folders()[:-1]]
    GlobalHydra.instance().clear()
    path = [f"hydra.searchpath=[{','.join(own)}]"] if own else []
    try:
        with hydra.initialize_config_dir(str(configuration.config_folder().resolve()), version_base="1.3"):
            config = hydra.compose(name, overrides=[*overrides, *path], return_hydra_config=True)
    except HydraException as error:  # a file of one's own
        text = " ".join(f"{error} {error.__cause__ or ''}".split())
        raise ConfigError(
            f"{' '.join(overrides)}: the YAML files do not go together: {text[:300]}"
        ) from error
    values = OmegaConf.create({key: config._get_node(key) for key in config if key != "hydra"})
    recipe = config.hydra.runtime.choices.get("recipe")
    merged = OmegaConf.merge(values, {"recipe": recipe} if recipe not in (None, "auto") else {})
    assert isinstance(merged, DictConfig)
    return merged


def _put(config: DictConfig, words: Sequence[Word], known: Mapping[str, Any]) -> None:
    """Set what was typed. Arguments of a recipe's optimizer or loss do not go to another one."""
    if any(word.key in ("optimizer.name", "optimizer.args") for word in words):
        config.optimizer.args = {}
    if any(word.key == "loss.name" for word in words):
        config.loss.arguments = {}
    for word in words:
        if word.key.startswith("model.arguments."):  # said, be it null
            config.model.suggested.pop(word.key.removeprefix("model.arguments."), None)
        if word.key in TRAIN_GROUPS and not (word.key == "model" and known.get("model") is not ModelConfig):
            continue
        value = convert(word, known.get(word.key, Any))
        OmegaConf.update(config, word.key, value, merge=word.key != "model.suggested", force_add=True)


def _text(word: Word) -> str:
    text = word.text if isinstance(word.text, str) else f"[{','.join(word.text)}]"
    if not text or text == MISSING:
        raise ConfigError(f"{word.key}: a value is required.")
    return text
