"""A network whose training takes milliseconds, and has all that a run has to remember."""

from __future__ import annotations

from torch import Tensor, nn


class Small(nn.Module):
    """Two convolutions, BatchNorm's statistics and Dropout's random numbers."""

    in_channels = 3

    def __init__(self, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one map of logits (B, 1, H, W)."""
        return [self.head(self.features(image))]
