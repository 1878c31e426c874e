"""How faithful a map is to the network: metrics that need no annotation, by name, on one interface.

Every metric of `FAITHFULNESS` is a `camjax.metrics.StreamingMetric` with

- `update(probabilities_fn, images, maps, class_ids, mask=None)`: adds a batch; see `FaithfulnessMetric.update`;
- `compute() -> dict[str, float]`: means over the images seen, by names that no two of the metrics share;
- `merge`, `state`, `restore`, and `camjax.metrics.merge_across_processes`, as all metrics.

So one loop serves all::

    metrics = [FAITHFULNESS[name]() for name in ("insertion", "deletion", "road")]
    for images, maps, class_ids, mask in batches:
        for metric in metrics:
            metric.update(probabilities_fn, images, maps, class_ids, mask)
    results = {}
    for metric in metrics:
        results |= metric.compute()
"""

from collections.abc import Callable, Mapping

from camjax.metrics.faithfulness_curves import Deletion, Insertion
from camjax.metrics.faithfulness_drop import Confidence
from camjax.metrics.faithfulness_scores import FaithfulnessMetric
from camjax.metrics.road import Road
from camjax.metrics.sensitivity import SensitivityN
from camjax.metrics.sparsity import Sparsity

FAITHFULNESS: Mapping[str, Callable[..., FaithfulnessMetric]] = {
    "insertion": Insertion,
    "deletion": Deletion,
    "confidence": Confidence,
    "road": Road,
    "sensitivity_n": SensitivityN,
    "sparsity": Sparsity,
}
"""Name -> what makes the metric; all have defaults for all of their options."""
