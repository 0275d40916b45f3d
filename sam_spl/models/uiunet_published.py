"""The weights of the published UIU-Net: the authors', with three channels, and BasicIRSTD's, with one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sam_spl.models.published import BASICIRSTD, Published, State

#: Levels of each stage, which published names number from 1.
_DEPTHS = {"1": 7, "2": 6, "3": 5, "4": 4, "5": 4, "6": 4, "5d": 4, "4d": 4, "3d": 5, "2d": 6, "1d": 7}
_FUSION = (
    ("deep.0", "feature_high.0"),
    ("deep.1", "feature_high.1"),
    ("channel_gate.0", "topdown.1"),
    ("channel_gate.1", "topdown.2"),
    ("channel_gate.3", "topdown.4"),
    ("channel_gate.4", "topdown.5"),
    ("pixel_gate", "bottomup.3.conv1"),
    ("squeeze", "bottomup"),
    ("out", "post"),
)
_FIRST = "stages.1.entry.0.weight"  # (64, channels of the image, 3, 3)


def _stage_names() -> list[tuple[str, str]]:
    names = []
    for stage, depth in _DEPTHS.items():
        blocks = [("entry", "in"), *((f"encoders.{k}", f"{k + 1}") for k in range(depth))]
        blocks += [(f"decoders.{k}", f"{k + 1}d") for k in range(depth - 1)]
        for ours, theirs in blocks:
            for part, published in (("0", "conv_s1"), ("1", "bn_s1")):
                names.append((f"stages.{stage}.{ours}.{part}", f"stage{stage}.rebnconv{theirs}.{published}"))
    return names


def _describe(state: State) -> dict[str, Any]:
    """Which of the two codes wrote the file; only the authors' has one normalisation and size for all sets.

    The authors divide each image by its own maximum before (x - 0.485) / 0.229, and stretch each map to
    [0, 1] before a threshold of 0.22: neither is done here. BasicIRSTD's constants are of each data set.
    """
    channels = state[_FIRST].shape[1]
    seen: dict[str, Any] = {"image_size": None, "resize": "pillow"}
    if channels == 3:
        seen = {"mean": [0.485], "std": [0.229], "image_size": 320, "resize": "opencv"}
    return {"model": "uiunet", "arguments": {"in_channels": channels}, **seen}


def _wrap(named: dict[str, Tensor]) -> dict[str, Any]:
    """The authors' files are bare, BasicIRSTD's a checkpoint with prefixed names."""
    if named["stage1.rebnconvin.conv_s1.weight"].shape[1] == 3:
        return named
    prefixed = {f"model.{name}": value for name, value in named.items()}
    return {"epoch": 0, "state_dict": prefixed, "total_loss": 0.0}


UIUNET = Published(
    names=(
        *_stage_names(),
        *(
            (f"fusions.{level}.{ours}", f"fuse{level}.{theirs}")
            for level in "5432"
            for ours, theirs in _FUSION
        ),
        *((f"sides.{k}", f"side{k + 1}") for k in range(6)),
        ("out", "outconv"),
    ),
    marks=("stage1.rebnconvin.", "fuse5.topdown.", "outconv."),
    own_mark=_FIRST,
    describe=_describe,
    normalisation=BASICIRSTD,
    wrap=_wrap,
)
