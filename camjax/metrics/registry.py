"""Every metric by its name. To add one: write its class in a file of its own, and give it a row here."""

from camjax.metrics.faithfulness.arcc import ArccMetric
from camjax.metrics.faithfulness.confidence import Confidence
from camjax.metrics.faithfulness.insertion_deletion import Deletion, Insertion
from camjax.metrics.faithfulness.max_sensitivity import MaxSensitivity
from camjax.metrics.faithfulness.metric import FaithfulnessMetric
from camjax.metrics.faithfulness.random_logit import RandomLogit
from camjax.metrics.faithfulness.relative_drop import RelativeDrop
from camjax.metrics.faithfulness.road import Road
from camjax.metrics.faithfulness.sensitivity import SensitivityN
from camjax.metrics.faithfulness.sparsity import Sparsity
from camjax.metrics.localization.heuristic import HeuristicError
from camjax.metrics.localization.ilsvrc import LocalizationError
from camjax.metrics.localization.pointing import PointingGame
from camjax.metrics.localization.pxap import PxAP
from camjax.metrics.localization.relevance import MaskRelevance, Relevance
from camjax.metrics.localization.threshold_curve import ThresholdCurve
from camjax.metrics.localization.wsol import MaxBoxAcc, MaxBoxAccV2
from camjax.metrics.streaming import StreamingMetric

METRICS: dict[str, type[StreamingMetric]] = {
    "ilsvrc": LocalizationError,
    "heuristic": HeuristicError,
    "maxboxacc": MaxBoxAcc,
    "maxboxaccv2": MaxBoxAccV2,
    "pxap": PxAP,
    "pointing": PointingGame,
    "thresholds": ThresholdCurve,
    "relevance": Relevance,
    "mask_relevance": MaskRelevance,
    "insertion": Insertion,
    "deletion": Deletion,
    "confidence": Confidence,
    "road": Road,
    "sensitivity_n": SensitivityN,
    "sparsity": Sparsity,
    "arcc": ArccMetric,
    "relative_drop": RelativeDrop,
    "max_sensitivity": MaxSensitivity,
    "random_logit": RandomLogit,
}
"""What `--metrics` of `camjax evaluate` names. All classes have defaults for all of their options."""

FAITHFULNESS: dict[str, type[FaithfulnessMetric]] = {
    name: metric for name, metric in METRICS.items() if issubclass(metric, FaithfulnessMetric)
}
"""Those of `METRICS` that ask how faithful a map is to the network, and need no annotation.

All have the same `update(probabilities_fn, images, maps, class_ids, mask=None, maps_fn=None)`; see
`FaithfulnessMetric.update`.
"""
