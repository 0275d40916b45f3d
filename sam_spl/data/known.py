"""The data sets that are known by name: the files of ``configs/dataset/``.

Nothing heavy is imported here, since ``--help`` needs the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from sam_spl.config import config_folder
from sam_spl.errors import ConfigError, nearest, plain

#: ImageNet's normalisation, of values in [0, 1]: what SAM-SPL's recipe takes for any set without its own.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def dataset_named(name: str) -> str:
    """The file of ``configs/dataset/`` that a name or alias means, in any case and punctuation.

    Raises:
        ConfigError: unknown.
    """
    known: dict[str, str] = {}
    for path in sorted((config_folder() / "dataset").glob("*.yaml")):
        content = OmegaConf.load(path)
        for alias in (path.stem, content.title, *content.get("aliases", [])):
            known[str(alias)] = path.stem
    by_plain = {plain(alias): stem for alias, stem in known.items()}
    if plain(name) not in by_plain:
        raise ConfigError(
            f"dataset: {name!r} is unknown. Nearest: {nearest(name, known)}. For a folder of your own with images/ and "
            "masks/: dataset=custom --data_path FOLDER"
        )
    return by_plain[plain(name)]


def set_called(folder: str) -> str | None:
    """The set whose name or alias a folder's name is; None if it is no such name."""
    try:
        return dataset_named(folder)
    except ConfigError:
        return None


def dataset_file(name: str) -> Any:
    """What the file of a name or alias says.

    Raises:
        ConfigError: unknown.
    """
    return OmegaConf.load(config_folder() / "dataset" / f"{dataset_named(name)}.yaml")


def network_input(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a network sees of a data set's images in testing: ``mean``, ``std``, ``image_size`` and ``resize``.

    Args:
        settings: of the set, from its file or the command line. What they do not say is as the published recipe of
            SAM-SPL has it for any set: ImageNet's normalisation, 256 pixels, Pillow's rule.

    Returns:
        ``image_size`` is None where each image keeps its own size.
    """
    size = settings.get("test_size") or settings.get("image_size", 256)
    return {
        "mean": [float(value) for value in settings.get("mean", IMAGENET_MEAN)],
        "std": [float(value) for value in settings.get("std", IMAGENET_STD)],
        "image_size": None if settings.get("native_test") else size,
        "resize": settings.get("resize", "pillow"),
    }
