"""What DATransNet shows of its work: features, central differences and their attention, the decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sam_spl.models.gradformer import GradFormer
from sam_spl.models.maps import CONTRAST, Map, Maps, Pass, Sheet, contrast, magnitude


def _sheets(seen: Pass) -> list[Sheet]:
    return [_encoder(seen), _gradformers(seen), _attention(seen), _decoder(seen)]


def _encoder(seen: Pass) -> Sheet:
    """Section II-A: the residual encoder, and GFEM on the deepest feature (section II-C)."""
    features = [seen.outputs["stem"], *(seen.outputs[f"encoders.{k}"] for k in range(4))]
    names = [f"$x_{k + 1}$" for k in range(4)] + ["$d_5$"]
    maps: list[Map | None] = [
        Map(f"{name}, stride {2**level}", contrast(feature))
        for level, (name, feature) in enumerate(zip(names, features, strict=True))
    ]
    maps.append(Map("$d_5$ after GFEM, stride 16", contrast(seen.outputs["gfem"])))
    return Sheet("encoder", "DATransNet encoder", CONTRAST, [maps[:3], maps[3:]])


def _gradformers(seen: Pass) -> Sheet:
    """Section II-B: what each GradFormer sees and makes of it."""
    rows: list[list[Map | None]] = []
    for level in range(4):
        x, path = seen.inputs[f"gradformers.{level}"][0], f"gradformers.{level}"
        gradformer = seen.model.get_submodule(path)
        assert isinstance(gradformer, GradFormer)
        differences: list[Map | None] = [
            Map(f"differences, $s$ = {shift}", magnitude(central_differences(x, shift)))
            for shift in gradformer.shifts
        ]
        rows.append(
            [
                Map(f"$x_{level + 1}$, stride {2**level}", contrast(x)),
                *differences,
                *[None] * (2 - len(differences)),
                Map("attended differences", contrast(seen.inputs[f"{path}.out"][0])),
                Map(f"$c_{level + 1}$", contrast(seen.outputs[path])),
            ]
        )
    note = (
        f"{CONTRAST}\nDifferences: of each pixel to its eight neighbours at distance $s$, root mean square "
        "over neighbours and channels."
    )
    return Sheet("gradformer", "DATransNet GradFormers: attention over central differences", note, rows)


def _attention(seen: Pass) -> Sheet:
    """Section II-B: the channel attention, which is a matrix and no map."""
    rows: list[list[Map | None]] = []
    for level in range(4):
        heads = seen.outputs[f"gradformers.{level}.attention"][0].float()  # (heads, h, 8h)
        named = [
            Map(f"GradFormer on $x_{level + 1}$, head {k + 1}", head, kind="matrix", shared=str(level))
            for k, head in enumerate(heads)
        ]
        rows.append([*named, *[None] * (2 - len(named))])
    note = "Rows: queries, of the pixels. Columns: keys, of the differences. Each row sums to 1."
    return Sheet("attention", "DATransNet GradFormers: channel attention", note, rows)


def _decoder(seen: Pass) -> Sheet:
    """Section II-A: gates that encoder features put on what comes from below, and what the decoders make."""
    rows: list[list[Map | None]] = [
        [
            Map(f"GradFormer, $c_{level + 1}$", contrast(seen.outputs[f"gradformers.{level}"])),
            Map(
                f"gate of $x_{level + 1}$",
                seen.outputs[f"decoders.{level}.gate"][0].float().sigmoid().mean(0),
            ),
            Map(f"$d_{level + 1}$, stride {2**level}", contrast(seen.outputs[f"decoders.{level}"])),
        ]
        for level in (3, 2, 1, 0)
    ]
    return Sheet(
        "decoder", "DATransNet decoder", f"{CONTRAST}\nGates, in [0, 1]: mean over the channels.", rows
    )


def central_differences(x: Tensor, shift: int) -> Tensor:
    """Each pixel's eight neighbours at a distance, minus the pixel: (B, C, H, W) to (B, 8C, H, W)."""
    padded = F.pad(x, (shift,) * 4, mode="reflect")
    steps = [(row, column) for row in range(3) for column in range(3) if (row, column) != (1, 1)]
    height, width = x.shape[-2:]
    return torch.cat(
        [
            padded[..., row * shift : row * shift + height, column * shift : column * shift + width] - x
            for row, column in steps
        ],
        dim=1,
    )


MAPS = Maps(
    watched=(
        "stem",
        "encoders.#",
        "gfem",
        "gradformers.#",
        "gradformers.#.attention",
        "gradformers.#.out",
        "decoders.#",
        "decoders.#.gate",
    ),
    sheets=_sheets,
)
