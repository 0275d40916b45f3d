"""Weights files: ours, the published codes', SAM 2's. Strict: nothing is loaded in part, nothing unpickled."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sam_spl.errors import ConfigError, InputError
from sam_spl.files import atomic
from sam_spl.models.datransnet import GatedUp, Res
from sam_spl.models.registry import build_model, model_file, model_names
from sam_spl.weights.description import check_description
from sam_spl.weights.published import UNUSED, from_published, to_published

log = logging.getLogger(__name__)

#: Marks a ``.pt`` file of ours, and the version of its layout.
FORMAT = "sam_spl/1"

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SAM2_TRUNK = "image_encoder.trunk."
_PUBLISHED = ("image_encoder.inc0.", "deep_conv_block.", "inc.0.")  # names that only published files have


@dataclass(frozen=True)
class Weights:
    """The content of a weights file.

    Attributes:
        path: the file.
        state: tensors under our names (``kind`` ``ours`` and ``published``) or SAM 2's (``sam2``).
        kind: ``ours``, ``published`` or ``sam2``.
        description: what our files say of themselves (:func:`~sam_spl.weights.description.check_description`); empty
            where a file says nothing.
    """

    path: Path
    state: dict[str, Tensor]
    kind: str
    description: dict[str, Any]

    @property
    def frozen_trunk(self) -> bool:
        """Whether the trunk was frozen in training, so that it still is what SAM 2's weights made it."""
        return self.kind == "published" or bool(self.description.get("arguments", {}).get("freeze_trunk"))


def read_weights(file: str | Path) -> Weights:
    """Read any weights file that this toolkit understands, on the CPU.

    Args:
        file: ``.safetensors`` or ``.pt`` of ours, a run folder (its ``best``, else ``last``), a published SAM-SPL
            state dict or training checkpoint, or a SAM 2 / 2.1 checkpoint.

    Raises:
        InputError: no such file, not a weights file, damaged, malformed, or pickled code instead of tensors.
    """
    path = find_weights(file)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)

    content = read_torch(path)
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        raise InputError(
            f"{path}: holds no weights. Give a .pt, .pth or .safetensors file with a state dict."
        )
    if content.get("format") == FORMAT:
        if "description" not in content:
            raise InputError(
                f"{path}: is of this toolkit but lacks its description. Save or fetch the file again."
            )
        averaged = content.get("ema")
        return _weights(path, content.get("model") if averaged is None else averaged, content["description"])
    for key in ("model_state_dict", "state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    return _weights(path, content, {})


def find_weights(file: str | Path) -> Path:
    """The weights file that ``file`` means: itself, or the best of a run folder."""
    if not str(file).strip():  # as a path it would be the current folder
        raise InputError("weights: no file is named. Give a weights file or a run folder.")
    path = Path(file).expanduser()
    if path.is_dir():
        for name in ("best.safetensors", "best.pt", "last.pt"):
            if (path / name).is_file():
                return path / name
        raise InputError(f"weights: {path} is a folder without best.safetensors, best.pt or last.pt.")
    if not path.is_file():
        raise InputError(f"weights: no file {path} (from {Path.cwd()}). Give a weights file or a run folder.")
    return path


def read_torch(path: Path) -> Any:
    """``torch.load`` of tensors and plain Python only.

    Raises:
        InputError: damaged, or holding anything that would have to be unpickled.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on pickle protocols, before it refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, AttributeError) as error:
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
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from error


def load_weights(model: nn.Module, file: str | Path) -> nn.Module:
    """Load a file of any kind but SAM 2's into ``model``; all of it or an error.

    Some arguments change what weights mean and no tensor's shape (a network names them in ``not_in_shapes``). A file
    that was trained with other ones is refused. Where a file does not state one (of DATransNet's, published weights
    do not state ``train_size``), the model's own is taken and a warning says so.

    A trunk that was frozen when these weights were trained is frozen, unless the model was built with
    ``freeze_trunk=False``.

    Raises:
        InputError: names are missing, unexpected, misshapen or mistyped, or the weights are another variant's.
    """
    weights = _whole_network(read_weights(file))
    stated = _stated(weights)
    decisive = getattr(model, "not_in_shapes", ())
    for key in decisive:
        theirs, own = (_plain(value) for value in (stated.get(key), getattr(model, key)))
        if key in stated and theirs != own:
            raise InputError(
                f"{weights.path}: was trained with {key} {theirs}, the model has {own}. "
                f"Build the model with {key}={theirs} (model.{key}={theirs} on the command line)."
            )
    load_strict(model, weights.state, weights.path)
    if weights.frozen_trunk:
        _freeze_unless_told(model)
    unstated = [f"{key} ({_plain(getattr(model, key))})" for key in decisive if key not in stated]
    if unstated:
        log.warning("%s does not state its %s: the model's own is taken", weights.path, ", ".join(unstated))
    return model


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """``load_state_dict`` that changes nothing unless every name, shape and type fits, and lists what does not.

    Floating values may have 16, 32 or 64 bits, and are finite in the model's own.
    """
    own = module.state_dict()
    mistyped = {name: why for name, value in state.items() if (why := _mistyped(value, own.get(name)))}
    state = {name: value for name, value in state.items() if not name.startswith(UNUSED)}
    problems = [
        *(f"missing     {name} {tuple(own[name].shape)}" for name in own if name not in state),
        *(f"unexpected  {name} {tuple(state[name].shape)}" for name in state if name not in own),
        *(
            f"misshapen   {name} {tuple(state[name].shape)}, the model has {tuple(own[name].shape)}"
            for name in own
            if name in state and own[name].shape != state[name].shape
        ),
        *(f"mistyped    {name} {why}" for name, why in mistyped.items()),
    ]
    if problems:
        shown = "\n  ".join(
            problems[:12] + ([f"... and {len(problems) - 12} more"] if len(problems) > 12 else [])
        )
        raise InputError(
            f"{source}: these weights are not this model's (another variant? other switches? damaged?), nothing was "
            f"loaded:\n  {shown}"
        )
    module.load_state_dict(state)


def load_model(file: str | Path, *, train_size: int | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model that a weights file describes and load it.

    Args:
        file: a file of ours, a run folder, or published weights, whose network and variant their shapes tell.
        train_size: of DATransNet weights that do not state it, as published ones. Networks without it ignore it.

    Returns:
        The model in evaluation mode and what the file says of itself, the model's name and arguments always.

    Raises:
        InputError: as :func:`read_weights` and :func:`load_weights`; a train size that is unknown, or not the file's.
    """
    weights = _whole_network(read_weights(file))
    description = dict(weights.description)
    if "model" not in description:
        description = {**_recognise(weights), **description}
    arguments = dict(description["arguments"])
    if description["model"] == "datransnet":
        arguments["train_size"] = _train_size(weights.path, arguments.get("train_size"), train_size)
    try:
        model = build_model(description["model"], **arguments)
    except ConfigError as error:
        raise InputError(f"{weights.path}: its description does not fit this version: {error}") from error
    channels = model.in_channels
    contradiction = None
    if description.get("in_channels", channels) != channels:
        contradiction = f"in_channels is {description['in_channels']}"
    elif "mean" in description and len(description["mean"]) not in (1, channels):
        contradiction = f"mean and std have {len(description['mean'])} values"
    if contradiction:
        raise InputError(
            f"{weights.path}: its description is malformed: {contradiction}, the network has {channels} channel(s). "
            "Save or fetch the file again."
        )
    load_strict(model, weights.state, weights.path)
    description["arguments"] = model.built_from["arguments"]
    return model.eval(), description


def load_trunk(model: nn.Module, source: str, hub: str | None = None) -> None:
    """Put SAM 2 weights into the trunk and freeze it, unless the model was built with ``freeze_trunk=False``.

    Args:
        model: a :class:`~sam_spl.models.sam_spl.SAMSPL` from :func:`build_model`.
        source: a SAM 2 / 2.1 checkpoint, or ``hub`` to let timm fetch ``hub``.
        hub: timm's name of the weights.

    Raises:
        InputError: no such file, no network, another variant's weights, or a model without a trunk.
    """
    if not hasattr(model, "encoder"):
        raise InputError("model.trunk_weights: this model has no SAM 2 trunk. Set model.trunk_weights=null.")
    trunk = model.encoder.trunk
    if source == "hub":
        state, where = _fetch_trunk(str(hub)), f"hub {hub}"
    else:
        weights = read_weights(source)
        if weights.kind != "sam2":
            raise InputError(
                f"model.trunk_weights: {weights.path} is no SAM 2 checkpoint (it has no {_SAM2_TRUNK}* tensors)."
            )
        renamed = from_published({k: v for k, v in weights.state.items() if k.startswith(_SAM2_TRUNK)})
        state = {name.removeprefix("encoder.trunk."): value for name, value in renamed.items()}
        where = str(weights.path)
    _check_depth(state, trunk, where)
    # A three-stage variant takes three stages; deeper blocks of the file stay where they are.
    used = {
        n: v
        for n, v in state.items()
        if not n.startswith("blocks.") or int(n.split(".")[1]) < len(trunk.blocks)
    }
    load_strict(trunk, used, where)
    _freeze_unless_told(model)


def save_weights(
    file: str | Path, state: Mapping[str, Tensor], description: Mapping[str, Any], *, names: str = "ours"
) -> Path:
    """Write weights atomically.

    Args:
        file: ``.safetensors`` (self-described) or ``.pt`` / ``.pth``.
        state: tensors under our names.
        description: model, arguments, normalisation, image size; read back by :func:`load_model`.
        names: ``published`` writes what the published code of SAM-SPL or DATransNet loads, the tensors that nothing
            uses filled with zeros.

    Raises:
        InputError: the file cannot be written, or the published code would compute something else with the weights.
    """
    path = Path(file)
    heads = description.get("arguments", {}).get("num_heads", 1)
    if names == "published" and heads != 1:
        raise InputError(
            f"{path}: the published code of SAM-SPL runs its trunk with num_heads 1, these weights were trained with "
            f"{heads} and would give something else there. Train with model.num_heads=1 for weights of that code."
        )
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    if names == "published":
        with atomic(path) as temporary:
            torch.save(_published_file(tensors), temporary)
    elif path.suffix == ".safetensors":
        metadata = {"format": "pt", "sam_spl": json.dumps(dict(description), sort_keys=True)}
        with atomic(path) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata=metadata)
    else:
        with atomic(path) as temporary:
            torch.save({"format": FORMAT, "model": tensors, "description": dict(description)}, temporary)
    return path


def sha256(file: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _freeze_unless_told(model: nn.Module) -> None:
    arguments = getattr(model, "built_from", {}).get("arguments", {})
    if arguments.get("freeze_trunk", False) is None:
        arguments["freeze_trunk"] = True
        model.freeze_trunk()


def _mistyped(value: Tensor, own: Tensor | None) -> str | None:
    """What keeps a tensor of a file from being copied as it is; None where nothing does."""
    kind = str(value.dtype).removeprefix("torch.")
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return f"is not dense ({kind}, {value.layout}, {value.device})".replace("torch.", "")
    if own is None or not (own.is_floating_point() or value.is_complex()):
        return None
    if value.dtype not in _FLOATS:
        return f"is {kind}, the model has {own.dtype}".replace("torch.", "")
    return None if value.to(own.dtype).isfinite().all() else "has values that are not finite"


def _whole_network(weights: Weights) -> Weights:
    if weights.kind == "sam2":
        raise InputError(
            f"{weights.path}: SAM 2 weights hold the trunk only. Train with model.trunk_weights={weights.path}"
        )
    return weights


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: damaged, truncated or not a weights file ({_first_line(error)})."
        ) from error
    try:
        description = json.loads(metadata.get("sam_spl", "{}"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: its description is malformed: no JSON ({_first_line(error)}). Save or fetch the file again."
        ) from error
    return _weights(path, state, description)


def _weights(path: Path, state: Any, description: Any) -> Weights:
    """Tensors under our names, and whose they are."""
    if not isinstance(state, dict) or not state or not all(isinstance(name, str) for name in state):
        raise InputError(
            f"{path}: holds no weights. Give a .pt, .pth or .safetensors file with a state dict."
        )
    if not all(isinstance(value, Tensor) and not value.is_nested for value in state.values()):
        raise InputError(f"{path}: holds no plain state dict (first keys: {', '.join(list(state)[:4])}).")
    description = check_description(description, path)
    state = {name.removeprefix("module.").removeprefix("model."): value for name, value in state.items()}
    if any(name.startswith(_PUBLISHED) for name in state):
        return Weights(path, from_published(state), "published", description)
    kind = "sam2" if any(name.startswith(_SAM2_TRUNK) for name in state) else "ours"
    return Weights(path, state, kind, description)


def _recognise(weights: Weights) -> dict[str, Any]:
    """Which network weights without a description are of, by their names and shapes."""
    if "gfem.gate.weight" in weights.state:
        # Its recipe: grey value / 255, images as they are stored, and no rule for those that somebody shrinks.
        settings = {"mean": [0.0], "std": [1.0], "image_size": None, "resize": "pillow"}
        return {"model": "datransnet", "arguments": {}, **settings}
    variant = _variant(weights.state)
    if variant is None:
        raise InputError(
            f"{weights.path}: does not say which network it is of, and no known variant fits its shapes. "
            "Give weights of this toolkit or published weights."
        )
    published = {"num_heads": 1, "freeze_trunk": True}
    return {"model": variant, "arguments": published if weights.kind == "published" else {}}


def _variant(state: Mapping[str, Tensor]) -> str | None:
    """SAM-SPL's variant by the width and the depth of its trunk."""
    width = state.get("encoder.trunk.patch_embed.proj.weight")
    blocks = {match[1] for name in state if (match := re.match(r"encoder\.trunk\.blocks\.(\d+)\.", name))}
    if width is None:
        return None
    trunks = {name: model_file(name)["arguments"] for name in model_names()}
    sizes = {(of["embed_dim"], sum(of["stages"])): name for name, of in trunks.items() if "stages" in of}
    return sizes.get((width.shape[:1].numel(), len(blocks)))


def _stated(weights: Weights) -> dict[str, Any]:
    """The arguments that weights were trained with, as far as the file (or its being published) tells."""
    if weights.description or weights.kind != "published":
        return weights.description.get("arguments", {})
    variant = _variant(weights.state)
    # The published code runs every variant with one head in its first stage, Hiera-L too.
    return {**(model_file(variant)["arguments"] if variant else {}), "num_heads": 1}


def _train_size(path: Path, stated: int | None, given: int | None) -> int:
    if stated is None and given is None:
        raise InputError(
            f"{path}: DATransNet's attention depends on its training size, which published weights "
            "do not state. Give train_size=256, or 512 for IRSTD-1k."
        )
    if stated is not None and given is not None and stated != given:
        raise InputError(f"{path}: was trained with train_size {stated}, not {given}. Leave train_size= out.")
    return stated if given is None else given  # type: ignore[return-value]


def _plain(value: Any) -> Any:
    """Tuples, lists and OmegaConf's lists of equal values are equal."""
    return value if isinstance(value, str) or not isinstance(value, Sequence) else list(value)


def _fetch_trunk(name: str) -> dict[str, Tensor]:
    import timm

    try:
        state = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # a hub fails in more ways than can be listed
        raise InputError(
            f"model.trunk_weights=hub: {name} could not be fetched ({_first_line(error)}). On a machine without "
            "network, copy a SAM 2.1 checkpoint there (scripts/download_sam2.py says which) and give its path."
        ) from error
    return {key: value for key, value in state.items() if not key.startswith("head.")}


def _check_depth(state: Mapping[str, Tensor], trunk: nn.Module, where: str) -> None:
    """Hiera-T's first stages have the shapes of Hiera-S's: only where a stage ends tells them apart."""
    depth = len(trunk.blocks)  # type: ignore[arg-type]
    deeper = any(name.startswith(f"blocks.{depth}.") for name in state)
    if deeper and f"blocks.{depth}.proj.weight" not in state:
        raise InputError(
            f"{where}: these trunk weights are another variant's: the model's last stage ends after block "
            f"{depth - 1}, theirs goes on. Give the SAM 2 file of this variant (scripts/download_sam2.py lists them)."
        )


def _published_file(state: dict[str, Tensor]) -> dict[str, Any]:
    """What the published codes load: a plain state dict for SAM-SPL, ``state_dict`` with prefixed names for DATransNet.

    Tensors that nothing uses are zeros, if the weights did not bring them.
    """
    if "gfem.gate.weight" in state:
        blocks = {"encoder5": Res(128, 128), "decoder5": GatedUp(128, 256, 128)}
        for block, module in blocks.items():
            for name, value in module.state_dict().items():
                state.setdefault(f"{UNUSED}{block}.{name}", torch.zeros_like(value))
        named = {f"model.{name}": value for name, value in to_published(state).items()}
        return {"epoch": 0, "state_dict": named, "total_loss": 0.0}
    for kind in ("weight", "bias"):
        like = state[f"encoder.trunk.patch_embed.proj.{kind}"]
        state.setdefault(f"{UNUSED}patch_embed.0.{kind}", torch.zeros_like(like))
    return to_published(state)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300] or type(error).__name__


def _is_bare_pickle(path: Path) -> bool:
    """Whether the file begins as Python's pickle does, and not as the archive that ``torch.save`` makes."""
    with path.open("rb") as stream:
        return stream.read(1) == b"\x80"
