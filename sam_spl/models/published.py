"""What a network declares of the weights that its published code writes and loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]

#: How the published codes of DNANet and MSHNet see images, in the words of a description.
IMAGENET_256 = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "image_size": 256,
    "resize": "pillow",
}

#: Mean and std of grey levels, by training set, of the codes that are built on BasicIRSTD.
_GREY_LEVELS = {
    "sirst": (101.06385040283203, 34.619606018066406),
    "nudt_sirst": (107.80905151367188, 33.02274703979492),
    "irstd_1k": (87.4661865234375, 39.71953201293945),
    "nudt_sea": (43.62403869628906, 18.91838264465332),
    "irdst": (101.54053497314453, 56.49856185913086),
    "sirst3": (101.06385040283203, 34.619606018066406),  # which takes SIRST's
}
#: The same on a scale of [0, 1].
BASICIRSTD = {name: (mean / 255, std / 255) for name, (mean, std) in _GREY_LEVELS.items()}


@dataclass(frozen=True, eq=False)
class Published:
    """The published weights of a network: an instance is its class's ``published``.

    It stands in the network's file, or in ``NAME_published.py`` beside it where the table is long.

    Attributes:
        names: (ours, published) beginnings of parameter names. ``#`` stands for one number. The first row
            that fits decides, the rest of a name is kept; a name that no row fits is the same in both. One
            table serves both directions, so a round trip gives the names it began with.
        marks: a file whose names begin with each of these is one of these files.
        own_mark: a tensor, under our name, that every state dict of this network holds.
        describe: from tensors under our names to what the file leaves unsaid: ``model``, ``arguments`` that
            the shapes tell, and ``mean``, ``std``, ``image_size`` and ``resize`` where they are one for all
            files. None where no known variant fits.
        normalisation: name of a data set -> mean and std in [0, 1], where the published code has constants of
            its own for the sets that it was trained on.
        arguments: the constructor's, where the published code has the same for every variant.
        unstated: argument that a file cannot be used without and does not state -> what to tell the user.
        prefix: stands before every name in a file that is written. Reading drops it, and
            ``model.`` and ``module.``.
        unused: from tensors under our names to those that published files hold and nothing uses, under the
            names that ``names`` has for them (``unused.*``); what they hold is irrelevant.
        wrap: from tensors under published names to the content of a file.
    """

    names: tuple[tuple[str, str], ...]
    marks: tuple[str, ...]
    own_mark: str
    describe: Callable[[State], dict[str, Any] | None]
    normalisation: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    unstated: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    unused: Callable[[State], dict[str, Tensor]] = lambda state: {}
    wrap: Callable[[dict[str, Tensor]], dict[str, Any]] = lambda state: state
