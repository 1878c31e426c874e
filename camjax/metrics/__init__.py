"""Streaming metrics, by name in `METRICS`: how well maps localize objects, and how faithful they are to the network.

Localization needs true boxes or masks: error rates, MaxBoxAcc, PxAP, the pointing game, threshold curves. Faithfulness
needs no annotation: insertion, deletion, ROAD and others, with functions for single batches; `randomization_check` is
the sanity check by random weights.
"""

from camjax.metrics.faithfulness.arcc import Arcc, ArccMetric, arcc
from camjax.metrics.faithfulness.confidence import Confidence, ConfidenceChange, confidence_change
from camjax.metrics.faithfulness.imputation import linear_imputation
from camjax.metrics.faithfulness.insertion_deletion import (
    Deletion,
    Insertion,
    ScoreCurve,
    deletion_curve,
    insertion_curve,
)
from camjax.metrics.faithfulness.max_sensitivity import MaxSensitivity, max_sensitivity
from camjax.metrics.faithfulness.metric import FaithfulnessMetric
from camjax.metrics.faithfulness.random_logit import RandomLogit, random_logit, structural_similarity
from camjax.metrics.faithfulness.randomization import (
    layers_from_top,
    randomization_check,
    randomized_from_top,
    rank_correlation,
)
from camjax.metrics.faithfulness.relative_drop import RelativeDrop, relative_confidence_drop
from camjax.metrics.faithfulness.road import Road, RoadScores, road
from camjax.metrics.faithfulness.sensitivity import SensitivityN, sensitivity_n
from camjax.metrics.faithfulness.sparsity import Sparsity, gini_index
from camjax.metrics.localization.contours import contour_boxes
from camjax.metrics.localization.heuristic import HeuristicError
from camjax.metrics.localization.ilsvrc import LocalizationError
from camjax.metrics.localization.pointing import PointingGame
from camjax.metrics.localization.pxap import PxAP
from camjax.metrics.localization.relevance import MaskRelevance, Relevance
from camjax.metrics.localization.score_maps import score_map
from camjax.metrics.localization.threshold_curve import ThresholdCurve
from camjax.metrics.localization.wsol import MaxBoxAcc, MaxBoxAccV2
from camjax.metrics.registry import FAITHFULNESS, METRICS
from camjax.metrics.sample import Sample, Truth
from camjax.metrics.streaming import StreamingMetric, merge_across_processes

__all__ = [
    "FAITHFULNESS",
    "METRICS",
    "Arcc",
    "ArccMetric",
    "Confidence",
    "ConfidenceChange",
    "Deletion",
    "FaithfulnessMetric",
    "HeuristicError",
    "Insertion",
    "LocalizationError",
    "MaskRelevance",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "MaxSensitivity",
    "PointingGame",
    "PxAP",
    "RandomLogit",
    "RelativeDrop",
    "Relevance",
    "Road",
    "RoadScores",
    "Sample",
    "ScoreCurve",
    "SensitivityN",
    "Sparsity",
    "StreamingMetric",
    "ThresholdCurve",
    "Truth",
    "arcc",
    "confidence_change",
    "contour_boxes",
    "deletion_curve",
    "gini_index",
    "insertion_curve",
    "layers_from_top",
    "linear_imputation",
    "max_sensitivity",
    "merge_across_processes",
    "random_logit",
    "randomization_check",
    "randomized_from_top",
    "rank_correlation",
    "relative_confidence_drop",
    "road",
    "score_map",
    "sensitivity_n",
    "structural_similarity",
]
