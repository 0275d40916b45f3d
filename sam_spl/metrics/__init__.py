"""Counts that add up over batches, processes and shards; ratios are taken once, at the end."""

from sam_spl.metrics.counts import ImageCounts, count_image
from sam_spl.metrics.dataset_counts import Counter, DatasetCounts
from sam_spl.metrics.meter import Meter
from sam_spl.metrics.protocols import PROTOCOLS, Protocol, protocols_named
from sam_spl.metrics.scores import Scores, scores

__all__ = [
    "PROTOCOLS",
    "Counter",
    "DatasetCounts",
    "ImageCounts",
    "Meter",
    "Protocol",
    "Scores",
    "count_image",
    "protocols_named",
    "scores",
]
