"""Counts that add up over batches, processes and shards; ratios are taken once, at the end."""

from sam_spl.metrics.counts import ImageCounts, count_image
from sam_spl.metrics.meter import DatasetCounts, ProtocolMetric, Scores, scores
from sam_spl.metrics.protocols import PROTOCOLS, Protocol, protocols_named

__all__ = [
    "PROTOCOLS",
    "DatasetCounts",
    "ImageCounts",
    "Protocol",
    "ProtocolMetric",
    "Scores",
    "count_image",
    "protocols_named",
    "scores",
]
