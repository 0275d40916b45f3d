"""Sources of images with masks: a folder's files, kept decoded while they fit, and several as one."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from threading import Lock
from typing import Any, Protocol

import numpy as np

from sam_spl.data.layout import Item
from sam_spl.data.reading import read_image, read_mask
from sam_spl.errors import InputError
from sam_spl.resize import Image, Mask, resize_mask

#: Decoded images are kept up to this many bytes per source.
CACHE_BYTES = 4 * 2**30


class Source(Protocol):
    """Images with masks, by index: a folder's, or generated ones."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The name of the image in results."""
        ...

    def load(self, index: int) -> tuple[Image, Mask]:
        """The image as stored and its mask."""
        ...


class FolderSource:
    """Image files with mask files. They are decoded at the start, and kept while they fit.

    They are kept in a file that is mapped into memory, so processes that start by fork share one copy, and
    the system can take the memory back. The file lies in the folder for temporary files (``TMPDIR``) and has
    no name, so it goes with the last process. A loader process that starts by spawn or forkserver reads the
    image files: nothing decoded is sent to it.

    Args:
        items: from :func:`sam_spl.data.layout.find_split`.
        cache_bytes: limit of what is kept; 0 reads the image files each time.
        skip_bad: what cannot be read is an error when it is loaded, not now.

    Raises:
        InputError: (while they are decoded) an image or mask cannot be read, or their sizes differ.
    """

    def __init__(
        self, items: Sequence[Item], cache_bytes: int = CACHE_BYTES, *, skip_bad: bool = False
    ) -> None:
        self.items = list(items)
        self._kept = None
        if cache_bytes > 0 and self.items:
            self._kept = Decoded(self.items, cache_bytes, skip_bad=skip_bad)

    def __len__(self) -> int:
        return len(self.items)

    def __getstate__(self) -> dict[str, Any]:
        return {"items": self.items, "_kept": None}

    def name(self, index: int) -> str:
        """The stem that image and list share."""
        return self.items[index].name

    def load(self, index: int) -> tuple[Image, Mask]:
        """As it was decoded, or from the image files. Do not write into the arrays."""
        kept = self._kept.load(index) if self._kept is not None else None
        return kept or read_pair(self.items[index])


class Decoded:
    """Decoded images and masks, one after the other in a file without a name.

    Args:
        items: what to decode. From the first that does not fit any more, the rest is left out.
        limit: of the file in bytes; a full disk is a smaller one. Beside it, each thread holds the image that
            it decodes.
        skip_bad: leave out what cannot be read.

    Raises:
        InputError: as :func:`read_pair`.
    """

    def __init__(self, items: Sequence[Item], limit: int, *, skip_bad: bool = False) -> None:
        self._places: dict[int, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        self._end, self._limit, self._lock = 0, limit, Lock()
        self._map: mmap.mmap | bytes = b""
        try:
            unnamed = tempfile.TemporaryFile()  # noqa: SIM115, closed below
        except OSError:  # no folder for it, or no room in any
            return
        with unnamed as file, ThreadPoolExecutor(4) as pool:

            def keep(index: int) -> None:
                if self._end < self._limit:
                    with suppress(InputError) if skip_bad else nullcontext():
                        self._append(file.fileno(), index, *read_pair(items[index]))

            for _ in pool.map(keep, range(len(items))):
                pass  # raises what a thread raised
            # Copied on write, so that the arrays can be written to: PyTorch warns of others.
            if self._places:
                self._map = mmap.mmap(file.fileno(), self._end, access=mmap.ACCESS_COPY)

    def load(self, index: int) -> tuple[Image, Mask] | None:
        """The image and its mask; None where they were left out."""
        if index not in self._places:
            return None
        start, dtype, shape = self._places[index]
        count = math.prod(shape)
        image = np.frombuffer(self._map, dtype, count, start).reshape(shape)
        mask = np.frombuffer(self._map, np.bool_, math.prod(shape[:2]), start + image.nbytes)
        return image, mask.reshape(shape[:2])

    def _append(self, file: int, index: int, image: Image, mask: Mask) -> None:
        content = image.tobytes() + mask.tobytes()
        content += b"\0" * (len(content) % 2)  # 16-bit values begin at even places
        with self._lock:
            if self._end + len(content) <= self._limit and _written(file, content, self._end):
                self._places[index] = self._end, image.dtype, image.shape
                self._end += len(content)
            else:
                self._limit = 0


def _written(file: int, content: bytes, start: int) -> bool:
    """Whether the disk had room."""
    try:
        return os.pwrite(file, content, start) == len(content)
    except OSError:
        return False


class Joined:
    """Several sources, one after the other; ``prefixes`` keep images with the same name apart."""

    def __init__(self, sources: Sequence[Source], prefixes: Sequence[str] | None = None) -> None:
        prefixes = prefixes or [""] * len(sources)
        self._at = [
            (source, index, prefix)
            for source, prefix in zip(sources, prefixes, strict=True)
            for index in range(len(source))
        ]

    def __len__(self) -> int:
        return len(self._at)

    def name(self, index: int) -> str:
        """The prefix and the name in its own source."""
        source, inner, prefix = self._at[index]
        return prefix + source.name(inner)

    def load(self, index: int) -> tuple[Image, Mask]:
        """The image and mask of its own source."""
        source, inner, _ = self._at[index]
        return source.load(inner)


def read_pair(item: Item) -> tuple[Image, Mask]:
    """Read an image and its mask.

    Raises:
        InputError: unreadable, or of different sizes.
    """
    image, mask = read_image(item.image), read_mask(item.mask)
    if item.resize_mask and image.shape[:2] != mask.shape:
        mask = resize_mask(mask, image.shape[:2])
    if image.shape[:2] != mask.shape:
        raise InputError(
            f"dataset: the mask {item.mask} is {mask.shape[1]}x{mask.shape[0]}, its image {item.image.name} "
            f"{image.shape[1]}x{image.shape[0]} (width x height). Fix the mask, or have it resized: "
            f"dataset.odd_masks=[{item.name}]"
        )
    return image, mask
