"""Sources of images with masks: a folder's files, kept in memory while they fit, and several as one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Protocol

from sam_spl.data.layout import Item
from sam_spl.data.reading import read_image, read_mask
from sam_spl.errors import InputError
from sam_spl.resize import Image, Mask, resize_mask

#: Decoded images are kept in memory up to this many bytes per process and source.
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

    A loader process that starts by spawn or forkserver reads from disk: the images are not sent to it.

    Args:
        items: from :func:`sam_spl.data.layout.find_split`.
        cache_bytes: limit of what is kept in memory; 0 reads from disk each time.

    Raises:
        InputError: (while the cache fills) an image or mask cannot be read, or their sizes differ.
    """

    def __init__(self, items: Sequence[Item], cache_bytes: int = CACHE_BYTES) -> None:
        self.items = list(items)
        self._cache: dict[int, tuple[Image, Mask]] = {}
        if cache_bytes > 0:
            self._fill(cache_bytes)

    def __len__(self) -> int:
        return len(self.items)

    def __getstate__(self) -> dict[str, Any]:
        return {"items": self.items, "_cache": {}}

    def name(self, index: int) -> str:
        """The stem that image and list share."""
        return self.items[index].name

    def load(self, index: int) -> tuple[Image, Mask]:
        """From memory, or from disk. Do not write into the arrays."""
        return self._cache[index] if index in self._cache else read_pair(self.items[index])

    def _fill(self, limit: int) -> None:
        left, lock = limit, Lock()

        def keep(index: int) -> None:
            nonlocal left
            if left <= 0:
                return
            image, mask = read_pair(self.items[index])
            with lock:
                left -= image.nbytes + mask.nbytes
                if left >= 0:
                    self._cache[index] = image, mask

        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(keep, range(len(self.items))):
                pass  # raises what a thread raised


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
