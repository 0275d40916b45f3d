"""Networks: forward pass and training pass, beside a reference, in units of the machine; and latency."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.processes import in_own_process
from benchmark.rows import Row, side
from benchmark.timing import interleaved
from sam_spl import build_model
from sam_spl.data.config import DatasetConfig
from sam_spl.data.normalise import normalise_of
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.errors import InputError
from sam_spl.models.registry import channels_of
from sam_spl.predict.predictor import Predictor
from sam_spl.registry import import_object
from sam_spl.runtime import World, pick_precision, place

_MATMUL = 2048  # side of the matrices that the machine's rate is measured with


@dataclass(frozen=True)
class Case:
    """A network in one mode.

    Attributes:
        name: of the network, as :func:`sam_spl.build_model` takes it.
        mode: ``test``, the forward pass in inference mode, or ``train``, forward pass, loss and backward pass
            of all parameters that require gradients.
        precision: of autocast: fp32, bf16 or fp16.
        compiled: see :func:`compiled`.
        reference: ``file.py:function`` that gives the network instead, None for ours.
        image_size: (H, W).
        batch_size: images a pass.
        device: cpu, cuda:N or mps.
    """

    name: str
    mode: str
    precision: str
    compiled: bool
    reference: str | None
    image_size: tuple[int, int]
    batch_size: int
    device: str

    @property
    def row(self) -> Row:
        """What the row of this case says before it is measured."""
        of = asdict(self) | {"reference": self.reference is not None, "image_size": side(self.image_size)}
        del of["device"]
        return Row(**of)

    @property
    def world(self) -> World:
        """Device and precision."""
        return world_of(self.device, self.precision)


def world_of(device: str, precision: str) -> World:
    """One process on a device, in a precision."""
    chosen = torch.device(device)
    return World(0, 1, chosen, pick_precision(precision, chosen))


def compiled(model: nn.Module) -> nn.Module:
    """A network as it is compiled where ``--compile true`` asks for it."""
    return torch.compile(model, dynamic=False)  # type: ignore[return-value]


class Pass:
    """One pass of a case over random images; calling it computes, :meth:`flop` counts what it computes."""

    def __init__(self, case: Case) -> None:
        self.case, self.world = case, case.world
        torch.manual_seed(0)
        model = build_model(case.name)
        image = torch.randn(case.batch_size, channels_of(model), *case.image_size, device=self.world.device)
        if case.reference is None:
            model = place(model, self.world.device)
            image = image.contiguous(memory_format=torch.channels_last)
        else:
            model = reference(case.reference, case.name).to(self.world.device)
        self.image, self.model = image, model.train(case.mode == "train")
        self.mask = (torch.rand_like(image[:, :1]) > 0.999).float()
        self.fast = compiled(self.model) if case.compiled else self.model

    def __call__(self, model: nn.Module | None = None) -> None:
        model = model or self.fast
        if self.case.mode == "test":
            with torch.inference_mode(), self.world.autocast():
                model(self.image)
            return
        with self.world.autocast():
            maps = model(self.image)
        loss_of(maps, self.mask).backward()
        self.model.zero_grad(set_to_none=True)

    def flop(self) -> int:
        """Operations of one image, a multiplication and an addition being two."""
        # Attention as plain products: the counter does not know every fast kernel.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self(self.model)
        return counter.get_total_flops() // self.case.batch_size


def reference(where: str, name: str) -> nn.Module:
    """The network that a function of the user's returns, called with our network's name if it takes one.

    Raises:
        ConfigError: no such function.
        InputError: it returns something else.
    """
    function = import_object(where, "--reference")
    if not callable(function):
        raise InputError(f"--reference: {where} is not a function. Give file.py:function.")
    model = function(name) if takes_a_name(function) else function()
    if not isinstance(model, nn.Module):
        raise InputError(f"--reference: {where} returned {type(model).__name__}. Return a torch.nn.Module.")
    return model


def takes_a_name(function: Callable[..., Any]) -> bool:
    """Whether a function can be called with one argument."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(one.kind in kinds for one in inspect.signature(function).parameters.values())


def loss_of(maps: Any, mask: Tensor) -> Tensor:
    """The sum of each map's mean binary cross entropy, at the mask's size, ours and references' alike.

    It is for timing: a reference may return probabilities, which are taken as logits.
    """
    losses = []
    for x in tensors(maps):
        if x.shape[-2:] != mask.shape[-2:]:
            x = F.interpolate(x, size=mask.shape[-2:], mode="bilinear", align_corners=False)
        losses.append(F.binary_cross_entropy_with_logits(x.float(), mask.expand_as(x)))
    return torch.stack(losses).sum()


def tensors(maps: Any) -> Iterator[Tensor]:
    """The maps (B, C, h, w) in a tensor, or in lists and tuples of them, nested or not."""
    if isinstance(maps, Tensor) and maps.ndim == 4:
        yield maps
    elif isinstance(maps, list | tuple):
        for one in maps:
            yield from tensors(one)


def measure(cases: Sequence[Case], repeat: int, *, memory: bool, limit: float) -> list[Row]:
    """A row for every case and for the machine's matmul in every precision, all in the same rounds.

    Args:
        cases: on one device.
        repeat: rounds.
        memory: have each case done by a process of its own as well, for its peak memory.
        limit: seconds that such a process gets.
    """
    device = cases[0].world.device
    passes = {case: Pass(case) for case in cases}
    operations = {case: one.flop() for case, one in passes.items()}
    precisions = list(dict.fromkeys(case.precision for case in cases))
    products = {precision: matmul(world_of(cases[0].device, precision)) for precision in precisions}
    times = interleaved({**products, **passes}, repeat, device)
    rows, rates = [], {}
    for precision in precisions:
        row = Row(name=f"matmul {_MATMUL}", mode="matmul", precision=precision, batch_size=1)
        row = row.timed(times[precision].rounds)
        assert row.seconds_per_image
        rates[precision] = 2 * _MATMUL**3 / row.seconds_per_image
        note = f"{rates[precision] / 1e9:.0f} GFLOP/s"
        rows.append(replace(row, gflop_per_image=2 * _MATMUL**3 / 1e9, units=1.0, note=note))
    for case in cases:
        row = case.row.timed(times[case].rounds, case.batch_size)
        assert row.seconds_per_image
        flop = operations[case]
        rows.append(
            replace(
                row,
                first_call_seconds=times[case].first,
                gflop_per_image=flop / 1e9,
                units=row.seconds_per_image * rates[case.precision] / flop if flop else None,
            )
        )
    if not memory:
        return rows
    passes.clear()
    peaks = {case: in_own_process("network", asdict(case), 1, limit) for case in cases}
    with_memory = [
        replace(row, peak_memory_bytes=peaks[case].peak_memory_bytes, note=peaks[case].note)
        for case, row in zip(cases, rows[len(precisions) :], strict=True)
    ]
    return rows[: len(precisions)] + with_memory


def matmul(world: World) -> Callable[[], None]:
    """Multiply two large square matrices in a precision."""
    kind = {"device": world.device, "dtype": world.precision or torch.float32}
    one, other = torch.randn(2, _MATMUL, _MATMUL, **kind)  # type: ignore[call-overload]

    def multiply() -> None:
        torch.mm(one, other)

    return multiply


def latency(cases: Sequence[Case], repeat: int) -> list[Row]:
    """From one stored image at its own size to its probability map, 20 images a round."""

    def prediction(case: Case) -> Callable[[], None]:
        torch.manual_seed(0)
        model = build_model(case.name)
        normalise = normalise_of(DatasetConfig.named("custom", data_path="."), channels_of(model))
        image, _ = SyntheticSource(1, case.image_size).load(0)
        if case.compiled:
            model = compiled(place(model, case.world.device).eval())
        predict = Predictor(model, normalise, None, case.world, tile=None)

        def one() -> None:
            predict(image)

        return one

    times = interleaved({case: prediction(case) for case in cases}, 20 * repeat, cases[0].world.device)
    return [
        replace(
            replace(case.row, mode="latency", batch_size=1).timed(times[case].rounds),
            first_call_seconds=times[case].first,
        )
        for case in cases
    ]


@contextlib.contextmanager
def network(**of: Any) -> Iterator[Callable[[], None]]:
    """A case's pass, for a process of its own."""
    yield Pass(Case(**of | {"image_size": tuple(of["image_size"])}))
