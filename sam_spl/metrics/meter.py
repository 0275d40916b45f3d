"""Per-image counts over batches and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from sam_spl.metrics.dataset_counts import Counter, DatasetCounts, Mask, Prob
from sam_spl.metrics.protocols import PROTOCOLS, Protocol


class ProtocolMetric(Metric):
    """Rows of a :class:`~sam_spl.metrics.dataset_counts.Counter`, gathered by torchmetrics when computed.

    ``update`` takes the image's index in the data set, so that every figure can be traced to its images and
    an image that two processes scored would be counted once.

    Args:
        protocols: what to count for.
        detailed: count for hIoU and for curves as well.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(
        self, protocols: Sequence[Protocol] = (PROTOCOLS["native"],), *, detailed: bool = False
    ) -> None:
        super().__init__()
        self.counter = Counter(protocols, detailed=detailed)
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    @property
    def resolutions(self) -> list[str]:
        """The resolutions that ``update`` needs a map at."""
        return self.counter.resolutions

    def update(
        self, indices: Sequence[int], probs: Sequence[Mapping[str, Prob]], masks: Sequence[Mask]
    ) -> None:
        """Add images: indices, probability maps by resolution, and masks (H, W) at the images' own sizes.

        A process that may have no image at all adds none once: it then gathers zero rows like any other
        number.
        """
        rows = [self.counter.row(*image) for image in zip(indices, probs, masks, strict=True)]
        tensor = torch.tensor(rows, dtype=torch.float64, device=self.device)
        self.rows.append(tensor.reshape(-1, self.counter.width))

    def compute(self) -> Tensor:
        """All rows, of every process."""
        return dim_zero_cat(self.rows)

    def counts(self) -> DatasetCounts:
        """All rows by name, in the order of the data set."""
        return self.counter.unpack(self.compute().cpu().numpy())
