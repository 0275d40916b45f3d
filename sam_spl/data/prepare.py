"""From a user's own images and labels to a data set: images, masks and lists."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from sam_spl.data.annotations import draw, read_coco, read_labelme
from sam_spl.data.pairing import IMAGE_SUFFIXES, Files, files_below
from sam_spl.data.reading import decode, read_mask
from sam_spl.errors import ConfigError, InputError
from sam_spl.foreign import brief
from sam_spl.resize import Mask

Labels = dict[str, Callable[[tuple[int, int]], Mask]]  # image name -> its mask at a size (H, W)


def read_labels(
    images: Mapping[str, Path],
    *,
    masks: str | Path | None = None,
    coco: str | Path | None = None,
    labelme: str | Path | None = None,
    unlabelled: str = "error",
) -> tuple[Labels, list[str], list[str]]:
    """The labels of images from one of three kinds of files.

    Args:
        images: name -> file. Files in the folder of masks are not images.
        masks: folder of mask files.
        coco: COCO file.
        labelme: folder of LabelMe files.
        unlabelled: what to do about images without label: ``error``, ``skip``, or ``empty`` for no target.

    Returns:
        The labels, the names of images without label, and those of mask files without image.

    Raises:
        InputError: labels cannot be read, or images have none and ``unlabelled`` is ``error``.
    """
    unused = list[str]()
    if masks is not None:
        folder = Path(masks).expanduser()
        images = {
            name: path
            for name, path in images.items()
            if Path(os.path.realpath(folder)) not in Path(os.path.realpath(path)).parents
        }
        labels, unused = labels_from_masks(images, folder)
    elif coco is not None:
        labels = labels_from_coco(images, Path(coco).expanduser())
    else:
        assert labelme is not None
        labels = labels_from_labelme(images, Path(labelme).expanduser())
    without = [name for name in images if name not in labels]
    if without and unlabelled == "error":
        raise InputError(
            f"{len(without)} of {len(images)} images have no label, first {', '.join(without[:3])}. Label "
            "them, skip them (--unlabelled skip), or take them as images without target (--unlabelled empty)."
        )
    if unlabelled == "empty":
        labels |= {name: lambda size: np.zeros(size, bool) for name in without}
    return labels, without, unused


def labels_from_masks(images: Mapping[str, Path], folder: Path) -> tuple[Labels, list[str]]:
    """Mask files named like their images, also with ``_pixels0``, ``_mask`` or ``_label`` added.

    Returns:
        The labels, and the names of mask files that are of no image.

    Raises:
        InputError: there is no mask.
    """
    masks = files_below(folder) if folder.is_dir() else {}
    if not masks:
        raise InputError(f"{folder} is not a folder, or holds no masks. Give the folder of the mask files.")
    files = Files.of(images, masks)
    found = {name: path for name in images if (path := files.mask(name))}
    used = {*found.values()}
    labels: Labels = {name: partial(_mask, path) for name, path in found.items()}
    return labels, [name for name, path in masks.items() if path not in used]


def labels_from_coco(images: Mapping[str, Path], file: Path) -> Labels:
    """The annotations of a COCO file; a listed image without annotation has an empty mask.

    Raises:
        InputError: the file names an image that is not there.
    """
    labels: Labels = {}
    files = Files.of(images, {})
    absent = []
    for listed, shapes in read_coco(file).items():
        name = files.image_name(Path(os.path.splitext(listed)[0]).as_posix())
        if name is None:
            absent.append(brief(listed, quoted=False))
        else:
            labels[name] = partial(draw, shapes)
    if absent:
        raise InputError(
            f"{file} names {len(absent)} image(s) that are not there, first {', '.join(absent[:3])}. "
            "Add them, or remove them from the file."
        )
    return labels


def labels_from_labelme(images: Mapping[str, Path], folder: Path) -> Labels:
    """LabelMe files named like the images, in ``folder`` or beside the images."""
    labels: Labels = {}
    for name in images:
        file = next(
            (path for path in (folder / f"{name}.json", images[name].with_suffix(".json")) if path.is_file()),
            None,
        )
        if file:
            labels[name] = partial(draw, read_labelme(file))
    return labels


def sequence_of(name: str) -> str:
    """The sequence of a frame: its folder, and its name without the number at the end."""
    return re.sub(r"[\W_]*\(?\d+\)?$", "", name)


def split_names(
    names: Iterable[str], shares: Mapping[str, float], *, by_sequence: bool, seed: int
) -> dict[str, list[str]]:
    """Split names at random; with ``by_sequence`` the frames of one sequence stay together.

    Args:
        names: of images.
        shares: role -> share of the images; train gets the rest.
        by_sequence: split sequences instead of images.
        seed: of the random order.

    Raises:
        ConfigError: fewer sequences (or images) than roles.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[sequence_of(name) if by_sequence else name].append(name)
    wanted = {role: share for role, share in shares.items() if role != "train" and share > 0}
    if len(groups) <= len(wanted):
        kind = "sequence(s) (names without the number at the end)" if by_sequence else "image(s)"
        raise ConfigError(
            f"--by: {len(groups)} {kind}, {', '.join(sorted(groups)[:3])}, cannot be split in "
            f"{len(wanted) + 1} parts."
            + (" Split by image: --by image" if by_sequence else " Give more images, or --test 0.")
        )
    order = [list(groups)[k] for k in np.random.default_rng(seed).permutation(len(groups))]
    total = sum(map(len, groups.values()))
    split: dict[str, list[str]] = {}
    for position, (role, share) in enumerate(wanted.items()):
        taken = [order.pop()]
        still = len(wanted) - position  # groups to leave: one for each further role, and for training
        # Take the next sequence while that comes nearer to the share.
        while len(order) > still:
            now = sum(len(groups[group]) for group in taken)
            if abs(now + len(groups[order[-1]]) - share * total) >= abs(now - share * total):
                break
            taken.append(order.pop())
        split[role] = sorted(name for group in taken for name in groups[group])
    return {"train": sorted(name for group in order for name in groups[group]), **split}


def write_folder(
    target: Path,
    images: Mapping[str, Path],
    labels: Labels,
    split: Mapping[str, Sequence[str]],
    *,
    link: bool = False,
) -> int:
    """Write ``images/``, ``masks/`` and a list for each role, completely or not at all.

    Args:
        target: a folder that does not exist yet, or is empty.
        images: name -> file, which is copied unchanged.
        labels: name -> mask.
        split: role -> names.
        link: hard links instead of copies, where the file system can.

    Returns:
        The number of masks without any target.

    Raises:
        InputError: the folder is not empty, or an image or mask cannot be read.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists and is not empty. Give a new folder.")
    half = target.with_name(f".{target.name}.{os.getpid()}.part")
    empty = 0
    try:
        for name in (name for names in split.values() for name in names):
            stored = decode(images[name])
            mask = labels[name](stored.shape[:2])
            empty += not mask.any()
            image_file, mask_file = (
                half / "images" / f"{name}{images[name].suffix}",
                half / "masks" / f"{name}.png",
            )
            for file in (image_file, mask_file):
                file.parent.mkdir(parents=True, exist_ok=True)
            (os.link if link else shutil.copyfile)(images[name], image_file)
            mask_file.write_bytes(cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes())
        for role, names in split.items():
            (half / f"{role}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        if target.exists():
            target.rmdir()
        os.replace(half, target)
    except OSError as error:
        remedy = "Try without --link." if link else "Choose a folder that can be written, with free space."
        raise InputError(f"cannot write {target}: {error.strerror or error}. {remedy}") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return empty


def image_files(folder: Path) -> dict[str, Path]:
    """Images below a folder by their path without suffix.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}. Give the folder of the images.")
    found = files_below(folder)
    if not found:
        raise InputError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return found


def _mask(path: Path, size: tuple[int, int]) -> Mask:
    mask = read_mask(path)
    if mask.shape != size:
        raise InputError(
            f"the mask {path} is {mask.shape[1]}x{mask.shape[0]}, its image {size[1]}x{size[0]} (width x "
            "height). Fix the mask."
        )
    return mask
