"""Folders of many images: finding them, and decoding them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from sam_spl.data.catalog import open_dataset
from sam_spl.data.config import DatasetConfig


@contextmanager
def listing(count: int) -> Iterator[Callable[[], object]]:
    """Find ``count`` images with their masks."""
    with _folder_of(count) as config:
        yield lambda: open_dataset(config)


@contextmanager
def decoding(count: int) -> Iterator[Callable[[], object]]:
    """Open ``count`` images of 256 px, as training does."""
    with _folder_of(count) as config:
        part = open_dataset(config).part("all")
        yield lambda: part.open()


@contextmanager
def _folder_of(count: int) -> Iterator[DatasetConfig]:
    """So many copies of one plain image: small files, so that only their number counts."""
    image = np.full((256, 256), 40, np.uint8)
    image[100:103, 120:123] = 200
    contents = {"images": image, "masks": (image == 200).astype(np.uint8) * 255}
    with tempfile.TemporaryDirectory() as folder:
        for part, array in contents.items():
            path = Path(folder) / part
            path.mkdir()
            content = cv2.imencode(".png", array)[1].tobytes()
            for index in range(count):
                (path / f"{index:07d}.png").write_bytes(content)
        yield DatasetConfig.named("custom", data_path=folder)
