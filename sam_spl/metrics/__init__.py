"""Counts that add up over batches, processes and shards; ratios are taken once, at the end."""

from sam_spl.metrics.native import PROTOCOL, ImageCounts, NativeMetric, NativeScores, count_image, scores

__all__ = ["PROTOCOL", "ImageCounts", "NativeMetric", "NativeScores", "count_image", "scores"]
