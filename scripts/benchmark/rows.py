"""What a benchmark gives: rows, the machine that they are of, and what differs between two files of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sam_spl.bench.machine import cpu_info
from sam_spl.bench.machine import machine as toolkit_machine
from sam_spl.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
#: A row is slower or faster if its median changed by more than this factor, and outside the spread.
TOLERANCE = 1.1
#: Instruction sets that decide how fast networks are.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured figure.

    Attributes:
        name: the network, or what else was measured.
        mode: ``test``, ``train``, ``train step: forward``, ...; with the keys below it says what is compared.
        precision: fp32, bf16 or fp16; None where no network computes.
        compiled: the network was compiled.
        reference: the network is the one of ``--reference``.
        image_size: in pixels, the side of a square or [H, W].
        batch_size: images a call.
        seconds_per_image: median; seconds of the whole in rows of a start or a list. None if nothing was
            measured: ``note`` says why.
        minimum: of the rounds, likewise.
        maximum: of the rounds, likewise.
        percentile_95: of the rounds, likewise.
        first_call_seconds: of the call before the rounds, of the whole batch; a compilation is in it.
        gflop_per_image: 1e9 operations; in ``train`` of forward and backward pass.
        units: ``seconds_per_image`` times the matmul rate over the operations: 1 would be a network that
            computes as fast as this machine multiplies matrices in the same precision.
        peak_memory_bytes: of a process that does only this: all it ever had resident on a CPU, PyTorch itself
            among it, and what PyTorch allocated on CUDA.
        note: what else there is to say.
    """

    name: str
    mode: str
    precision: str | None = None
    compiled: bool = False
    reference: bool = False
    image_size: int | list[int] | None = None
    batch_size: int | None = None
    seconds_per_image: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    percentile_95: float | None = None
    first_call_seconds: float | None = None
    gflop_per_image: float | None = None
    units: float | None = None
    peak_memory_bytes: int | None = None
    note: str = ""

    def timed(self, rounds: Sequence[float], images: int = 1) -> Row:
        """The row with the seconds that rounds of ``images`` images took."""
        seconds = sorted(value / images for value in rounds)
        return replace(
            self,
            seconds_per_image=statistics.median(seconds),
            minimum=seconds[0],
            maximum=seconds[-1],
            percentile_95=seconds[max(0, -(-len(seconds) * 95 // 100) - 1)],
        )


def side(size: tuple[int, int]) -> int | list[int]:
    """An image size as rows state it."""
    return size[0] if size[0] == size[1] else list(size)


HEADER = (
    f"{'':<38} {'mode':<22} {'precision':<16} {'size':>9} {'batch':>5} {'ms/image':>9} {'min to max':>19} "
    f"{'p95':>8} {'first s':>8} {'GFLOP':>8} {'units':>6} {'MiB':>7}"
)


def line(row: Row) -> str:
    """A row of the table under :data:`HEADER`."""
    precision = " ".join(
        [row.precision or "", *["compiled"] * row.compiled, *["reference"] * row.reference]
    ).strip()
    size = "x".join(map(str, row.image_size)) if isinstance(row.image_size, list) else row.image_size or ""
    spread = "" if row.minimum is None else f"{_ms(row.minimum)} to {_ms(row.maximum)}"
    memory = "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**20:.0f}"
    return (
        f"{row.name:<38} {row.mode:<22} {precision:<16} {size:>9} {row.batch_size or '':>5} "
        f"{_ms(row.seconds_per_image):>9} {spread:>19} {_ms(row.percentile_95):>8} "
        f"{_number(row.first_call_seconds, 2):>8} {_number(row.gflop_per_image, 2):>8} "
        f"{_number(row.units, 2):>6} {memory:>7}  {row.note}"
    ).rstrip()


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.4g}" if seconds < 1 else f"{1000 * seconds:.0f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def beside_reference(rows: Iterable[Row]) -> list[str]:
    """How long each network takes compared with its reference in every precision."""
    rows = [row for row in rows if row.seconds_per_image and row.mode in ("test", "train")]
    lines = []
    for ours in (row for row in rows if not row.reference):
        parts = [
            f"{ours.seconds_per_image / other.seconds_per_image:.3f} of the reference in {other.precision}"
            for other in rows
            if other.reference and _work(other) == _work(ours)
        ]
        if parts:
            how = f"{ours.name} {ours.mode} {ours.precision}{' compiled' if ours.compiled else ''}"
            lines.append(f"{how}: takes {', '.join(parts)}")
    return lines


def _work(row: Row) -> tuple[Any, ...]:
    return row.name, row.mode, row.image_size, row.batch_size


def machine(device: torch.device) -> dict[str, Any]:
    """What rows depend on: processor, cores, versions, commit."""
    flags = cpu_info().get("flags", "").split()
    return {
        **toolkit_machine(device),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


_KEY = ("name", "mode", "precision", "compiled", "reference", "image_size", "batch_size")


def read_results(path: str) -> dict[str, Any]:
    """A file that ``--json`` wrote.

    Raises:
        InputError: there is none, or it holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        for row in content["rows"]:
            for key in ("seconds_per_image", "minimum", "maximum"):
                if row[key] is not None and not float(row[key]) > 0:
                    raise ValueError(f"{key} is {row[key]}")
            _key(row)
    except OSError as error:
        raise InputError(f"--compare: cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"--compare: {path} is not a result of this benchmark ({reason}). Give a file that --json wrote."
        ) from error
    return content


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(tuple(row[key]) if isinstance(row[key], list) else row[key] for key in _KEY)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], bool]:
    """What changed from one file to another, a line for every row, and whether something got slower.

    A row is slower if its median grew by more than 10 % and its fastest round is slower than the slowest one
    before, or if it does not fit any more.
    """
    before, after = ({_key(row): row for row in content["rows"]} for content in (old, new))
    lines, any_slower = [], False
    for about in ("cpu", "cores", "threads", "device", "torch"):
        one, other = (content.get("machine", {}).get(about) for content in (old, new))
        if one != other:
            lines.append(f"NOT THE SAME MACHINE: {about} was {one}, is {other}")
    for key in [*before, *(key for key in after if key not in before)]:
        if key not in before or key not in after:
            lines.append(f"{_named(key)}: only in the {'old' if key in before else 'new'} file")
            continue
        verdict, slower = _verdict(before[key], after[key])
        lines.append(f"{_named(key)}: {verdict}")
        any_slower |= slower
    return lines, any_slower


def _verdict(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, bool]:
    was, now = old["seconds_per_image"], new["seconds_per_image"]
    if was is None or now is None:
        lost = was is not None
        return ("SLOWER: no longer measured" if lost else "not measured before") + _why(old, new), lost
    ratio = now / was
    outside = new["minimum"] > old["maximum"] or new["maximum"] < old["minimum"]
    text = f"{ratio:.3f} times as long, {'outside' if outside else 'within'} the spread"
    if outside and ratio > TOLERANCE:
        return f"SLOWER: {text}", True
    return (f"faster: {text}" if outside and ratio < 1 / TOLERANCE else text), False


def _why(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    note = new.get("note") or old.get("note")
    return f" ({note})" if note else ""


def _named(key: tuple[Any, ...]) -> str:
    name, mode, precision, compiled, reference, size, batch = key
    pixels = "x".join(map(str, size)) if isinstance(size, tuple) else size
    words = [name, mode, precision, "compiled" if compiled else None, "reference" if reference else None]
    words += [f"{pixels} px" if size else None, f"batch {batch}" if batch else None]
    return " ".join(word for word in words if word)
