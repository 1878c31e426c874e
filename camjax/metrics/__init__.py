"""Streaming metrics of localization: error rates, MaxBoxAcc, PxAP, the pointing game, threshold curves."""

from camjax.metrics.curves import ThresholdCurve
from camjax.metrics.ilsvrc import LocalizationError
from camjax.metrics.pointing import PointingGame
from camjax.metrics.streaming import StreamingMetric, merge_across_processes
from camjax.metrics.wsol import MaxBoxAcc, PxAP, contour_boxes

__all__ = [
    "LocalizationError",
    "MaxBoxAcc",
    "PointingGame",
    "PxAP",
    "StreamingMetric",
    "ThresholdCurve",
    "contour_boxes",
    "merge_across_processes",
]
