"""What training minimizes: losses of one image each, and weights of classes.

A loss is any function of logits (b, C) float32 and labels to (b,) float, traceable by JAX. It may have two attributes:

- `multi_label`: True if an image may have several classes. Labels are then (b, C) float32 in 0..1, and the model's
  probabilities are sigmoids; otherwise they are (b,) int32 in 0..C-1, and the probabilities a softmax.
- `weights(labels)`: (b,) float, or None. A step then divides the sum of the losses by the sum of these over the whole
  batch, on all devices; otherwise by the number of images.

Its `repr`, without memory addresses, names it in `run.json`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from camjax.data.relabeled import with_classes_of
from camjax.data.rows import RandomAccessSource, label_of
from camjax.errors import InputError
from camjax.models import CamModel

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""From logits (b, C) float32 and labels to the losses (b,) of the images."""


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """The cross-entropy of the softmax, in nats, for images of one class.

    As in `torch.nn.CrossEntropyLoss`: with class weights w and targets t, the loss of an image is
    `-sum_c w_c t_c log p_c`, and the mean over a batch is weighted by the w of the images' classes.

    Attributes:
      label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2016, section 7).
      class_weights: C numbers in the order of the model's classes, or None for equal ones. Images of a class of weight
        0 teach nothing, and do not count in the mean.
    """

    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing={self.label_smoothing}: expected 0 <= label_smoothing < 1.")
        object.__setattr__(self, "class_weights", _checked_weights("class_weights", self.class_weights))

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits (b, C) and labels (b,) -> (b,) float32; NaN for a label outside of 0..C-1."""
        return cross_entropy(logits, labels, self.label_smoothing, self.class_weights)

    def weights(self, labels: jax.Array) -> jax.Array | None:
        """Labels (b,) -> their weights (b,); None where all count alike."""
        return None if self.class_weights is None else jnp.array(self.class_weights, jnp.float32)[labels]


@dataclass(frozen=True)
class SigmoidBinaryCrossEntropy:
    """The binary cross-entropy of each class's sigmoid, in nats, for images of any number of classes.

    As in `torch.nn.BCEWithLogitsLoss`: the loss of an image is the mean over the classes of
    `-w_c (a_c y_c log p_c + (1 - y_c) log(1 - p_c))`.

    Attributes:
      positive_weights: C numbers a in the order of the model's classes, or None for equal ones; above 1 where
        a class that is missed costs more than one that is wrongly found. See `positive_weights`.
      class_weights: C numbers w, 0 for a class that does not count, or None for equal ones.
    """

    positive_weights: Sequence[float] | None = None
    class_weights: Sequence[float] | None = None

    multi_label: ClassVar[bool] = True

    def __post_init__(self):
        for name in ("positive_weights", "class_weights"):
            object.__setattr__(self, name, _checked_weights(name, getattr(self, name)))

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits (b, C) and labels (b, C) in 0..1 -> (b,) float32.

        Raises:
          ValueError: labels of another shape, or weights of another number of classes.
        """
        if labels.shape != logits.shape:
            raise InputError(
                f"labels {labels.shape} {labels.dtype}: expected {logits.shape}, one number in 0..1 for each class. "
                "For one class an image take SoftmaxCrossEntropy."
            )
        positive = _spread("positive_weights", self.positive_weights, logits)
        labels = labels.astype(logits.dtype)
        losses = -positive * labels * jax.nn.log_sigmoid(logits) - (1 - labels) * jax.nn.log_sigmoid(-logits)
        return (_spread("class_weights", self.class_weights, logits) * losses).mean(-1)


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> jax.Array:
    """Returns the losses of `SoftmaxCrossEntropy`: (b, C) logits and (b,) labels -> (b,).

    They are NaN for a label outside of 0..C-1, which would otherwise count from the end, or as no class at all.

    Raises:
      ValueError: labels that are not one whole number for each image, or weights of another number of classes.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != logits.shape[:-1]:
        raise InputError(
            f"labels {labels.shape} {labels.dtype}: expected one class for each of the {logits.shape[0]} images, as a "
            f"whole number in 0..{logits.shape[-1] - 1}. For several classes an image take SigmoidBinaryCrossEntropy."
        )
    if label_smoothing or class_weights is not None:
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), label_smoothing)
        if class_weights is not None:
            targets = _spread("class_weights", class_weights, logits) * targets
        losses = optax.softmax_cross_entropy(logits, targets)
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.where((labels >= 0) & (labels < logits.shape[-1]), losses, jnp.nan)


def is_multi_label(loss: Loss | None) -> bool:
    """Whether a loss is for images of several classes; None stands for `SoftmaxCrossEntropy`."""
    # Of `functools.partial(focal_loss, gamma=2)`, the function has the attribute.
    return any(getattr(function, "multi_label", False) for function in (loss, getattr(loss, "func", None)))


def label_shape(loss: Loss | None, num_classes: int) -> tuple[int, ...]:
    """The shape of one image's label: () for one class, (C,) for several."""
    return (num_classes,) if is_multi_label(loss) else ()


def losses_of(loss: Loss, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The losses (b,) of a batch.

    Raises:
      ValueError: the function returns something else.
    """
    losses = loss(logits, labels)
    shape, dtype = getattr(losses, "shape", None), getattr(losses, "dtype", jnp.bool)
    if shape != (logits.shape[0],) or not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"loss {loss!r} returns {type(losses).__name__} of shape {shape} and type {dtype}: expected "
            f"({logits.shape[0]},) floats, the loss of each of {logits.shape[0]} images, without a mean over them."
        )
    return losses


def loss_weights(loss: Loss, labels: jax.Array) -> jax.Array | None:
    """The weights (b,) of a batch's losses, or None if they count alike."""
    weights = getattr(loss, "weights", None)
    return None if weights is None else weights(labels)


def check_loss(loss: Loss, num_classes: int) -> None:
    """Traces a loss once, before a run begins.

    Raises:
      ValueError: it is no function, does not return one loss for each image, or has weights for another number of
        classes.
    """
    if not callable(loss):
        raise InputError(f"loss={loss!r}: expected a function of logits and labels, such as SoftmaxCrossEntropy().")
    logits = jax.ShapeDtypeStruct((2, num_classes), jnp.float32)
    dtype = jnp.float32 if is_multi_label(loss) else jnp.int32
    labels = jax.ShapeDtypeStruct((2, *label_shape(loss, num_classes)), dtype)
    jax.eval_shape(lambda logits, labels: losses_of(loss, logits, labels), logits, labels)


def balanced_class_weights(source: RandomAccessSource, model: CamModel) -> tuple[float, ...]:
    """Weights for `SoftmaxCrossEntropy` by which all classes count alike, however many images they have.

    They are `n / (C n_c)` for n images in C classes, n_c of them in class c: scikit-learn's "balanced" (King and Zeng
    2001). Images are not decoded where the source can tell labels without.

    Args:
      source: the training examples, of one class each.
      model: with C classes. Where model and source have class names, classes are paired by them, as `fit` does.

    Returns:
      C numbers above 0, in the order of the model's classes.

    Raises:
      ValueError: a class without an image, or labels without a class in the model.
    """
    counts = _counts(source, model, several=False)
    return tuple((counts.sum() / (len(counts) * counts)).tolist())


def positive_weights(source: RandomAccessSource, model: CamModel) -> tuple[float, ...]:
    """Weights for `SigmoidBinaryCrossEntropy` by which images with a class weigh as much as those without it.

    They are `(n - n_c) / n_c` for n images, n_c of them with class c, as the documentation of PyTorch's
    `BCEWithLogitsLoss` recommends.

    Args:
      source: the training examples, with labels (C,) of 0 and 1.
      model: as in `balanced_class_weights`.

    Returns:
      C numbers above 0, in the order of the model's classes.

    Raises:
      ValueError: a class that no image or every image has, or other labels.
    """
    counts = _counts(source, model, several=True)
    return tuple(((len(source) - counts) / counts).tolist())


def _counts(source: RandomAccessSource, model: CamModel, several: bool) -> np.ndarray:
    """(C,) float64: the number of images of each class."""
    classes = model.head.num_classes
    source = with_classes_of(source, model.class_names, classes)
    labels = [np.asarray(label_of(source, index)) for index in range(len(source))]
    for index, label in enumerate(labels):
        fits = (
            label.shape == (classes,) and bool(np.isin(label, (0, 1)).all())
            if several
            else label.shape == () and label.dtype.kind in "iu" and 0 <= label < classes
        )
        if not fits:
            expected = f"{classes} numbers, 0 or 1" if several else f"one class, a whole number in 0..{classes - 1}"
            raise InputError(f"the label of example {index} is {label.tolist()!r}; expected {expected}.")
    found = np.stack(labels)
    counts = (found if several else np.eye(classes)[found]).sum(0, np.float64)
    wrong = (counts == 0) | (several & (counts == len(found)))
    if wrong.any():
        names = model.class_names or range(classes)
        listed = ", ".join(str(names[i]) for i in np.flatnonzero(wrong)[:5])
        raise InputError(
            f"{int(wrong.sum())} of {classes} classes have no image{' or all' if several else ''}: {listed}. There is "
            "no weight that balances them: leave the classes out of the model, or give weights of your own."
        )
    return counts


def _checked_weights(name: str, weights: Sequence[float] | None) -> tuple[float, ...] | None:
    """Weights as a tuple of floats, so that their `repr` is the same wherever they come from."""
    if weights is None:
        return None
    try:
        numbers = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError):
        numbers = ()
    if not any(numbers) or not all(0 <= number < math.inf for number in numbers):
        raise InputError(
            f"{name}={weights!r}: expected a number of 0 or more for each class of the model, in its order, not all 0."
        )
    return numbers


def _spread(name: str, weights: Sequence[float] | None, logits: jax.Array) -> jax.Array:
    """Weights of the classes as (b, C), ones for None."""
    if weights is None:
        return jnp.ones_like(logits)
    if len(weights) != logits.shape[-1]:
        raise InputError(f"{name}: {len(weights)} numbers; expected {logits.shape[-1]}, one for each of the classes.")
    return jnp.broadcast_to(jnp.array(weights, logits.dtype), logits.shape)
