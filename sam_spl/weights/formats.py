"""Weights files: ours, which describe themselves, and plain state dicts. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sam_spl.config import choice_named, group_files, weights_folder
from sam_spl.errors import InputError
from sam_spl.files import atomic
from sam_spl.foreign import brief, require_regular
from sam_spl.models.published import Published
from sam_spl.models.registry import is_trainable, model_file, model_names, network_class
from sam_spl.weights.description import check_description
from sam_spl.weights.published import identify, published_file

#: NumPy numbers that training codes leave beside the tensors, as they are pickled, in NumPy 1 and 2.
_NUMPY = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")

#: Marks a ``.pt`` file of ours, and the version of its layout.
FORMAT = "sam_spl/1"
_MOST_REPEATED = 2**20  # values of a tensor whose elements may share their memory


@dataclass(frozen=True)
class Weights:
    """The content of a weights file.

    Attributes:
        path: the file.
        state: tensors under our names, or under those of a plain state dict that no network here has
            published.
        description: what our files say of themselves
            (:func:`~sam_spl.weights.description.check_description`); empty where a file says nothing.
        published: of published weights, what their network declares of them.
    """

    path: Path
    state: dict[str, Tensor]
    description: dict[str, Any]
    published: Published | None = None

    @property
    def frozen_trunk(self) -> bool:
        """Whether the trunk was frozen in training, so that it still holds SAM 2's weights."""
        arguments = self.published.arguments if self.published else self.description.get("arguments", {})
        return bool(arguments.get("freeze_trunk"))


def read_weights(file: str | Path, network: Any = None) -> Weights:
    """Read any weights file that this toolkit understands, on the CPU.

    Args:
        file: ``.safetensors`` or ``.pt`` of ours, a run folder (its ``best``, else ``last``), published
            weights or a training checkpoint around them, a plain state dict, or a SAM 2 / 2.1 checkpoint; or
            the name of a network without weights, which its YAML file describes.
        network: a class or a model whose published names are tried before those of ``configs/model/``.

    Raises:
        InputError: no such file, not a weights file, damaged, malformed, or pickled code instead of tensors.
    """
    path = find_weights(file)
    if path.suffix.lower() == ".onnx":
        raise InputError(f"{path}: an exported file is for test and predict alone. Give its weights file.")
    if path.suffix == ".yaml":
        return _training_free(path)
    if path.suffix == ".safetensors":
        state, description = _read_safetensors(path)
        return _plain(path, state, network) if description is None else _ours(path, state, description)

    content = read_torch(path)
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        raise InputError(
            f"{path}: holds no weights. Give a .pt, .pth or .safetensors file with a state dict."
        )
    if content.get("format") == FORMAT:
        if "description" not in content:
            raise InputError(
                f"{path}: was written by this toolkit but has no description. Save or fetch the file again."
            )
        trained = content.get("model") if content.get("ema") is None else content["ema"]
        if isinstance(trained, dict):
            trained = {**trained, **read_frozen(content, path)}
        return _ours(path, trained, content["description"])
    for key in ("model_state_dict", "state_dict", "model", "net"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    return _plain(path, content, network)


def find_weights(file: str | Path) -> Path:
    """The weights file that ``file`` means: itself, the best of a run folder, or a file that comes along.

    Files that come with the toolkit are known by their names alone, as ``datransnet-sirst``, anywhere. What
    a network without weights computes is all in its YAML file: its name means that.
    """
    if not str(file).strip():  # as a path it would be the current folder
        raise InputError("weights: no file is named. Give a weights file or a run folder.")
    path = Path(file).expanduser()
    if path.is_dir():
        for name in ("best.safetensors", "best.pt", "last.pt"):
            if (path / name).is_file():
                return path / name
        raise InputError(f"weights: {path} is a folder without best.safetensors, best.pt or last.pt.")
    if path.is_file():
        return path
    shipped = {one.stem: one for one in sorted(weights_folder().glob("*.safetensors"))}
    if str(file) in shipped:
        return shipped[str(file)]
    if (name := choice_named("model", str(file))) in model_names():
        if not is_trainable(network_class(name)):
            return group_files("model")[name]
        raise InputError(
            f"weights: {name} is a network, whose weights are trained. Give its weights file or run folder, "
            f"or train one: sam-spl train --model {name} --dataset NAME"
        )
    raise InputError(
        f"weights: no file {path} (from {Path.cwd()}). Give a weights file, a run folder"
        + (f", or one of {', '.join(shipped)}." if shipped else ".")
    )


def read_frozen(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors that a ``.pt`` file of ours leaves to a file beside it: none where it states no ``frozen``.

    A run writes a frozen trunk once, not every epoch: ``{"file": "trunk.safetensors", "sha256": HEX}``.

    Raises:
        InputError: the file is missing, damaged or another one than was written with ``path``.
    """
    frozen = content.get("frozen")
    if frozen is None:
        return {}
    name, digest = (frozen.get("file"), frozen.get("sha256")) if isinstance(frozen, dict) else (None, None)
    if (
        not (isinstance(name, str) and isinstance(digest, str))
        or name != Path(name).name
        or not name.endswith(".safetensors")
    ):
        raise InputError(
            f"{path}: its key frozen is malformed: it needs the name of a .safetensors file beside it and "
            "its sha256. Save or fetch the file again."
        )
    beside = path.parent / name
    if not beside.is_file():
        raise InputError(
            f"{path}: its frozen weights are in {beside}, which is not there. Keep both files together."
        )
    if sha256(beside) != digest:
        raise InputError(
            f"{path}: its frozen weights were another {name} (SHA-256 {digest[:16]}...). Keep both files of "
            "one run together."
        )
    return _read_safetensors(beside)[0]


class _NumPyNumber:
    """Stands for a NumPy number and its type, of which nothing is kept: NumPy's own code would trust them."""

    def __init__(self, *content: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_torch(path: Path) -> Any:
    """``torch.load`` of tensors and plain Python only; NumPy numbers are left out.

    Raises:
        InputError: damaged, or holding anything that would have to be unpickled.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on pickle protocols, before it refuses them
            check_archive(path)
            with torch.serialization.safe_globals([(_NumPyNumber, name) for name in _NUMPY]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # whatever a damaged file makes its readers raise
        if isinstance(error, pickle.UnpicklingError) and (
            "global" in str(error).lower() or _is_bare_pickle(path)
        ):
            raise InputError(
                f"{path}: refused, because it holds pickled code besides tensors, which could run anything. "
                "Save its state dict alone (torch.save(model.state_dict(), file)) where you trust it."
            ) from error
        raise InputError(
            f"{path}: damaged, truncated or not a weights file. Fetch or save it again."
        ) from error


def save_torch(content: Any, path: Path) -> None:
    """``torch.save``, whose errors say what the system says.

    Raises:
        OSError: a full disk, say, which PyTorch reports in words of its own that change with its versions.
    """
    with path.open("wb") as stream:
        watched = _Watched(stream)
        try:
            torch.save(content, cast(IO[bytes], watched))
        except RuntimeError as error:
            raise watched.error or error from None


class _Watched:
    """A file that remembers the error of the system."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write to the file."""
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """See that all is with the system."""
        self._stream.flush()


def save_weights(
    file: str | Path, state: Mapping[str, Tensor], description: Mapping[str, Any], *, names: str = "ours"
) -> Path:
    """Write weights atomically.

    Args:
        file: ``.safetensors`` (self-described) or ``.pt`` / ``.pth``.
        state: tensors under our names.
        description: model, arguments, normalisation, image size; read back by
            :func:`~sam_spl.weights.loading.load_model`.
        names: ``published`` writes what the network's published code loads, the tensors that nothing uses
            filled with zeros.

    Raises:
        InputError: the description is malformed, the file cannot be written, the network has no published
            code, or that code would compute something else with the weights.
    """
    path = Path(file)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    if names == "published":
        content = published_file(tensors, description, path)
    else:
        description = check_description(dict(description), path)
        content = {"format": FORMAT, "model": tensors, "description": description}
    with atomic(path, durable=True) as temporary:
        if names == "published" or path.suffix != ".safetensors":
            save_torch(content, temporary)
        else:
            metadata = {"format": "pt", "sam_spl": json.dumps(description, sort_keys=True)}
            try:
                safetensors.torch.save_file(tensors, temporary, metadata=metadata)
            except SafetensorError as error:  # of the system: a full disk
                raise OSError(first_line(error)) from error
    return path


def sha256(file: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def first_line(error: BaseException) -> str:
    """The first line of an error of a library's, to be quoted in one of ours."""
    return str(error).strip().split("\n")[0][:300] or type(error).__name__


def _ours(path: Path, state: Any, description: Any) -> Weights:
    if state != {}:  # of a network without weights
        _check_tensors(path, state)
    return Weights(path, state, check_description(description, path))


def _plain(path: Path, state: Any, network: Any) -> Weights:
    _check_tensors(path, state)
    state, published = identify(state, network)
    return Weights(path, state, {}, published)


def _training_free(path: Path) -> Weights:
    """Of the YAML file of a network without weights: no tensor, and what there is to say of it."""
    name = path.stem
    if group_files("model").get(name) != path:
        raise InputError(
            f"{path}: holds no weights. Give a .pt, .pth or .safetensors file with a state dict."
        )
    network = network_class(name)
    arguments = model_file(name).get("arguments", {})
    description = {"model": name, "arguments": arguments, **getattr(network, "input", {}), "trainable": False}
    return Weights(path, {}, check_description(description, path))


def _check_tensors(path: Path, state: Any) -> None:
    if not isinstance(state, dict) or not state or not all(isinstance(name, str) for name in state):
        raise InputError(
            f"{path}: holds no weights. Give a .pt, .pth or .safetensors file with a state dict."
        )
    if not all(isinstance(value, Tensor) and not value.is_nested for value in state.values()):
        first = brief(", ".join(list(state)[:4]), quoted=False)
        raise InputError(f"{path}: holds no plain state dict (first keys: {first}).")
    for name, value in state.items():
        if _repeats(value):
            raise InputError(f"{path}: {brief(name)} states more values than the file holds. Save it again.")


def _repeats(value: Tensor) -> bool:
    """Whether many of a tensor's elements share their memory: a small file can state any number of them."""
    if value.layout != torch.strided or value.is_meta or value.numel() <= _MOST_REPEATED:
        return False
    return value.numel() * value.element_size() > value.untyped_storage().nbytes()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors, and the description; None where the file has none."""
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: damaged, truncated or not a weights file ({first_line(error)})."
        ) from error
    if "sam_spl" not in metadata:
        return state, None
    try:
        description = json.loads(metadata["sam_spl"])
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: its description is malformed: not JSON ({first_line(error)}). Save or fetch the file "
            "again."
        ) from error
    return state, check_description(description, path)


def check_archive(path: Path) -> None:
    """Refuse an archive that holds more than its size: ``torch.save`` compresses nothing.

    Raises:
        ValueError: it does.
        OSError: it is no regular file.
    """
    require_regular(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("compressed")


def _is_bare_pickle(path: Path) -> bool:
    """Whether the file begins as Python's pickle does, and not as the archive that ``torch.save`` makes."""
    with path.open("rb") as stream:
        return stream.read(1) == b"\x80"
