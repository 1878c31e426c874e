"""Pooled features, their store on disk, linear classifiers of them, and receptive fields.

Features from a network's global average pooling serve for tasks that it was not trained on, and a linear classifier of
them gives maps for classes that the network never saw (Zhou et al. 2016, section 4). `camjax.features.svm` has the
classifiers; it needs scikit-learn, of the extra "experiments".
"""

from camjax.features.pooled import (
    Crops,
    Progress,
    batch_results,
    gap_features,
    map_images,
    pooled_fn,
    unreadable_because,
    with_linear_classifier,
)
from camjax.features.receptive_field import ReceptiveFields, receptive_fields
from camjax.features.store import FeatureStore, extract_features

__all__ = [
    "Crops",
    "FeatureStore",
    "Progress",
    "ReceptiveFields",
    "batch_results",
    "extract_features",
    "gap_features",
    "map_images",
    "pooled_fn",
    "receptive_fields",
    "unreadable_because",
    "with_linear_classifier",
]
