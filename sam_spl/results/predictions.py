"""Probability maps as files: what testing saves, and what other tools have saved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.data.reading import decode
from sam_spl.errors import ConfigError, InputError, nearest
from sam_spl.files import atomic
from sam_spl.foreign import brief, require_regular

Prob = NDArray[np.floating[Any]]

SUFFIXES = (".png", ".npy", ".mat", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
FORMS = ("npy", "png", "mat")
_MOST_VALUES = 8192 * 8192  # of a map, as of an image of a data set
_ENDINGS = ("", "_pred", "_Pred", "_prediction", "_prob", "_pixels0")


def write_prediction(folder: Path, name: str, prob: Prob, form: str) -> None:
    """Write ``folder/name.form``: float32 for npy and mat (as ``prob``), probability x 255 for png."""
    if form not in FORMS:
        raise ConfigError(f"save_predictions: {form!r} is unknown. Nearest: {nearest(form, FORMS)}")
    with atomic(folder / f"{name}.{form}") as temporary, temporary.open("wb") as stream:
        if form == "npy":
            np.save(stream, prob.astype(np.float32))
        elif form == "png":
            stream.write(cv2.imencode(".png", np.round(255 * prob).astype(np.uint8))[1].tobytes())
        else:
            from scipy.io import savemat

            savemat(stream, {"prob": prob.astype(np.float32)}, do_compression=True)


def find_predictions(folder: Path) -> dict[str, Path]:
    """Files below a folder by path, without suffix and what tools append (``_pred``, ``_prob``).

    Raises:
        InputError: no folder, none in it, or two for one name.
    """
    if not folder.is_dir():
        raise InputError(f"--predictions: no folder {folder}.")
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        ending = next((ending for ending in reversed(_ENDINGS) if stem.endswith(ending)), "")
        name = stem.removesuffix(ending)
        if name in found:
            raise InputError(
                f"--predictions: {found[name]} and {path.name} are for one image. Keep one of the two."
            )
        found[name] = path
    if not found:
        raise InputError(f"--predictions: {folder} holds no file ({', '.join(SUFFIXES)}).")
    return found


def full_scale(paths: Iterable[Path]) -> float:
    """What stands for one in image files: 255, or 1 where no file of all has a larger value."""
    largest = max(
        (int(_stored(path).max()) for path in paths if path.suffix.lower() not in (".npy", ".mat")), default=0
    )
    return 1.0 if largest <= 1 else 255.0 if largest <= 255 else 65535.0


def read_prediction(path: Path, *, scale: float, logits: bool = False) -> Prob:
    """A probability map (H, W).

    Args:
        path: PNG (or another image), NPY or MAT file; of a MAT file its only two-dimensional variable.
        scale: what stands for one in image files, from :func:`full_scale`.
        logits: NPY and MAT files hold logits.

    Raises:
        InputError: unreadable, not two-dimensional, not finite, or outside [0, 1].
    """
    suffix = path.suffix.lower()
    if suffix in (".npy", ".mat"):
        values = _array(path)
    else:
        stored = _stored(path)
        values = (stored if stored.ndim == 2 else stored[..., :3].max(-1)).astype(np.float64) / scale
    if not np.isfinite(values).all():
        raise InputError(
            f"{path} holds {int((~np.isfinite(values)).sum())} value(s) that are not finite. "
            "Predict it again."
        )
    if logits and suffix in (".npy", ".mat"):  # looked at before: the sigmoid would hide infinite ones
        with np.errstate(over="ignore"):
            values = 1 / (1 + np.exp(-values.astype(np.float64)))
    if values.min(initial=0) < 0 or values.max(initial=0) > 1:
        raise InputError(
            f"{path} holds values from {values.min():g} to {values.max():g}, but probabilities are in [0, "
            "1]. Divide them, or use --logits."
        )
    return values.astype(np.float64) if values.dtype == bool else values


def _stored(path: Path) -> NDArray[Any]:
    stored = decode(path)
    if stored.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path} holds {stored.dtype} values. Save it with 8 or 16 bits, or as NPY.")
    return stored


def _array(path: Path) -> NDArray[Any]:
    try:
        require_regular(path)
        values = _read_npy(path) if path.suffix.lower() == ".npy" else _read_mat(path)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes NumPy or SciPy raise
        raise InputError(f"cannot read {path}: {brief(error, 120, quoted=False)}.") from error
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):  # of a batch, of channels
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise InputError(
            f"{path} holds {values.dtype} of shape {values.shape}; a map (height, width) of numbers is "
            "needed."
        )
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _read_npy(path: Path) -> NDArray[Any]:
    """Mapped at first: its header may state more values than the file holds."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise ValueError("an archive of arrays")
    _check_size(values.shape)
    return np.array(values)


def _read_mat(path: Path) -> NDArray[Any]:
    from scipy.io import loadmat, whosmat

    maps = {name: shape for name, shape, _ in whosmat(path) if len(shape) == 2}
    if len(maps) != 1:
        names = brief(", ".join(maps), quoted=False)
        raise InputError(f"{path} holds {len(maps)} two-dimensional variables ({names}); one is needed.")
    (name,) = maps
    _check_size(maps[name])
    values: NDArray[Any] = loadmat(path, variable_names=[name])[name]
    return values


def _check_size(shape: Sequence[int]) -> None:
    if math.prod(shape) > _MOST_VALUES:
        raise ValueError(f"{'x'.join(map(str, shape))} values are too many")
