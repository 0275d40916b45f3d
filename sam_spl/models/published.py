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
    arguments: Mapping[str, Any] = field(default_factory=dict)
    unstated: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    unused: Callable[[State], dict[str, Tensor]] = lambda state: {}
    wrap: Callable[[dict[str, Tensor]], dict[str, Any]] = lambda state: state
