"""Exported networks (ONNX files), run by ONNX Runtime or OpenVINO in place of the PyTorch network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sam_spl.errors import ConfigError, InputError, nearest
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

    Shape:
        - image: (B, C, H, W), values in [0, 1], any H and W (padded by repeating the edge)
        - returns: one logit map (B, 1, H, W), in a list
    """

    def __init__(self, answer: Answer, in_channels: int) -> None:
        super().__init__()
        self._answer, self.in_channels = answer, in_channels

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        padded = F.pad(image.detach().float().cpu(), padding, mode="replicate").contiguous()
        logits = torch.from_numpy(np.ascontiguousarray(self._answer(padded.numpy())))
        return [logits[..., :height, :width].to(image.device)]


def load_exported(
    file: str | Path, engine: str = "onnxruntime", *, precision: str = "fp32"
) -> tuple[ExportedNetwork, dict[str, Any]]:
    """An exported file as a network, with what it says of itself.

    The file normalises, so the description has mean 0 and std 1, and the network's own under ``normalises``.
    As many threads compute as PyTorch has.

    Args:
        file: from ``sam-spl export``.
        engine: one of :data:`ENGINES`.
        precision: fp32, as the file has it; bf16 lets OpenVINO compute in bfloat16.

    Raises:
        ConfigError: no such engine, its package is not installed, or it has no such precision.
        InputError: no such file, damaged, or not written by ``sam-spl export``.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine: {engine!r} is unknown. Nearest: {nearest(engine, ENGINES)}.")
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"weights: no file {path} (from {Path.cwd()}). Give a file of sam-spl export.")
    answer, metadata = ENGINES[engine](path, precision)
    description = _description(path, metadata)
    inside = {"mean": description["mean"], "std": description["std"]}
    network = ExportedNetwork(answer, description["in_channels"])
    return network.eval(), {**description, "mean": [0.0], "std": [1.0], "normalises": inside}


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


def _onnxruntime(path: Path, precision: str) -> tuple[Answer, Mapping[str, Any]]:
    try:
        import onnxruntime
    except ImportError as error:
        raise _not_installed("onnxruntime", "export") from error
    if precision != "fp32":
        raise ConfigError(
            f"precision: {precision} is not valid, onnxruntime computes as the file says. Choose fp32, or "
            "export with --precision fp16."
        )
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


def _openvino(path: Path, precision: str) -> tuple[Answer, Mapping[str, Any]]:
    try:
        import openvino
    except ImportError as error:
        raise _not_installed("openvino", "openvino") from error
    kinds = {"fp32": "f32", "bf16": "bf16"}
    if precision not in kinds:
        raise ConfigError(f"precision: {precision} is not valid, openvino has fp32 and bf16.")
    core = openvino.Core()
    # Left alone it takes bfloat16 where the processor has it.
    settings = {
        "INFERENCE_PRECISION_HINT": kinds[precision],
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


def _not_installed(package: str, extra: str) -> ConfigError:
    return ConfigError(f'engine: {package} is not installed. Run: pip install "sam-spl[{extra}]"')


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read as an ONNX file ({first_line(error)}). Export it again.")


#: From a file and a precision to a function that answers, and the file's metadata.
ENGINES: dict[str, Callable[[Path, str], tuple[Answer, Mapping[str, Any]]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
