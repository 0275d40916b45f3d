"""Write a network as an ONNX file, and check that the file answers as the network does."""

from __future__ import annotations

import ast
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sam_spl import __version__
from sam_spl.data.normalise import Normalise, normalise_of
from sam_spl.data.pairing import IMAGE_SUFFIXES
from sam_spl.data.reading import read_image
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.errors import ConfigError, InputError
from sam_spl.files import atomic
from sam_spl.metrics.target import components, match
from sam_spl.models.registry import channels_of, is_trainable
from sam_spl.predict.engines import METADATA, MULTIPLE, ExportedNetwork, load_exported
from sam_spl.resize import Image, resize_image
from sam_spl.runtime import keep_onnxruntime_to_itself
from sam_spl.weights.formats import first_line, sha256

#: Largest difference of probabilities between a float32 file and its network.
TOLERANCE = 1e-3
PRECISIONS = ("fp32", "fp16", "int8")

_CALIBRATION = 100  # images that ranges of activations are taken from, at most
_SCOPES = "pkg.torch.onnx.name_scopes"  # of a node's metadata: the modules that it comes from


@dataclass(frozen=True)
class Agreement:
    """How a file's answers differ from its network's.

    Attributes:
        images: that both answered.
        difference: the largest of two probabilities of a pixel.
        detections: regions above the threshold in the network's answers.
        worst: name of the image with the largest difference.
        unequal: names of the images whose detections differ: another number, or centroids 3 pixels apart.
    """

    images: int
    difference: float
    detections: int
    worst: str
    unequal: list[str]


def export(
    model: nn.Module,
    description: Mapping[str, Any],
    weights: Path,
    output: str | Path,
    *,
    images: Iterable[tuple[str, Image]] = (),
    precision: str = "fp32",
    calibration: Sequence[Path] = (),
) -> Agreement:
    """Write a network as an ONNX file that normalises its input and describes itself.

    Input ``image``: float32 (B, C, H, W), values in [0, 1], H and W multiples of 32, any B. Output
    ``logits``: float32 (B, 1, H, W), the finest head; the sigmoid of it is the probability.

    Args:
        model: in evaluation mode, on the CPU.
        description: as :func:`sam_spl.predict.predictor.load_network` gives it; it goes into the file.
        weights: the file that the model is from; its SHA-256 goes into the file.
        output: file to write.
        images: names and images to compare both on, besides generated ones.
        precision: fp32; fp16, weights and arithmetic where half precision holds; int8, convolutions below
            the input's size and linear layers, with ranges from ``calibration``.
        calibration: image files.

    Returns:
        How the file's answers differ from the model's.

    Raises:
        ConfigError: a package is not installed.
        InputError: the network cannot be converted, the file cannot be written, or a float32 file does not
            answer as the network does. Then no file is left.
    """
    if not is_trainable(model):
        raise InputError(
            f"{weights}: a network without weights is no graph of tensors that a file could hold. Use it by "
            f"its name: sam-spl predict --weights {description['model']}"
        )
    keep_onnxruntime_to_itself()
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _require(package)
    normalise = normalise_of(description, channels_of(model))
    graph = convert(model, normalise)
    wide = _float32_nodes(graph, model)
    for part in (*graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        del part.metadata_props[:]  # where in the code each came from
    if precision == "fp16":
        graph = _half(graph, wide)
    described = {
        **description,
        "threshold": description.get("threshold", 0.5),
        "in_channels": normalise.channels,
        "multiple": MULTIPLE,
        "padding": "zeros" if getattr(model, "zero_padding", False) else "edge",  # after normalisation
        "precision": precision,
        "weights_sha256": sha256(weights),
        "toolkit": f"sam-spl {__version__}",
        "input": "image: float32 (B, in_channels, H, W) in [0, 1], sides multiples of 32; normalised inside",
        "output": "logits: float32 (B, 1, H, W); probability = 1 / (1 + exp(-logits))",
    }
    with atomic(output) as temporary:
        if precision == "int8":
            graph = _quantised(graph, wide, calibration, normalise, description)
        _describe(graph, described)
        _save(graph, temporary)
        exported, _ = load_exported(temporary, "onnxruntime")
        shown = chain(generated(description["image_size"]), images)
        found = compare(model, exported, shown, description, float(described["threshold"]))
        if precision == "fp32" and (found.difference > TOLERANCE or found.unequal):
            differing = f", and other detections in {', '.join(found.unequal[:3])}" if found.unequal else ""
            raise InputError(
                f"{output}: not written, because its answers are not the network's: probabilities differ by "
                f"{found.difference:.2g} in {found.worst}{differing}. Try other versions of torch, onnx and "
                "onnxruntime (constraints.txt)."
            )
    return found


def convert(model: nn.Module, normalise: Normalise) -> Any:
    """The network with its normalisation in front, as an ``onnx.ModelProto`` of any batch and size.

    Raises:
        InputError: PyTorch cannot convert it.
    """
    batch, rows, columns = (torch.export.Dim(name, min=1) for name in ("batch", "rows", "columns"))
    # Sides that windows of tokens do not divide, so that nothing is left out as never needed.
    example = torch.rand(2, normalise.channels, 5 * MULTIPLE, 7 * MULTIPLE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _OfValues(model, normalise).eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes={"image": {0: batch, 2: MULTIPLE * rows, 3: MULTIPLE * columns}},
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(
            f"{type(model).__name__} cannot be converted to ONNX with torch {torch.__version__}: "
            f"{first_line(error.__cause__ or error)}"
        ) from error
    assert program is not None
    return program.model_proto


class _OfValues(nn.Module):
    """From values in [0, 1] to the finest logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.model = model
        for name, values in (("mean", normalise.mean), ("std", normalise.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model((image - self.mean) / self.std)[0]
        return logits


def generated(image_size: int | None) -> Iterator[tuple[str, Image]]:
    """Scenes of the network's size, of another shape, and of one that is no multiple of 32."""
    side = image_size or 256
    for height, width in ((side, side), (160, 288), (101, 75)):
        source = SyntheticSource(2, (height, width), empty=0.0)
        for index in range(len(source)):
            yield f"generated {width}x{height} {index}", source.load(index)[0]


def image_files(folder: str | Path, key: str) -> list[Path]:
    """The image files in a folder and below, sorted.

    Raises:
        InputError: there are none.
    """
    root = Path(folder).expanduser()
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(
            f"{key}: no image files in {root}. Give a folder of {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return files


@torch.inference_mode()
def compare(
    model: nn.Module,
    exported: ExportedNetwork,
    images: Iterable[tuple[str, Image]],
    description: Mapping[str, Any],
    threshold: float,
) -> Agreement:
    """Answer images by a network and by its exported file.

    Args:
        model: the network.
        exported: its file.
        images: names and images as data sets hold them, resized as ``description`` says.
        description: of the network's input.
        threshold: of detections.

    Raises:
        InputError: an answer is not finite.
    """
    own, plain = normalise_of(description, channels_of(model)), Normalise((0.0,), (1.0,), channels_of(model))
    side, detections, unequal = description["image_size"], 0, list[str]()
    differences: dict[str, float] = {}
    for name, stored in images:
        image = stored if side is None else resize_image(stored, (side, side), description["resize"])
        expected = model(own(image)[None])[0].sigmoid()[0, 0].numpy()
        found = exported(plain(image)[None])[0].sigmoid()[0, 0].numpy()
        if not np.isfinite(found - expected).all():
            raise InputError(
                f"the answer to {name} is not finite. Export with precision=fp32, or use other weights."
            )
        differences[name] = float(np.abs(expected - found).max())
        targets, others = (components(prob > threshold) for prob in (expected, found))
        detections += len(targets)
        if len(targets) != len(others) or (match(targets, others) < 0).any():
            unequal.append(name)
    worst = max(differences, key=lambda name: differences[name])
    return Agreement(len(differences), differences[worst], detections, worst, unequal)


def _float32_nodes(graph: Any, model: nn.Module) -> list[str]:
    """Nodes of the parts of a network that need single precision (``keeps_float32``)."""
    wide = {f"model.{name}" for name, part in model.named_modules() if getattr(part, "keeps_float32", False)}
    names = []
    for node in graph.graph.node:
        said = {one.key: one.value for one in node.metadata_props}
        if wide.intersection(ast.literal_eval(said.get(_SCOPES, "[]"))):
            names.append(node.name)
    return names


def _half(graph: Any, wide: list[str]) -> Any:
    """The graph in half precision but for ``wide``, its input and its output."""
    from onnxruntime.transformers import float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = float16.convert_float_to_float16(
        graph,
        keep_io_types=True,
        op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, "Resize"],
        node_block_list=wide,
    )
    _drop_round_trips(half.graph)
    OnnxModel.graph_topological_sort(half.graph)  # casts are appended at the end
    return half


def _drop_round_trips(graph: Any) -> None:
    """Let nodes in single precision hand on what they compute, which the converter narrows in between."""
    import onnx

    kinds = onnx.TensorProto
    casts = [(node, node.attribute[0].i) for node in graph.node if node.op_type == "Cast"]
    outputs = {one.name for one in graph.output}  # these names stay
    narrowed = {node.output[0]: node.input[0] for node, to in casts if to == kinds.FLOAT16}
    widened = {
        node.output[0]: narrowed[node.input[0]]
        for node, to in casts
        if to == kinds.FLOAT and node.input[0] in narrowed and node.output[0] not in outputs
    }
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = widened.get(name, name)
    used = {name for node in graph.node if node.output[0] not in widened for name in node.input}
    used |= outputs
    for node, _ in casts:
        if node.output[0] not in used:
            graph.node.remove(node)


def _quantised(
    graph: Any, wide: list[str], files: Sequence[Path], normalise: Normalise, description: Mapping[str, Any]
) -> Any:
    """The graph with convolutions below the input's size and linear layers of 8-bit integers.

    Ranges of activations are from images.
    """
    import onnx
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs = calibration_inputs(files, normalise.channels, description)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        logging.disable(logging.WARNING)  # it recommends to fuse nodes, which PyTorch's converter has done
        try:
            quantization.quantize_static(
                graph,
                target,
                Images(),
                op_types_to_quantize=["Conv", "Gemm", "MatMul"],
                per_channel=True,
                nodes_to_exclude=[*wide, *_full_size_nodes(graph)],
                extra_options={"MatMulConstBOnly": True},  # linear layers, not attention's products
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(target)


def _full_size_nodes(graph: Any) -> list[str]:
    """Convolutions at the size of the input, where integers blur targets of a few pixels most."""

    def size(value: Any) -> list[str]:
        return [side.dim_param for side in value.type.tensor_type.shape.dim[2:]]

    sizes = {value.name: size(value) for value in (*graph.graph.value_info, *graph.graph.output)}
    whole = size(graph.graph.input[0])
    return [
        node.name
        for node in graph.graph.node
        if node.op_type == "Conv" and sizes.get(node.output[0]) == whole
    ]


def calibration_inputs(
    files: Sequence[Path], channels: int, description: Mapping[str, Any]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Inputs of an exported network from image files, evenly chosen where they are many."""
    plain = Normalise((0.0,), (1.0,), channels)
    for path in files[:: -(-len(files) // _CALIBRATION)]:
        image = read_image(path)
        side = description["image_size"]
        size = (side, side) if side else image.shape[:2]
        values = plain(resize_image(image, size, description["resize"])).numpy()
        more = [(0, 0), *((0, -length % MULTIPLE) for length in size)]
        yield {"image": np.pad(values, more, mode="edge")[None]}


def _describe(graph: Any, description: Mapping[str, Any]) -> None:
    del graph.metadata_props[:]
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(description, sort_keys=True)


def _save(graph: Any, path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(graph)
        path.write_bytes(graph.SerializeToString())
    except (ValueError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path.name}: cannot be written as ONNX ({first_line(error)}).") from error


def _require(package: str) -> None:
    try:
        import_module(package)
    except ImportError as error:
        raise ConfigError(
            f'export: {package} is not installed. Run: pip install "sam-spl[export]"'
        ) from error
