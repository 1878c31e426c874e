"""What an evaluation has found so far: metrics, numbers of images, and the best and worst cases."""

import collections
import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from camjax.data.annotation import OTHER_SIZE, Annotation
from camjax.evaluation.batches import Computed
from camjax.evaluation.cases import Case, Cases
from camjax.evaluation.probabilities import probabilities_fn
from camjax.evaluation.truth import STATUSES
from camjax.inference import CamOutput, Localization, make_cam_fn
from camjax.metrics import METRICS, Sample, StreamingMetric, merge_across_processes
from camjax.metrics.localization.box_overlap import iou_matrix
from camjax.models import CamModel
from camjax.outputs import BoundNetwork
from camjax.processes import gather


class Tally:
    """Adds up the batches of an evaluation.

    Args:
      model: scores changed images, and makes their maps, for the metrics that need it; a snapshot is made at the first
        such update.
      methods: names of methods.
      metrics: names of `METRICS`.
      class_names: of the labels, for the cases.
      threshold_step: of metrics that are `stepped`.
      layer: that the methods explain.

    Attributes:
      metrics: method -> name -> the metric.
      counts: status -> number of images of this process.
      cases: of the first method and this process.
      columns: the names of the columns of `images.csv`.
    """

    def __init__(
        self,
        model: CamModel | BoundNetwork,
        methods: Sequence[str],
        metrics: Sequence[str],
        class_names: Sequence[str],
        threshold_step: float,
        layer: str | None = None,
    ):
        self.metrics: dict[str, dict[str, StreamingMetric]] = {
            method: {name: METRICS[name].for_evaluation(model.num_classes, threshold_step) for name in metrics}
            for method in methods
        }
        self.counts: collections.Counter[str] = collections.Counter()
        self.cases = Cases(class_names)
        self.columns = ["index", "filename", "status", "label", "prediction", *(f"{method}_iou" for method in methods)]
        self.columns += [f"{method}_{edge}" for method in methods for edge in ("ymin", "xmin", "ymax", "xmax")]
        self._model: Any = model
        self._layer = layer
        self._warned_of_size = False
        self._cam_fns: dict[str, Callable[..., CamOutput]] = {}

    def add(self, computed: Computed) -> list[list]:
        """Adds a batch, and returns its rows of `images.csv`."""
        batch, known, samples = computed
        self.counts.update(status for status in known.statuses if status)
        for method, sample in samples.items():
            for metric in self.metrics[method].values():
                if "maps" in metric.needs:
                    sample = dataclasses.replace(sample, maps_fn=self._maps_fn(method))
                if "scores" in metric.needs:
                    self._update_on_devices(metric, sample)
                else:
                    metric.update_from(sample)
        first = next(iter(samples.values()))
        rows: list[list] = []
        cases: list[Case] = []
        for i, (annotation, status) in enumerate(zip(known.annotations, known.statuses, strict=True)):
            if annotation is None:
                continue
            if status == OTHER_SIZE:
                self._warn_of_size(annotation, batch["image_size"][i])
            index, prediction = int(batch["index"][i]), int(first.top.class_ids[i, 0])
            row: list[Any] = [index, annotation.filename, status, annotation.label]
            if status in ("scored", "without boxes"):
                row.append(prediction)
                ious = [
                    f"{_iou(sample.asked, i, annotation.boxes):.4f}" if status == "scored" else ""
                    for sample in samples.values()
                ]
                row += [*ious, *(edge for sample in samples.values() for edge in _edges(sample.asked, i))]
            if status == "scored":
                # Copies: a view would keep the arrays of the whole batch.
                arrays = map(np.array, (first.asked.maps[i, 0], first.asked.boxes[i, 0], batch["view"][i]))
                cases.append(Case(index, annotation.label, float(ious[0]), prediction, *arrays))
            rows.append(row)
        self.cases.add(cases)
        return rows

    def _warn_of_size(self, annotation: Annotation, size: np.ndarray) -> None:
        """Warns of the first image of another size."""
        if self._warned_of_size or annotation.size is None:
            return
        self._warned_of_size = True
        (height, width), (listed_height, listed_width) = size.tolist(), annotation.size
        warnings.warn(
            f"{annotation.filename} has {width} x {height} pixels, and its list or XML file says {listed_width} x "
            f"{listed_height}, another aspect: its boxes are of another image, or of one turned by its EXIF tag. All "
            "such images are left out and counted; images.csv names them. Correct the lists, or get the images that "
            "they are about.",
            stacklevel=2,
        )

    def _update_on_devices(self, metric: StreamingMetric, sample: Sample) -> None:
        """Adds a batch to a metric that needs scores of the network; each device of the process takes a part."""

        def update(device: jax.Device, part: Sample) -> StreamingMetric:
            images = jax.device_put(part.images, device)
            own = metric.empty()
            own.update_from(dataclasses.replace(part, images=images, probabilities_fn=self._probabilities_fns[device]))
            return own

        devices = list(self._probabilities_fns)
        with ThreadPoolExecutor(len(devices)) as pool:
            # Merged in the order of the devices, so that sums do not depend on which of them is first.
            for part in pool.map(update, devices, sample.split(len(devices))):
                metric.merge(part)

    def _maps_fn(self, method: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """The maps of a method, where the images are."""
        if method not in self._cam_fns:
            self._cam_fns[method] = make_cam_fn(self._model, method, layer=self._layer)
        return lambda images, class_ids: self._cam_fns[method](images, class_ids).maps[:, 0]

    @functools.cached_property
    def _probabilities_fns(self) -> dict[jax.Device, Partial]:
        snapshot = probabilities_fn(self._model)
        return {device: jax.device_put(snapshot, device) for device in jax.local_devices()}

    def state(self) -> dict[str, Any]:
        """Metrics and counts in JSON's types. The cases are apart: see `Cases.arrays`."""
        metrics = {
            method: {name: metric.state() for name, metric in by_name.items()}
            for method, by_name in self.metrics.items()
        }
        return {"counts": dict(self.counts), "metrics": metrics}

    def restore(self, state: Mapping[str, Any], cases: Mapping[str, np.ndarray]) -> None:
        """Takes over what `state()` and `cases.arrays()` returned."""
        self.cases.restore(cases)
        self.counts.update(state["counts"])
        for method, by_name in self.metrics.items():
            for name, metric in by_name.items():
                metric.restore(state["metrics"][method][name])

    def merge_across_processes(self) -> dict[str, int]:
        """Merges the metrics and cases of all processes into those of each; returns the counts of all processes."""
        for by_name in self.metrics.values():
            for name in by_name:
                by_name[name] = merge_across_processes(by_name[name])
        self.cases.merge_across_processes()
        counts: collections.Counter[str] = collections.Counter()
        for own in gather(dict(self.counts)):
            counts.update(own)
        return {status: counts[status] for status in (*STATUSES, *sorted(counts.keys() - {*STATUSES}))}


def _iou(asked: Localization, i: int, boxes: np.ndarray) -> float:
    """The IoU of the box of the class asked for with the best true box (n, 4); 0 where the map gave none."""
    return float(iou_matrix(asked.boxes[i], boxes).max()) if asked.valid[i, 0] else 0.0


def _edges(asked: Localization, i: int) -> list[str]:
    """The box of the class asked for, `ymin, xmin, ymax, xmax` in 0..1; empty where the map gave none."""
    return [f"{edge:.5f}" for edge in asked.boxes[i, 0]] if asked.valid[i, 0] else [""] * 4
