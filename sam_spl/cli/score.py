"""``sam-spl score``: masks or probability maps of any method, scored as a network is."""

from __future__ import annotations

from sam_spl.cli.command import Command
from sam_spl.results.config import ScoreConfig


def score(config: ScoreConfig) -> None:
    """Print the scores, and write ``results.json`` and ``images.csv``."""
    from sam_spl.results import scoring

    scoring.score(config)


COMMAND = Command(
    "score",
    ScoreConfig,
    score,
    aliases={"-o": "output"},
    examples=(
        "sam-spl score --predictions results/UIUNet --masks datasets/SIRST/masks "
        "--list datasets/SIRST/50_50/test.txt --protocols native basicirstd",
        "sam-spl score --predictions maps --masks masks --name UIUNet --logits",
    ),
)
