"""What SAM-SPL shows of its work: features of both branches, self-prompts, the calibration of its skips."""

from __future__ import annotations

import torch
from torch import Tensor

from sam_spl.models.hiera import Hiera
from sam_spl.models.maps import CONTRAST, Map, Maps, Pass, Sheet, contrast, magnitude
from sam_spl.models.two_way import Attention

_TRANSFORMER = "decoder.source.transformer"


def _sheets(seen: Pass) -> list[Sheet]:
    # The ablation without SAM's decoder has no prompt to show.
    prompted = [_self_prompt(seen)] if "decoder.source.self_prompt" in seen.outputs else []
    return [_encoder(seen), *prompted, _calibration(seen)]


def _encoder(seen: Pass) -> Sheet:
    """Section III-B: convolutional features, trunk tokens and prompts of every stage."""
    features = seen.outputs["encoder"]
    rows: list[list[Map | None]] = [
        [
            Map("stem, $e_1$, stride 1", contrast(features[0])),
            Map("stem, $e_2$, stride 2", contrast(features[1])),
            None,
        ]
    ]
    trunk = seen.model.get_submodule("encoder.trunk")
    assert isinstance(trunk, Hiera)
    for stage, block in enumerate(trunk.stage_ends):
        tokens = seen.outputs[f"encoder.trunk.blocks.{block}"].permute(0, 3, 1, 2)
        prompt = seen.outputs.get(f"encoder.prompts.{stage}")
        where = f"stage {stage + 1}, stride {2 ** (stage + 2)}"
        rows.append(
            [
                Map(f"trunk tokens $t$, {where}", contrast(tokens)),
                Map(f"{'stem' if stage == 0 else 'guided'}, $e_{stage + 3}$", contrast(features[stage + 2])),
                None if prompt is None else Map(f"consult: prompt for stage {stage + 2}", contrast(prompt)),
            ]
        )
    return Sheet("encoder", "SAM-SPL encoder: consult and guide", CONTRAST, rows)


def _self_prompt(seen: Pass) -> Sheet:
    """Section III-C: the prompt that shallow features make, and where the mask token reads."""
    source = seen.outputs["decoder.source.project_in"]
    height, width = source.shape[-2:]
    downs = [
        Map(
            f"$e_{k + 1}$ at the deepest grid",
            contrast(seen.outputs[f"decoder.source.self_prompt.downs.{k}"]),
        )
        for k in range(3)
    ]
    made = [
        Map("self-derived prompt", contrast(seen.outputs["decoder.source.self_prompt"])),
        Map("source, without the prompt", contrast(source)),
        Map("mask feature, stride 8", contrast(seen.outputs["decoder.source"])),
    ]
    read = [
        Map(f"mask token reads, {which}", _read_by_token(seen, path).reshape(height, width))
        for path, which in (
            ("layers.0.token_to_image", "block 1"),
            ("layers.1.token_to_image", "block 2"),
            ("final_attention", "final"),
        )
    ]
    note = f"{CONTRAST}\nLast row: attention of the mask token to each place, mean over the heads."
    return Sheet("self_prompt", "SAM-SPL self-prompts", note, [[*downs], [*made], [*read]])


def _read_by_token(seen: Pass, name: str) -> Tensor:
    """Attention of the one token to every place, mean over the heads: (N,), of sum 1."""
    attention = seen.model.get_submodule(f"{_TRANSFORMER}.{name}")
    assert isinstance(attention, Attention)
    query, key = (
        seen.outputs[f"{_TRANSFORMER}.{name}.{projection}"]
        .float()
        .unflatten(-1, (attention.num_heads, -1))
        .transpose(1, 2)
        for projection in ("q_proj", "k_proj")
    )
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)[0].mean(0)[0]


def _calibration(seen: Pass) -> Sheet:
    """Section III-D: each skip before and after the shift that the decoder's feature gives it."""
    rows: list[list[Map | None]] = []
    ups = [path for path in seen.inputs if path.startswith("decoder.ups.") and path.count(".") == 2]
    for k, path in enumerate(ups):
        level = len(ups) - k  # of e3, e2, e1 in turn
        skip, fused = seen.outputs[f"{path}.skip"], seen.inputs[f"{path}.fuse"][0]
        calibrated = fused[:, skip.shape[1] :]  # behind the upsampled feature
        row: list[Map | None] = [
            Map(f"encoder feature $e_{level}$", magnitude(seen.inputs[path][1])),
            Map(f"skip of $e_{level}$", magnitude(skip), shared=path),
        ]
        if f"{path}.calibrate_skip" in seen.outputs:
            shifts = [seen.outputs[f"{path}.calibrate_{which}"][0].float() for which in ("skip", "up")]
            row += [
                Map("calibrated skip", magnitude(calibrated), shared=path),
                Map("calibrated $-$ skip", magnitude(calibrated) - magnitude(skip), kind="change"),
                Map(
                    "shift of each channel",
                    torch.stack(shifts),
                    kind="channels",
                    labels=("skip", "upsampled"),
                ),
            ]
        rows.append(row)
    note = (
        "Maps: root mean square over the channels; skip and calibrated skip on one scale. "
        "Calibration adds one number\nto each channel of the skip, made of the decoder's feature, and one to "
        "each of the upsampled feature, made of the skip."
    )
    return Sheet("calibration", "SAM-SPL mutual calibration of the skips", note, rows)


MAPS = Maps(
    watched=(
        "encoder",
        "encoder.trunk.blocks.#",
        "encoder.prompts.#",
        "decoder.source",
        "decoder.source.project_in",
        "decoder.source.self_prompt",
        "decoder.source.self_prompt.downs.#",
        *(
            f"{_TRANSFORMER}.{attention}.{projection}"
            for attention in ("layers.#.token_to_image", "final_attention")
            for projection in ("q_proj", "k_proj")
        ),
        "decoder.ups.#",
        "decoder.ups.#.skip",
        "decoder.ups.#.fuse",
        "decoder.ups.#.calibrate_skip",
        "decoder.ups.#.calibrate_up",
    ),
    sheets=_sheets,
)
