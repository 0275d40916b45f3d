"""The protocols that published numbers were counted under, as declarations.

In each of them pixels, targets and areas are summed over the data set and ratios taken once at the end; nIoU
alone is a mean over images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sam_spl.config import require, require_choice
from sam_spl.errors import ConfigError
from sam_spl.registry import Registry, is_reference
from sam_spl.resize import RULES


class View(NamedTuple):
    """What is counted: at which resolution, and above which threshold."""

    resolution: str  # own: the image's; input: the network's; a number: that square
    relative: bool = False  # above half of the image's own maximum, not above 0.5
    resize: str = "pillow"  # how masks get to another resolution, of sam_spl.resize.RULES


@dataclass(frozen=True)
class Protocol:
    """One way of scoring.

    Attributes:
        name: in configurations, tables and result files.
        resolution: as :class:`View`.
        relative: F1, Pd and Fa are taken above half of each image's maximum, over images with targets only;
            IoU is not.
        empty: nIoU of an image whose mask and prediction are both empty; None: nIoU is not reported.
        by_area: Fa leaves out every predicted component whose area equals that of a matched one. A known
            fault of published code: a false alarm as large as a detected target vanishes.
        resize: as :class:`View`; masks are resized nearest.
        note: what a reader of its figures has to know.
    """

    name: str
    resolution: str = "own"
    relative: bool = False
    empty: float | None = 1.0
    by_area: bool = False
    resize: str = "pillow"
    note: str = ""

    def __post_init__(self) -> None:
        require(
            bool(self.name) and not is_reference(self.name), "protocol name", repr(self.name), "use letters"
        )
        known = self.resolution in ("own", "input") or (
            self.resolution.isdecimal() and int(self.resolution) > 0
        )
        require(
            known, f"protocol {self.name}: resolution", self.resolution, "give own, input or a side in pixels"
        )
        require_choice(self.resize, f"protocol {self.name}: resize", RULES)

    @property
    def views(self) -> tuple[View, View]:
        """Where IoU is counted, and where F1, Pd and Fa."""
        return View(self.resolution, False, self.resize), View(self.resolution, self.relative, self.resize)


_FLAT = (
    "an image whose probabilities are all equal and above 0 is predicted whole, as p / max(p) is 1 everywhere"
)

#: Adding a protocol is adding a line here, or registering one.
PROTOCOLS = Registry(
    "protocols",
    {
        protocol.name: protocol
        for protocol in (
            Protocol("native"),
            Protocol("basicirstd", empty=None),
            Protocol("sam_spl", resolution="input", empty=0.0, by_area=True),
            Protocol("datransnet", relative=True, empty=None, by_area=True, note=_FLAT),
            Protocol("mshnet", resolution="256", empty=0.0, by_area=True),
            Protocol("dnanet", resolution="256", empty=0.0, by_area=True),
        )
    },
)


def protocols_named(names: Iterable[str]) -> list[Protocol]:
    """The declarations of names (or of references ``module:OBJECT``, ``file.py:OBJECT``), each once.

    Raises:
        ConfigError: unknown name, or none; a reference to something else, or to a protocol whose name is
            taken.
    """
    chosen: dict[str, Protocol] = {}
    for name in names:
        protocol = PROTOCOLS[name]
        require(isinstance(protocol, Protocol), "protocols", name, "give a sam_spl.metrics.Protocol")
        known = dict(PROTOCOLS).get(protocol.name, protocol)
        if chosen.setdefault(protocol.name, known) != protocol:
            raise ConfigError(
                f"protocols: {name} has the name {protocol.name!r} of another protocol. Choose another name."
            )
    require(bool(chosen), "protocols", "[]", f"name at least one of {', '.join(PROTOCOLS)}")
    return list(chosen.values())
