"""Exported networks (ONNX files), run by ONNX Runtime or OpenVINO in place of the PyTorch network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sam_spl.data.normalise import normalise_of
from sam_spl.errors import ConfigError, InputError, nearest
from sam_spl.models.training_free import TrainingFree
from sam_spl.runtime import World, keep_onnxruntime_to_itself, pick_precision
from sam_spl.weights.description import check_description
from sam_spl.weights.formats import first_line

#: The key of an exported file's metadata that holds its description, as JSON.
METADATA = "sam_spl"
#: Height and width of an exported network's input are multiples of this, in pixels.
MULTIPLE = 32

Answer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class ExportedNetwork(nn.Module):
    """A network in a file, called like one of PyTorch. It computes on the CPU and has no parameters.

    Args:
        answer: from images (B, C, H, W), sides multiples of :data:`MULTIPLE`, to logits (B, 1, H, W).
        in_channels: C.
        engine: what computes.
        precision: of the file, and what it is computed in where that is another.
        border: value of each channel to pad with; None repeats the edge.

    Shape:
        - image: (B, C, H, W), values in [0, 1], any H and W (padded at the right and the bottom)
        - returns: one logit map (B, 1, H, W), in a list
    """

    def __init__(
        self,
        answer: Answer,
        in_channels: int,
        engine: str,
        precision: str,
        border: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self._answer, self.in_channels, self._border = answer, in_channels, border
        self.engine, self.precision = engine, precision

    @property
    def name(self) -> str:
        """Engine and precision, for tables."""
        return f"{self.engine} {self.precision}"

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        padded = F.pad(image.detach().float().cpu(), padding, mode="replicate").contiguous()
        if self._border is not None:
            border = torch.tensor(self._border)[:, None, None]
            padded[..., height:, :], padded[..., width:] = border, border
        logits = torch.from_numpy(np.ascontiguousarray(self._answer(padded.numpy())))
        return [logits[..., :height, :width].to(image.device)]


def is_exported(path: Path) -> bool:
    """Whether a file is an exported network, by its name."""
    return path.suffix.lower() == ".onnx"


def precision_name(model: nn.Module, world: World) -> str:
    """What a network computes in, as results state it."""
    if isinstance(model, ExportedNetwork):
        return model.name
    return "float32" if isinstance(model, TrainingFree) else world.precision_name


def load_exported(
    file: str | Path, engine: str = "auto", *, precision: str = "fp32"
) -> tuple[ExportedNetwork, dict[str, Any]]:
    """An exported file as a network, with what it says of itself.

    The file normalises, so the description has mean 0 and std 1, and the network's own under ``normalises``.
    As many threads compute as PyTorch has.

    Args:
        file: from ``sam-spl export``.
        engine: one of :data:`ENGINES`; auto: the first of them that is installed.
        precision: fp32, as the file has it; bf16 lets OpenVINO compute in bfloat16; auto does so where the
            processor supports it.

    Raises:
        ConfigError: no such engine, its package is not installed, or it has no such precision.
        InputError: no such file, damaged, or not written by ``sam-spl export``.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"weights: no file {path} (from {Path.cwd()}). Give a file of sam-spl export.")
    name = _installed(path, engine)
    bfloat16 = _in_bfloat16(name, precision)
    answer, metadata = ENGINES[name].open(path, bfloat16)
    description = _description(path, metadata)
    computed = f"{description.get('precision', 'fp32')}{' in bf16' if bfloat16 else ''}"
    channels = description["in_channels"]
    border = normalise_of(description, channels).mean if description.get("padding") == "zeros" else None
    network = ExportedNetwork(answer, channels, name, computed, border)
    inside = {"mean": description["mean"], "std": description["std"]}
    return network.eval(), {**description, "mean": [0.0], "std": [1.0], "normalises": inside}


def _installed(path: Path, engine: str) -> str:
    """The engine that is meant, which is there."""
    if engine == "torch":
        raise ConfigError(
            f"engine: torch runs weights files, and {path} is an exported one. Choose "
            f"{' or '.join(ENGINES)}, or give the weights that it was exported from."
        )
    if engine not in ("auto", *ENGINES):
        raise ConfigError(f"engine: {engine!r} is unknown. Nearest: {nearest(engine, ENGINES)}.")
    names = list(ENGINES) if engine == "auto" else [engine]
    for name in names:
        if find_spec(name) is not None:
            return name
    raise ConfigError(
        f'engine: {names[0]} is not installed. Run: pip install "sam-spl[{ENGINES[names[0]].extra}]"'
    )


def _in_bfloat16(engine: str, precision: str) -> bool:
    """Whether an engine computes in bfloat16 at a precision that is asked for."""
    if precision == "auto":
        return ENGINES[engine].bfloat16 and pick_precision("auto", torch.device("cpu")) == torch.bfloat16
    if precision == "bf16" and ENGINES[engine].bfloat16:
        return True
    if precision != "fp32":
        raise ConfigError(
            f"precision: {precision} is not valid, {engine} computes an exported file as it is"
            f"{' or in bf16' if ENGINES[engine].bfloat16 else ''}. Leave it out, or export another."
        )
    return False


def _description(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    if METADATA not in metadata:
        raise InputError(f"{path}: was not written by sam-spl export. Export the weights again.")
    try:
        content = json.loads(metadata[METADATA])
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: its description is not JSON. Export the weights again.") from error
    content = check_description(content, path)
    missing = [key for key in ("model", "mean", "in_channels", "image_size", "resize") if key not in content]
    if missing:
        raise InputError(f"{path}: its description has no {', '.join(missing)}. Export the weights again.")
    return content


def _onnxruntime(path: Path, bfloat16: bool) -> tuple[Answer, Mapping[str, Any]]:
    keep_onnxruntime_to_itself()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes are not public
        raise _unreadable(path, error) from error

    def answer(image: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(["logits"], {"image": image})[0]
        return logits

    return answer, session.get_modelmeta().custom_metadata_map


def _openvino(path: Path, bfloat16: bool) -> tuple[Answer, Mapping[str, Any]]:
    import openvino

    core = openvino.Core()
    settings = {  # left alone it takes bfloat16 where the processor has it
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    try:
        model = core.read_model(str(path))
        network = core.compile_model(model, "CPU", settings)
    except Exception as error:  # its classes are not public
        raise _unreadable(path, error) from error
    request = network.create_infer_request()

    def answer(image: NDArray[np.float32]) -> NDArray[np.float32]:
        request.infer({"image": image})
        return np.array(request.get_output_tensor(0).data, np.float32)

    return answer, _metadata_of(model)


def _metadata_of(model: Any) -> dict[str, Any]:
    """What OpenVINO keeps of a file's metadata."""
    where = ["framework", METADATA]
    return {METADATA: model.get_rt_info(where).value} if model.has_rt_info(where) else {}


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read as an ONNX file ({first_line(error)}). Export it again.")


@dataclass(frozen=True)
class Engine:
    """A package that runs exported files.

    Attributes:
        open: from a file, and whether to compute in bfloat16, to a function that answers, and the metadata of
            the file.
        extra: of this package, which installs it.
        bfloat16: whether it can compute in bfloat16.
    """

    open: Callable[[Path, bool], tuple[Answer, Mapping[str, Any]]]
    extra: str
    bfloat16: bool


#: By the names of their packages, the one to prefer first.
ENGINES = {
    "onnxruntime": Engine(_onnxruntime, "export", bfloat16=False),
    "openvino": Engine(_openvino, "openvino", bfloat16=True),
}
