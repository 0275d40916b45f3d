"""What a network shows of its work on one image: declared beside it, drawn by ``sam-spl visualize``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

Kind = Literal["feature", "change", "share", "matrix", "channels"]


@dataclass(frozen=True, eq=False)
class Map:
    """One panel of a figure.

    Attributes:
        title: in the paper's terms; ``$..$`` is set as mathematics.
        values: (h, w) over the image's grid, the padding that the network adds included; a matrix; or
            (series, C), numbers of each channel.
        kind: ``feature``, from its smallest to its largest value; ``change``, symmetric about 0; ``share``,
            in [0, 1]; ``matrix``, (rows, columns) beside no image; ``channels``, bars.
        shared: panels of one figure with the same word have one colour scale.
        labels: of the series.
    """

    title: str
    values: Tensor
    kind: Kind = "feature"
    shared: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Sheet:
    """One figure.

    Attributes:
        name: of its file.
        title: what it shows.
        note: how the maps were made, below the title.
        rows: of panels; None leaves a place empty.
    """

    name: str
    title: str
    note: str
    rows: list[list[Map | None]]


@dataclass(frozen=True)
class Pass:
    """What the watched modules took and gave when the network saw one image.

    Attributes:
        model: the network.
        inputs: path of a module -> its positional arguments, a batch of one.
        outputs: path of a module -> what it gave.
    """

    model: nn.Module
    inputs: Mapping[str, tuple[Any, ...]]
    outputs: Mapping[str, Any]


@dataclass(frozen=True)
class Maps:
    """What a network shows: an instance is its class's ``maps``, in a file beside it.

    Attributes:
        watched: paths of the modules whose inputs and outputs are needed; ``#`` stands for one number.
        sheets: from those to figures. Modules that the network was built without are absent.
    """

    watched: tuple[str, ...]
    sheets: Callable[[Pass], list[Sheet]]

    def watch(self, paths: Iterable[str]) -> list[str]:
        """Those of a network's paths that are watched."""
        wanted = re.compile("|".join(re.escape(one).replace(r"\#", r"\d+") for one in self.watched))
        return [path for path in paths if wanted.fullmatch(path)]


def contrast(x: Tensor) -> Tensor:
    """How far each place of a feature (1, C, h, w) is from the feature's mean over the image: (h, w).

    The root mean square over the channels. Offsets of channels, often larger than what an image changes in
    them, do not count.
    """
    return magnitude(x.float() - x.float().mean((2, 3), keepdim=True))


def magnitude(x: Tensor) -> Tensor:
    """Root mean square over the channels of a feature (1, C, h, w), offsets included: (h, w)."""
    return x[0].float().square().mean(0).sqrt()


#: What a figure says of maps that :func:`contrast` made.
CONTRAST = (
    "Each map, on a scale of its own: distance from the feature's mean over the image (root mean square over "
    "the channels)."
)
