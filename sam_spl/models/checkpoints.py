"""Weights files: ours, the published codes', SAM 2's. Strict: nothing is loaded in part, nothing unpickled."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sam_spl.errors import InputError
from sam_spl.files import atomic
from sam_spl.models.datransnet import GatedUp, Res
from sam_spl.models.naming import UNUSED, from_published, to_published
from sam_spl.models.registry import build_model, model_config, model_names

#: Marks a ``.pt`` file of ours, and the version of its layout.
FORMAT = "sam_spl/1"

_SAM2_TRUNK = "image_encoder.trunk."
_PUBLISHED = ("image_encoder.inc0.", "deep_conv_block.", "inc.0.")  # names that only published files have


@dataclass(frozen=True)
class Weights:
    """The content of a weights file.

    Attributes:
        path: the file.
        state: tensors under our names (``kind`` ``ours`` and ``published``) or SAM 2's (``sam2``).
        kind: ``ours``, ``published`` or ``sam2``.
        description: what our files say of themselves: model, arguments, normalisation, image size, ...
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
        InputError: no such file, not a weights file, damaged, or pickled code instead of tensors.
    """
    path = find_weights(file)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)

    content = read_torch(path)
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path}: holds no weights. Give a .pt, .pth or .safetensors file with a state dict.")
    if content.get("format") == FORMAT:
        return Weights(path, content.get("ema") or content["model"], "ours", content["description"])
    for key in ("model_state_dict", "state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    state = {name.removeprefix("module.").removeprefix("model."): value for name, value in content.items()}
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no plain state dict (first keys: {', '.join(map(str, list(state)[:4]))}).")
    if any(name.startswith(_PUBLISHED) for name in state):
        return Weights(path, from_published(state), "published", {})
    if any(name.startswith(_SAM2_TRUNK) for name in state):
        return Weights(path, state, "sam2", {})
    return Weights(path, state, "ours", {})


def find_weights(file: str | Path) -> Path:
    """The weights file that ``file`` means: itself, or the best of a run folder."""
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
        if isinstance(error, pickle.UnpicklingError) and ("global" in str(error).lower() or _is_bare_pickle(path)):
            raise InputError(
                f"{path}: refused, because it holds pickled code besides tensors, which could run anything. "
                "Save its state dict alone (torch.save(model.state_dict(), file)) where you trust it."
            ) from error
        raise InputError(f"{path}: damaged, truncated or not a weights file. Fetch or save it again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from error


def load_weights(model: nn.Module, file: str | Path) -> nn.Module:
    """Load a file of any kind but SAM 2's into ``model``; all of it or an error.

    A trunk that was frozen when these weights were trained is frozen, unless the model was built with
    ``freeze_trunk=False``.

    Raises:
        InputError: names are missing, unexpected or misshapen, or the weights are another variant's.
    """
    weights = _whole_network(read_weights(file))
    arguments = getattr(model, "built_from", {}).get("arguments", {})
    for key in ("num_heads", "window_spec", "global_att_blocks"):  # what no shape betrays
        theirs = weights.description.get("arguments", {}).get(key, arguments.get(key))
        if weights.kind == "published" and key == "num_heads":
            theirs = 1 if arguments.get("embed_dim") == 144 else theirs
        if theirs != arguments.get(key):
            raise InputError(
                f"{weights.path}: was trained with {key} {theirs}, the model has {arguments.get(key)}. "
                f"Build the model with {key}={theirs}."
            )
    load_strict(model, weights.state, weights.path)
    if weights.frozen_trunk:
        _freeze_unless_told(model)
    return model


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """``load_state_dict`` that changes nothing unless every name and shape fits, and lists what does not."""
    own = module.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(UNUSED)}
    problems = [
        *(f"missing     {name} {tuple(own[name].shape)}" for name in own if name not in state),
        *(f"unexpected  {name} {tuple(state[name].shape)}" for name in state if name not in own),
        *(
            f"misshapen   {name} {tuple(state[name].shape)}, the model has {tuple(own[name].shape)}"
            for name in own
            if name in state and own[name].shape != state[name].shape
        ),
    ]
    if problems:
        shown = "\n  ".join(problems[:12] + ([f"... and {len(problems) - 12} more"] if len(problems) > 12 else []))
        raise InputError(
            f"{source}: these weights are not this model's (another variant? other switches?), nothing was loaded:\n"
            f"  {shown}"
        )
    module.load_state_dict(state)


def load_model(file: str | Path, *, train_size: int | None = None, **defaults: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model that a weights file describes and load it.

    Args:
        file: a file of ours, a run folder, or published weights, whose network and variant their shapes tell.
        train_size: of published DATransNet weights, which need it and do not say it.
        **defaults: description to assume where the file says nothing (``mean``, ``std``, ``image_size``).

    Returns:
        The model in evaluation mode and its description.

    Raises:
        InputError: as :func:`read_weights` and :func:`load_weights`.
    """
    weights = _whole_network(read_weights(file))
    description = {**defaults, **weights.description}
    if "model" not in description:
        description.update(_recognise(weights, train_size))
    model = build_model(description["model"], **description["arguments"])
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
    used = {n: v for n, v in state.items() if not n.startswith("blocks.") or int(n.split(".")[1]) < len(trunk.blocks)}
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
    """
    path = Path(file)
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
        raise InputError(f"{path}: damaged, truncated or not a weights file ({_first_line(error)}).") from error
    description = json.loads(metadata.get("sam_spl", "{}"))
    if any(name.startswith(_PUBLISHED) for name in state):
        return Weights(path, from_published(state), "published", description)
    return Weights(path, state, "ours", description)


def _recognise(weights: Weights, train_size: int | None) -> dict[str, Any]:
    """Which network published weights are of: SAM-SPL's variant by the shapes of the trunk, or DATransNet."""
    if "gfem.gate.weight" in weights.state:
        if train_size is None:
            raise InputError(
                f"{weights.path}: DATransNet's attention depends on its training size, which published weights "
                "do not say. Give train_size=256, or 512 for IRSTD-1k."
            )
        # Its recipe: grey value / 255, images as they are stored.
        settings = {"mean": [0.0], "std": [1.0], "image_size": None}
        return {"model": "datransnet", "arguments": {"train_size": train_size}, **settings}
    width = weights.state.get("encoder.trunk.patch_embed.proj.weight")
    blocks = {int(n.split(".")[3]) for n in weights.state if n.startswith("encoder.trunk.blocks.")}
    if width is not None:
        for name in model_names():
            model_arguments = model_config(name)
            if model_arguments.get("embed_dim") == len(width) and sum(model_arguments["stages"]) == len(blocks):
                # The published code ran Hiera-L with one head in its first stage.
                heads = 1 if weights.kind == "published" else model_arguments["num_heads"]
                frozen = weights.kind == "published" or None
                return {"model": name, "arguments": {"num_heads": heads, "freeze_trunk": frozen}}
    raise InputError(
        f"{weights.path}: says not what model it is of, and no known variant fits its shapes. "
        "Give weights of this toolkit or published SAM-SPL weights."
    )


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
