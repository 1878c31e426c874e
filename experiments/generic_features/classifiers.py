"""Support vector machines of a split of table 5: training, scores and maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score

import camjax
from camjax.features import FeatureStore, with_linear_classifier
from camjax.features.svm import fit_linear_svm
from camjax.models import CamModel
from experiments.common.map_figure import map_figure, squashed
from experiments.generic_features.images import Images
from experiments.generic_features.splits import Split, has_attribute

EXAMPLES_SHOWN = 12


def run_split(
    store: FeatureStore, images: Images, splits: Sequence[Split], penalties: Sequence[tuple[float, ...]]
) -> tuple[dict, np.ndarray, np.ndarray]:
    """Trains and tests on one split.

    Args:
      store: the features of all images.
      images: their labels.
      splits: one, of all classes; or one for each attribute.
      penalties: candidates, see `camjax.features.svm`: for all, or for each attribute.

    Returns:
      In JSON's types, in percent: score, the mean over the classes of their accuracies, or over the attributes of their
      average precisions; share_of_images, the accuracy over all images, or of_attributes, name -> average precision;
      train and test, the numbers of images; and penalty, the chosen ones. Then kernel (K, C) and bias (C,).
    """
    if images.labels.ndim == 1:
        return _classes(store, images, splits[0], penalties[0])
    return _attributes(store, images, splits, penalties)


def _classes(store: FeatureStore, images: Images, split: Split, penalties: tuple[float, ...]):
    train, test = (images.labels[part] for part in split)
    svm = fit_linear_svm(store[split.train], train, len(images.class_names), penalties=penalties)
    predictions = svm.decision_values(store[split.test]).argmax(1)
    numbers = {
        "score": 100 * float(balanced_accuracy_score(test, predictions)),
        "share_of_images": 100 * float(accuracy_score(test, predictions)),
        "train": len(train),
        "test": len(test),
        "penalty": [svm.penalty],
    }
    return numbers, svm.kernel, svm.bias


def _attributes(store: FeatureStore, images: Images, splits: Sequence[Split], penalties: Sequence[tuple[float, ...]]):
    scores, chosen, kernels, biases = [], [], [], []
    penalties = list(penalties) * (len(splits) if len(penalties) == 1 else 1)
    for attribute, (split, candidates) in enumerate(zip(splits, penalties, strict=True)):
        train, test = (has_attribute(images.labels[part, attribute]).astype(np.int32) for part in split)
        svm = fit_linear_svm(store[split.train], train, 2, penalties=candidates)
        scores.append(100 * float(average_precision_score(test, svm.decision_values(store[split.test])[:, 1])))
        chosen.append(svm.penalty)
        kernels.append(svm.kernel[:, 1])
        biases.append(svm.bias[1])
    numbers = {
        "score": float(np.mean(scores)),
        "of_attributes": dict(zip(images.class_names, scores, strict=True)),
        "train": [len(split.train) for split in splits],
        "test": [len(split.test) for split in splits],
        "penalty": chosen,
    }
    return numbers, np.stack(kernels, axis=1), np.array(biases)


def examples_figure(
    model: CamModel,
    images: Images,
    store: FeatureStore,
    kernel: np.ndarray,
    bias: np.ndarray,
    splits: Sequence[Split],
    title: str,
) -> tuple[Figure, list[dict]]:
    """A figure of maps: for classes from the whole list, the test image that each class's machine scores highest.

    Args:
      model: the network of the features.
      images: the data set.
      store: the features of all its images.
      kernel: (K, C) of the SVMs.
      bias: (C,) of the SVMs.
      splits: as in `run_split`; their test images are shown.
      title: of the data set.

    Returns:
      The figure, and for each image of it, in JSON's types: class, image (its index), decision_value, and
      map_mean_plus_bias, which equals it up to rounding.
    """
    shown, values = [], []
    classes = np.unique(np.linspace(0, len(images.class_names) - 1, EXAMPLES_SHOWN).astype(int))
    for label in classes:
        if images.labels.ndim == 1:
            test = splits[0].test[images.labels[splits[0].test] == label]
        else:
            test = splits[label].test[has_attribute(images.labels[splits[label].test, label])]
        decisions = store[test] @ kernel[:, label] + bias[label]
        shown.append(int(test[decisions.argmax()]))
        values.append(float(decisions.max()))
    pixels = [images.source[index]["image"] for index in shown]
    cam_fn = camjax.make_cam_fn(with_linear_classifier(model, kernel, bias))
    out = cam_fn(squashed(pixels, model.input_size), classes[:, None])
    titles = [f"{images.class_names[label]}: {value:.2f}" for label, value in zip(classes, values, strict=True)]
    heading = f"{title}: the test image that a class's machine scores highest, its decision value, and its map"
    maps = np.asarray(out.maps)[:, 0]
    numbers = zip(classes, shown, values, maps.mean((1, 2)) + bias[classes], strict=True)
    results = [
        {
            "class": images.class_names[label],
            "image": index,
            "decision_value": value,
            "map_mean_plus_bias": float(of_map),
        }
        for label, index, value, of_map in numbers
    ]
    return map_figure(pixels, list(maps), titles, heading), results
