"""What an evaluation is asked for, checked before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax

from camjax.data.annotation import AnnotatedSource
from camjax.metrics import METRICS, StreamingMetric


@dataclass(frozen=True)
class Options:
    """What an evaluation's results depend on, apart from the model and the images.

    The arguments are those of `camjax.evaluation.runner.evaluate_localization`.

    Raises:
      ValueError: an option out of range, a metric that is not known, or names that are given twice.
    """

    methods: Sequence[str]
    metrics: Sequence[str]
    threshold: float
    batch_size: int
    crop: Literal["center"] | None
    limit: int | None

    def __post_init__(self):
        devices = jax.device_count()
        if self.batch_size < 1 or self.batch_size % devices:
            raise ValueError(f"batch_size={self.batch_size}: expected a positive multiple of the {devices} devices.")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit}: expected a number of images, at least 1.")
        for names in (self.methods, self.metrics):
            if not names or len({*names}) < len(names):
                raise ValueError(
                    f"methods={list(self.methods)}, metrics={list(self.metrics)}: expected at least one of each, each "
                    "once."
                )
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(f"metric {name!r} is not known: expected some of {', '.join(METRICS)}.")
            if METRICS[name].whole_images and self.crop:
                raise ValueError(f"metric {name!r} is defined on whole images: leave out crop={self.crop!r}.")

    @property
    def need_masks(self) -> bool:
        """Whether any metric needs true masks."""
        return any("masks" in METRICS[name].needs for name in self.metrics)

    def check_source(self, source: AnnotatedSource, num_classes: int | None) -> int:
        """Checks that the images have what the metrics need, and the network's classes; returns their number.

        Raises:
          ValueError: they have not.
        """
        for name in self.metrics:
            for need, has in (("masks", source.has_masks), ("boxes", source.has_boxes)):
                if need in METRICS[name].needs and not has:
                    raise ValueError(
                        f"metric {name!r} needs {need}, and {source!r} has none: give --{need}, or leave it out."
                    )
        if num_classes is None or source.info.num_classes != num_classes:
            raise ValueError(
                f"{source!r} has {source.info.num_classes} classes, and the model {num_classes}. Give a model that was "
                "trained on these classes."
            )
        return num_classes

    def new_metrics(self, num_classes: int) -> dict[str, dict[str, StreamingMetric]]:
        """Method -> name of a metric -> the metric, which has seen nothing."""
        return {
            method: {name: METRICS[name].for_evaluation(num_classes) for name in self.metrics}
            for method in self.methods
        }

    def of_run(self, source: AnnotatedSource) -> dict[str, Any]:
        """In JSON's types, what has to be the same where a run is resumed."""
        return {
            "dataset": source.info.name,
            "split": source.info.split,
            "images": len(source),
            "methods": list(self.methods),
            "metrics": list(self.metrics),
            "threshold": self.threshold,
            "batch_size": self.batch_size,
            "crop": self.crop,
            "processes": jax.process_count(),
        }
