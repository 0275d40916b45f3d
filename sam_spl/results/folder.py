"""The folder of one test: its name, that nothing of an earlier test stays in it, and what the test gave."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_spl.config import weights_folder
from sam_spl.errors import InputError
from sam_spl.files import lock
from sam_spl.results.files import is_result

#: What a test writes into its folder.
WRITTEN = ("results.json", "images.csv", "report.html", "overlays", "predictions", "figures")
_LONGEST = 40  # characters of a part of a name


@dataclass(frozen=True)
class Result:
    """What one test gave.

    Attributes:
        report: content of ``results.json``.
        folder: where the files are.
    """

    report: dict[str, Any]
    folder: Path

    @property
    def scores(self) -> dict[str, Any]:
        """Figures by key under the first protocol, ratios in [0, 1], and counts; None where undefined."""
        return self.report["scores"]

    @property
    def images(self) -> list[dict[str, Any]]:
        """The counts of each image under the first protocol."""
        return self.report["images"]


def test_folder(
    weights: Path,
    dataset: str,
    lists: str,
    split: str,
    image_size: int | None,
    only: str = "",
    engine: str = "",
) -> Path:
    """The folder beside a weights file that one kind of test of it is written into.

    Args:
        weights: the file, not its run folder; of a network without weights its YAML file.
        dataset: title of the set.
        lists: which split of the set, ``none`` or nothing where it has no lists.
        split: train, val, test or all.
        image_size: side of the network's input; None for each image's own size.
        only: what tells the set from others of its title; six digits of a hash of it end the name.
        engine: of an exported file.
    """
    file = weights.stem if weights.suffix in (".safetensors", ".yaml") else weights.name
    parts = [file, engine, dataset, "" if lists == "none" else lists, split, str(image_size or "native")]
    parts += [_digits(only, 6)] if only else []
    # What comes with the toolkit may lie where no user writes.
    comes_along = weights.parent == weights_folder() or weights.suffix == ".yaml"
    beside = Path("checkpoints") if comes_along else weights.parent
    return beside / "-".join(["test", *(_safe(part) for part in parts if part)])


@contextmanager
def begin_test(folder: Path, *, named_by_user: bool) -> Iterator[None]:
    """Hold a test's folder for this process, without what an earlier test left there.

    Files that no test writes stay. Of a test that fails nothing stays.

    Args:
        folder: of the test.
        named_by_user: the folder may hold the user's own files. Files are removed only where the
            ``results.json`` of a test stands beside them.

    Raises:
        InputError: another process is writing there, the folder cannot be written, or it holds something of a
            name that a test writes, but no result of a test.
    """
    with lock(folder):
        held = [name for name in WRITTEN if os.path.lexists(folder / name)]
        if held and named_by_user and not is_result(folder / "results.json"):
            raise InputError(
                f"{folder} holds {held[0]}, but no results.json of a test. Choose another folder, or move it."
            )
        _remove(folder)
        try:
            yield
        except BaseException:
            _remove(folder)
            raise


def _remove(folder: Path) -> None:
    for path in (folder / name for name in WRITTEN):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _safe(part: str) -> str:
    """A part of a file's name; a long one is cut, and a hash of all of it keeps it distinct."""
    name = re.sub(r"[^\w.+-]+", "_", part)
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9]}_{_digits(part, 8)}"


def _digits(text: str, count: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:count]
