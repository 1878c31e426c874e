"""Streaming metrics of localization: error rates, MaxBoxAcc, PxAP, the pointing game, threshold curves.

And of maps themselves, without any annotation: `FAITHFULNESS` has insertion, deletion, ROAD and others by name, and
their functions for single batches are beside it; `randomization_check` is the sanity check by random weights.
"""

from camjax.metrics.curves import ThresholdCurve
from camjax.metrics.faithfulness import FAITHFULNESS
from camjax.metrics.faithfulness_curves import Deletion, Insertion, ScoreCurve, deletion_curve, insertion_curve
from camjax.metrics.faithfulness_drop import Confidence, ConfidenceChange, confidence_change
from camjax.metrics.faithfulness_scores import FaithfulnessMetric
from camjax.metrics.ilsvrc import LocalizationError
from camjax.metrics.pointing import PointingGame
from camjax.metrics.randomization import layers_from_top, randomization_check, randomized_from_top, rank_correlation
from camjax.metrics.road import Road, RoadScores, road
from camjax.metrics.road_imputation import linear_imputation
from camjax.metrics.sensitivity import SensitivityN, sensitivity_n
from camjax.metrics.sparsity import Sparsity, gini_index
from camjax.metrics.streaming import StreamingMetric, merge_across_processes
from camjax.metrics.wsol import MaxBoxAcc, PxAP, contour_boxes

__all__ = [
    "FAITHFULNESS",
    "Confidence",
    "ConfidenceChange",
    "Deletion",
    "FaithfulnessMetric",
    "Insertion",
    "LocalizationError",
    "MaxBoxAcc",
    "PointingGame",
    "PxAP",
    "Road",
    "RoadScores",
    "ScoreCurve",
    "SensitivityN",
    "Sparsity",
    "StreamingMetric",
    "ThresholdCurve",
    "confidence_change",
    "contour_boxes",
    "deletion_curve",
    "gini_index",
    "insertion_curve",
    "layers_from_top",
    "linear_imputation",
    "merge_across_processes",
    "randomization_check",
    "randomized_from_top",
    "rank_correlation",
    "road",
    "sensitivity_n",
]
