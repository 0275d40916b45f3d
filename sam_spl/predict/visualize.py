"""What a network does with one image: the figures that it declares, or any of its layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from sam_spl.errors import ConfigError, InputError, nearest
from sam_spl.models.maps import CONTRAST, Map, Maps, Pass, Sheet, contrast
from sam_spl.predict.predictor import Prediction, Predictor
from sam_spl.report.maps import Panel, Plate
from sam_spl.report.render import stretch
from sam_spl.resize import Image, Mask

Size = tuple[int, int]  # (H, W) in pixels

_STEP = 32  # whose multiples networks pad their input to
_ROW = 4  # panels
_WHOLE = ""  # path of the network itself


def visualize(
    predictor: Predictor, image: Any, *, mask: Mask | None = None, layers: Sequence[str] = ()
) -> tuple[Prediction, list[Plate]]:
    """Predict one image, and draw what the network did with it.

    Args:
        predictor: as for prediction.
        image: as :class:`Predictor` takes it, seen by the network in one pass: in no tiles.
        mask: the truth, bool (H, W), to be shown beside the prediction.
        layers: paths of modules whose outputs are shown, instead of what the network declares in ``maps``. A
            network that declares nothing shows its parts.

    Returns:
        The prediction, and figures: ``outputs`` first.

    Raises:
        ConfigError: a layer that the network does not have.
        InputError: as :class:`Predictor`; a mask of another size; an image that takes several passes; a layer
            that gives no map.
    """
    model = predictor.model
    declared: Maps | None = None if layers else getattr(model, "maps", None)
    known = [path for path, _ in model.named_modules() if path]
    for path in layers:
        if path not in known:
            raise ConfigError(f"layers: the network has no {path!r}. Nearest: {nearest(path, known)}.")
    watched = declared.watch(known) if declared else list(layers) or _parts(model)
    with _watching(model, watched) as seen:
        prediction = predictor(image)
    size = (prediction.image.shape[0], prediction.image.shape[1])
    if mask is not None and mask.shape != size:
        raise InputError(
            f"mask: has {mask.shape[1]}x{mask.shape[0]} pixels, the image {size[1]}x{size[0]}. Give its own."
        )
    height, width = seen.inputs[_WHOLE][0].shape[-2:]
    scale = (size[0] / height, size[1] / width) if predictor.image_size else (1.0, 1.0)
    grid = _Grid((height, width), scale)
    sheets = declared.sheets(seen) if declared else [_layers(seen, watched, grid, asked=bool(layers))]
    plates = [_outputs(prediction, seen.outputs[_WHOLE], mask, grid)]
    for sheet in sheets:
        rows = [[None if one is None else grid.panel(one) for one in row] for row in sheet.rows]
        plates.append(Plate(sheet.name, sheet.title, sheet.note, size, rows))
    return prediction, plates


@contextmanager
def _watching(model: nn.Module, paths: Sequence[str]) -> Iterator[Pass]:
    """Keep copies of what the modules and the network itself take and give, by hooks, in the block."""
    inputs: dict[str, tuple[Any, ...]] = {}
    outputs: dict[str, Any] = {}

    def before(path: str, taken: tuple[Any, ...]) -> None:
        if path == _WHOLE and path in inputs:
            raise InputError(
                "image: is predicted in several passes, of tiles, and one is shown. Give a crop of it, or "
                "image_size=none (or a number) for the whole."
            )
        inputs[path] = _copied(taken)

    def after(path: str, given: Any) -> None:
        outputs[path] = _copied(given)

    hooks = []
    for path in (_WHOLE, *paths):
        module = model.get_submodule(path)
        hooks.append(module.register_forward_pre_hook(lambda _, taken, path=path: before(path, taken)))
        hooks.append(module.register_forward_hook(lambda _, __, given, path=path: after(path, given)))
    try:
        yield Pass(model, inputs, outputs)
    finally:
        for hook in hooks:
            hook.remove()


def _copied(value: Any) -> Any:
    """Tensors on the CPU, as they are now: later layers may work in place."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    return tuple(_copied(one) for one in value) if isinstance(value, list | tuple) else value


def _parts(model: nn.Module) -> list[str]:
    """The parts of a network that declares no maps; what merely wraps another module is looked into."""
    path, children = "", dict(model.named_children())
    while len(children) == 1:
        ((name, child),) = children.items()
        path, children = f"{path}{name}.", dict(child.named_children())
    return [f"{path}{name}" for name in children] or [path.removesuffix(".")]


def _layers(seen: Pass, paths: Sequence[str], grid: _Grid, *, asked: bool) -> Sheet:
    """The outputs of modules; of parts that nobody asked for, those that are maps."""
    maps: list[Map] = []
    for path in paths:
        found = [
            Map(name, contrast(feature))
            for name, value in _tensors(path, seen.outputs.get(path))
            if (feature := grid.feature(value)) is not None
        ]
        if not found and asked:
            given = ", ".join(str(tuple(one.shape)) for _, one in _tensors(path, seen.outputs.get(path)))
            raise InputError(
                f"layers: {path} gives no map over the image ({given or 'it is not called'}). Name a module "
                "whose output is (B, C, h, w), (B, h, w, C) or (B, h w, C)."
            )
        maps += found
    if not maps:
        raise InputError("layers: no part of this network gives a map over the image. Name modules of it.")
    rows = [list[Map | None](maps[start : start + _ROW]) for start in range(0, len(maps), _ROW)]
    return Sheet("layers", type(seen.model).__name__, CONTRAST, rows)


def _tensors(name: str, value: Any) -> list[tuple[str, Tensor]]:
    """The tensors in an output, each with a name."""
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, Mapping):
        return [pair for key, one in value.items() for pair in _tensors(f"{name}[{key}]", one)]
    if isinstance(value, tuple):
        return [pair for k, one in enumerate(value) for pair in _tensors(f"{name}[{k}]", one)]
    return []


def _outputs(prediction: Prediction, logits: Sequence[Tensor], mask: Mask | None, grid: _Grid) -> Plate:
    """The image, the truth, the probability, and what the further heads give."""
    height, width = prediction.image.shape[:2]
    whole = (float(height), float(width))
    first: list[Panel | None] = [Panel("image", _grey(prediction.image), "image", whole)]
    if mask is not None:
        first.append(Panel("ground truth", mask.astype(np.uint8), "image", whole))
    count = len(prediction.detections)
    title = f"probability, {count} detection{'' if count == 1 else 's'}"
    first.append(Panel(title, prediction.prob, "share", whole))
    rows = [first]
    if len(logits) > 1:
        rows.append(
            [
                grid.panel(Map(f"side output {k + 1} of {len(logits)}", one[0, 0].float().sigmoid(), "share"))
                for k, one in enumerate(reversed(logits))
            ]
        )
    note = f"Detections: regions whose probability is above {prediction.threshold:g}."
    if len(logits) > 1:
        note += " Side outputs: from the coarsest head to the finest, as probabilities."
    return Plate("outputs", "Prediction", note, (height, width), rows)


def _grey(image: Image) -> Image:
    return stretch(image * np.float32(65535) if image.dtype.kind == "f" else image)


class _Grid:
    """Where the cells of maps lie in the image.

    Args:
        size: (H, W) of the network's input.
        scale: pixels of the image that a pixel of the input stands for, down and across.
    """

    def __init__(self, size: Size, scale: tuple[float, float]) -> None:
        self.size, self.scale = size, scale
        self.padded = (size[0] + -size[0] % _STEP, size[1] + -size[1] % _STEP)

    def feature(self, x: Tensor) -> Tensor | None:
        """An output of a batch of one as (1, C, h, w); None where it is no map over the input."""
        if x.ndim == 4 and x.shape[0] == 1:
            if self._fits(x.shape[2], x.shape[3]):
                return x
            return x.permute(0, 3, 1, 2) if self._fits(x.shape[1], x.shape[2]) else None
        if x.ndim == 3 and x.shape[0] == 1 < x.shape[1]:
            for halvings in range(8):
                height, width = (-(-side // 2**halvings) for side in self.padded)
                if height * width == x.shape[1]:
                    return x.mT.unflatten(2, (height, width))
        return None

    def panel(self, map_: Map) -> Panel:
        """A map without the cells that lie in padding alone, and how much of the image it covers."""
        values = map_.values.float()
        if map_.kind in ("matrix", "channels"):
            return Panel(map_.title, values.numpy(), map_.kind, None, map_.shared, map_.labels)
        shown, covers = [], []
        for cells, side, padded, scale in zip(values.shape, self.size, self.padded, self.scale, strict=True):
            stride = side / cells if padded % cells else padded / cells
            if cells == side:  # cropped back by the network
                stride = 1.0
            shown.append(min(cells, math.ceil(side / stride)))
            covers.append(shown[-1] * stride * scale)
        kept = values[: shown[0], : shown[1]].numpy()
        return Panel(map_.title, kept, map_.kind, (covers[0], covers[1]), map_.shared)

    def _fits(self, height: int, width: int) -> bool:
        """Whether a grid has one stride down and across."""
        return abs(self.padded[1] * height / self.padded[0] - width) < 1
