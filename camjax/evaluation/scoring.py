"""The metrics that an evaluation can be asked for, by name, and how each takes a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from camjax.evaluation.heuristic import heuristic_boxes
from camjax.evaluation.truth import Truth
from camjax.inference import Localization
from camjax.metrics import LocalizationError, MaxBoxAcc, PointingGame, PxAP
from camjax.metrics.curves import ThresholdCurve, boxes_at_thresholds
from camjax.metrics.streaming import StreamingMetric


@dataclass(frozen=True)
class Score:
    """A metric by name.

    Attributes:
      title: what a reader of a table calls it.
      make: makes an empty metric for a number of classes.
      update: (metric, localization, truth): adds a batch. The last class of each image is the true one.
      needs_masks: whether the true masks are asked for.
      needs_boxes: whether the true boxes are.
      whole_image: whether it is defined for images that were seen whole only.
    """

    title: str
    make: Callable[[int], StreamingMetric]
    update: Callable[[StreamingMetric, Localization, Truth], None]
    needs_masks: bool = False
    needs_boxes: bool = True
    whole_image: bool = False


def _ilsvrc(metric: LocalizationError, out: Localization, truth: Truth) -> None:
    metric.update(
        out.class_ids[:, :-1],
        out.boxes[:, :-1],
        truth.labels,
        truth.boxes,
        valid=out.valid[:, :-1],
        label_boxes=out.boxes[:, -1],
        label_valid=out.valid[:, -1],
        mask=truth.counted,
    )


def _heuristic(metric: LocalizationError, out: Localization, truth: Truth) -> None:
    class_ids, boxes, valid = map(
        np.asarray, heuristic_boxes(out.class_ids[:, :-1], out.maps[:, :-1], truth.input_size)
    )
    metric.update(
        class_ids,
        boxes,
        truth.labels,
        truth.boxes,
        valid=valid,
        ranking=out.class_ids[:, :-1],
        mask=truth.counted,
    )


def _label_maps(metric: MaxBoxAcc, out: Localization, truth: Truth) -> None:
    metric.update(out.maps[:, -1], truth.wsol_boxes, mask=truth.counted)


def _pixels(metric: PxAP, out: Localization, truth: Truth) -> None:
    metric.update(out.maps[:, -1], truth.masks, mask=truth.counted)


def _pointing(metric: PointingGame, out: Localization, truth: Truth) -> None:
    metric.update(out.maps[:, -1], truth.boxes, image_sizes=np.maximum(truth.image_sizes, 1), mask=truth.counted)


def _curve(metric: ThresholdCurve, out: Localization, truth: Truth) -> None:
    boxes, valid = boxes_at_thresholds(out.maps[:, -1], truth.input_size, metric.options["thresholds"])
    metric.update(boxes, valid, truth.boxes, mask=truth.counted)


def _localization_error(classes: int) -> LocalizationError:
    return LocalizationError(top_k=[k for k in (1, 5) if k <= classes])


SCORES = {
    "ilsvrc": Score("ILSVRC", _localization_error, _ilsvrc),
    "heuristic": Score(
        "ILSVRC, five boxes of three classes", lambda _: LocalizationError(), _heuristic, whole_image=True
    ),
    "maxboxacc": Score("MaxBoxAcc", lambda _: MaxBoxAcc(version=1), _label_maps, whole_image=True),
    "maxboxaccv2": Score("MaxBoxAccV2", lambda _: MaxBoxAcc(version=2), _label_maps, whole_image=True),
    "pxap": Score("PxAP", lambda _: PxAP(), _pixels, needs_masks=True, needs_boxes=False, whole_image=True),
    "pointing": Score("Pointing game", lambda _: PointingGame(tolerance=15), _pointing, whole_image=True),
    "thresholds": Score("Threshold curve", lambda _: ThresholdCurve(), _curve, whole_image=True),
}
"""What `--metrics` of `camjax evaluate` names."""
