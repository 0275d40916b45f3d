"""The data sets that are known by name: the files of ``configs/dataset/`` and of the user's own folders.

Nothing heavy is imported here, since ``--help`` needs the names.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_spl.config import choice_named, group_file, group_files
from sam_spl.errors import ConfigError, nearest, plain
from sam_spl.registry import is_reference

if TYPE_CHECKING:
    from sam_spl.data.config import DatasetConfig

log = logging.getLogger(__name__)
_warned: set[Path] = set()  # files that a warning told of

#: ImageNet's normalisation, of values in [0, 1]: SAM-SPL's recipe uses it for sets without their own.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def dataset_named(name: str) -> str:
    """The file that a name or alias means, in any case and punctuation.

    Raises:
        ConfigError: unknown, or the file of this set cannot be read.
    """
    stem = choice_named("dataset", name)
    if stem in group_files("dataset"):
        _content(stem)
        return stem
    known: dict[str, tuple[str, str]] = {}  # plain name -> a name, file
    for stem, content in dataset_contents().items():
        for alias in map(str, (content.get("title", stem), stem, *content.get("aliases", []))):
            known.setdefault(plain(alias), (alias, stem))
    if plain(name) not in known:
        close = nearest(name, [alias for alias, _ in known.values()])
        raise ConfigError(
            f"dataset: {name!r} is unknown. Nearest: {close}. All of them: sam-spl train --help. "
            "For a folder of your own with images/ and masks/: dataset=custom --data_path FOLDER"
        )
    return known[plain(name)][1]


def dataset_contents() -> dict[str, dict[str, Any]]:
    """What the file of every set says. One that cannot be read is left out, with a warning."""
    contents = {}
    for stem, path in group_files("dataset").items():
        try:
            contents[stem] = _content(stem)
        except ConfigError as error:
            if path not in _warned:
                log.warning("warning: data set %s is left out: %s", stem, error)
            _warned.add(path)
    return contents


def _content(stem: str) -> dict[str, Any]:
    content = group_file("dataset", stem)
    for key in ("aliases", "published_splits", "official_lists"):
        if not isinstance(content.get(key, []), list):
            path = group_files("dataset")[stem]
            raise ConfigError(f"{path}: {key}: {content[key]} is not a list. Write {key}: [a, b]")
    return content


def set_of_folder(folder: str) -> str | None:
    """The set that a folder is named after; None if there is none."""
    try:
        return dataset_named(folder)
    except ConfigError:
        return None


def dataset_file(name: str) -> dict[str, Any]:
    """What the file of a name or alias says.

    Raises:
        ConfigError: unknown, or the file names code to import.
    """
    stem = dataset_named(name)
    content = {"name": stem, "title": stem} | _content(stem)
    if is_reference(str(content.get("augment", ""))):
        raise ConfigError(
            f"{group_files('dataset')[stem]}: augment: {content['augment']!r} is code, which a file may not "
            f"name. Give it on the command line: trainer.augment={content['augment']}"
        )
    return content


def network_input(settings: Mapping[str, Any] | DatasetConfig) -> dict[str, Any]:
    """What a network sees of the images in testing: ``mean``, ``std``, ``image_size`` and ``resize``.

    Args:
        settings: of the set. What they do not say is as in the published recipe of SAM-SPL for any set:
            ImageNet's normalisation, 256 pixels, Pillow's rule.

    Returns:
        ``image_size`` is None where each image keeps its own size.
    """
    values = settings if isinstance(settings, Mapping) else vars(settings)
    size = values.get("test_size") or values.get("image_size", 256)
    return {
        "mean": [float(value) for value in values.get("mean", IMAGENET_MEAN)],
        "std": [float(value) for value in values.get("std", IMAGENET_STD)],
        "image_size": None if values.get("native_test") else size,
        "resize": values.get("resize", "pillow"),
    }
