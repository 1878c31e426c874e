"""Targets, what a map explains: functions of a network's outputs, (B, ...) -> (B, N) scores, one map each.

Methods take class ids directly; these functions make other targets. The scores of an image depend on its own outputs
alone. A target is a pytree: it goes into a `jax.jit` as an argument, and other numbers in it compile nothing. Any such
function of your own is a target too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from camjax.attribution.network import as_pytree
from camjax.cam import class_probabilities
from camjax.checks import as_array, check_class_ids
from camjax.errors import InputError

Target = Callable[[jax.Array], jax.Array]


def classes(class_ids) -> Target:
    """The scores of classes; methods turn class ids into this target.

    Args:
      class_ids: (B,) or (B, N) integers in 0..C-1.

    Returns:
      A target of outputs (B, C). It raises ValueError for outputs of another shape or number and for concrete ids out
      of range; a traced id out of range has a score of NaN.
    """
    return Partial(_classes, _as_array(class_ids))


def probabilities(class_ids, *, multi_label: bool = False) -> Target:
    """The probabilities of classes, a softmax of outputs (B, C), or a sigmoid where C is 1; see `classes`.

    Args:
      class_ids: as in `classes`.
      multi_label: whether an image may have several classes, each with the probability of its own sigmoid.

    Returns:
      A target as `classes` makes it, with scores in 0..1.
    """
    return Partial(_label_probabilities if multi_label else _probabilities, _as_array(class_ids))


def residual_softmax(class_ids) -> Target:
    """The scores of classes plus the logarithms of their probabilities (Cai 2025, "ReST"); see `classes`.

    `y_c + log softmax(y)_c` of outputs (B, C): unlike the score alone it falls where other classes rise, and it is
    curved, which Shapley-CAM needs to differ from Grad-CAM on a network that is piecewise linear.

    Args:
      class_ids: as in `classes`.

    Returns:
      A target as `classes` makes it.
    """
    return Partial(_residual_softmax, _as_array(class_ids))


def finer(
    class_ids,
    *,
    similar: Any = None,
    num_similar: int = 3,
    strength: float = 1.0,
    weights: Literal["probability", "mean"] = "probability",
) -> Target:
    """The scores of classes less those of the classes that look like them (Zhang et al. 2025, "Finer-CAM").

    With outputs y, their softmax p, and the look-alikes d of class c:

    - "probability": `sum_d p_d (y_c - strength y_d) / sum_d p_d`, in which a more probable look-alike counts for more.
      The weights are functions of the outputs, and take part in the gradient, as in the authors' code and in
      pytorch-grad-cam.
    - "mean": `y_c - strength mean_d y_d`, as in torch-cam, whose strength is 0.6.

    What two classes have in common raises both scores, and so leaves the difference as it is.

    Args:
      class_ids: (B,) or (B, N) integers in 0..C-1.
      similar: the look-alikes, integers: (T,) for all images and classes, (B, T) for each image, or (B, N, T). A class
        that is in its own list is compared with the others of it: a list may be a family of classes. None for those
        whose outputs are closest to that of the class.
      num_similar: how many these are; all others, where there are fewer.
      strength: how much of the look-alikes' score is taken away; 0 leaves the score of the class.
      weights: "probability" or "mean".

    Returns:
      A target of outputs (B, C), C at least 2. It raises ValueError as that of `classes` does, and for look-alikes of
      another shape, out of range, given twice, or none but the class itself; of traced numbers, a look-alike out of
      range, or none but the class itself, give a score of NaN.

    Raises:
      ValueError: a function in place of class ids, num_similar below 1, a strength that is not finite, or other
        weights.
    """
    if callable(class_ids):
        raise InputError(
            "Finer-CAM compares classes: expected class ids (B,) or (B, N), not a function of the outputs."
        )
    if weights not in ("probability", "mean"):
        raise InputError(f'weights={weights!r}: expected "probability" or "mean".')
    if num_similar < 1:
        raise InputError(f"num_similar={num_similar}: expected the number of classes to compare with, at least 1.")
    if not isinstance(strength, jax.core.Tracer) and not np.isfinite(strength):
        raise InputError(f"strength={strength}: expected a finite number; 1 takes the whole score of the look-alikes.")
    similar = None if similar is None else _as_array(similar)
    share = strength.astype(jnp.float32) if isinstance(strength, jax.Array) else np.float32(strength)
    return Partial(_Finer(num_similar, weights), _as_array(class_ids), similar, share)


def class_sets(members) -> Target:
    """The mean score of a set of classes, such as all breeds of dogs, for each image.

    Args:
      members: (B, C) or (B, N, C), the share of each class: True and False, or weights. They are divided by their sum.

    Returns:
      A target of outputs (B, C). It raises ValueError for another number of images or classes. A traced set without
      members has a score of NaN.

    Raises:
      ValueError: another number of dimensions, or a concrete set whose shares are not finite or have no sum.
    """
    members = jnp.asarray(members, jnp.float32)
    if members.ndim not in (2, 3):
        raise InputError(f"members of shape {members.shape}: expected (B, C) or (B, N, C).")
    if not isinstance(members, jax.core.Tracer):
        sums = np.asarray(members).sum(-1)
        if (empty := ~np.isfinite(sums) | (sums == 0)).any():
            raise InputError(
                f"members of image {np.argwhere(empty)[0, 0]} have the sum {sums[empty][0]:g}: expected a set of at "
                "least one class, or weights with a sum other than 0."
            )
    return Partial(_class_sets, members)


def binary(positive) -> Target:
    """The evidence of a binary or multi-label output for or against its label.

    Args:
      positive: (B,) bool for one output an image, (B, C) for C labels: True asks for evidence for the label,
        False for evidence against it.

    Returns:
      A target of outputs (B,) or (B, 1), or (B, C), before a sigmoid; N is 1, or C. It raises ValueError for outputs of
      another shape.

    Raises:
      ValueError: concrete values other than True and False, 1 and 0.
    """
    if not isinstance(positive, jax.core.Tracer) and not np.isin(values := np.asarray(positive), (0, 1)).all():
        raise InputError(
            f"positive has the values {np.unique(values)[:5].tolist()}: expected True and False, or 1 and 0. For "
            "labels of 1 and -1 write positive > 0."
        )
    return Partial(_binary, jnp.asarray(positive, bool))


def regression(sign=1.0) -> Target:
    """The value of a regression: maps show what raises it, or with a sign of -1 what lowers it.

    Args:
      sign: 1 or -1 for all images, or one for each of N values, (N,).

    Returns:
      A target of outputs (B,), with N = 1, or (B, N).

    Raises:
      ValueError: a concrete sign of 0, which would explain nothing, or one that is not finite.
    """
    if not isinstance(sign, jax.core.Tracer) and not (np.isfinite(sign) & (np.asarray(sign) != 0)).all():
        raise InputError(f"sign={sign!r}: expected 1, or -1 for what lowers the value.")
    return Partial(_regression, jnp.asarray(sign, jnp.float32))


def region(masks, class_ids) -> Target:
    """The mean score of a class over a region, for networks that segment (Vinogradova et al. 2020, eq. 2).

    Args:
      masks: (B, h, w) or (B, N, h, w), True where the score counts, at the outputs' size.
      class_ids: (B,) or (B, N) integers in 0..C-1.

    Returns:
      A target of outputs (B, h, w, C), before a softmax. It raises ValueError for masks or outputs of another shape and
      for concrete ids out of range. An empty region has a score of 0.
    """
    return Partial(_region, jnp.asarray(masks, jnp.float32), _as_array(class_ids))


def similarity(embeddings) -> Target:
    """The cosine between a network's output and an embedding, of another image or of a text.

    Args:
      embeddings: (B, D) or (B, N, D).

    Returns:
      A target of outputs (B, D); from -1 to 1. It raises ValueError for outputs of another shape.

    Raises:
      ValueError: embeddings of another number of dimensions.
    """
    embeddings = jnp.asarray(embeddings, jnp.float32)
    if embeddings.ndim not in (2, 3):
        raise InputError(f"embeddings of shape {embeddings.shape}: expected (B, D) or (B, N, D).")
    return Partial(_similarity, embeddings)


def per_image(targets: Sequence[Target]) -> Target:
    """A different target for each image of a batch.

    Args:
      targets: B targets of a batch of one, each with the same N.

    Returns:
      A target of outputs with B images. It raises ValueError for another number of them.
    """
    return Partial(_per_image, tuple(map(as_pytree, targets)))


def as_target(targets: Any, outputs: jax.Array | jax.ShapeDtypeStruct) -> Target:
    """Checks targets against outputs.

    Args:
      targets: class ids (B,) or (B, N), or a function of outputs.
      outputs: (B, ...), or their shape and dtype.

    Returns:
      A function outputs -> (B, N) float32.

    Raises:
      ValueError: class ids of another shape or type, concrete ones out of range, class ids for
        outputs that are not (B, C), or scores that are not (B, N).
    """
    target = Partial(_float32, targets if callable(targets) else classes(targets))
    scores = jax.eval_shape(target, jax.ShapeDtypeStruct(outputs.shape, outputs.dtype))
    if scores.ndim != 2 or scores.shape[0] != outputs.shape[0] or not scores.shape[1]:
        raise InputError(
            f"the target gives scores of shape {scores.shape} for {outputs.shape[0]} images: expected "
            f"({outputs.shape[0]}, N), for each image one score for each of N maps."
        )
    return target


def _as_array(class_ids):
    """Lists as arrays: in a pytree each number of a list would be an argument of its own."""
    return as_array(class_ids, "class_ids") if hasattr(class_ids, "dtype") else np.asarray(class_ids)


def _float32(target: Target, outputs: jax.Array) -> jax.Array:
    return jnp.asarray(target(outputs)).astype(jnp.float32)


def _classes(class_ids, outputs):
    batch = outputs.shape[0]
    if outputs.ndim != 2:
        raise InputError(f"scores of shape {outputs.shape} for {batch} images: expected ({batch}, C).")
    count = outputs.shape[1]
    ids = jnp.asarray(check_class_ids(class_ids, batch, count))
    known = (ids >= 0) & (ids < count)
    return jnp.where(known, jnp.take_along_axis(outputs, jnp.where(known, ids, 0), axis=1), jnp.nan)


def _probabilities(class_ids, outputs):
    return _classes(class_ids, class_probabilities(outputs))


def _label_probabilities(class_ids, outputs):
    return _classes(class_ids, class_probabilities(outputs, multi_label=True))


def _residual_softmax(class_ids, outputs):
    return _classes(class_ids, outputs) + _classes(class_ids, jax.nn.log_softmax(outputs))


@dataclass(frozen=True)
class _Finer:
    """What of `finer` is the same in a compiled program."""

    num_similar: int
    weights: str

    def __call__(self, class_ids, similar, strength, outputs):
        scores = _classes(class_ids, outputs)
        batch, count = outputs.shape
        if count < 2:
            raise InputError("one class has no look-alikes: expected outputs of at least two classes.")
        ids = jnp.asarray(check_class_ids(class_ids, batch, count))[..., None]
        if similar is None:
            distances = jnp.abs(outputs[:, None] - jax.lax.stop_gradient(scores)[..., None])
            itself = jnp.arange(count, dtype=ids.dtype)[None, None] == ids
            distances = jnp.where(itself, jnp.inf, distances)
            # Sorted, not by `top_k`: of outputs on several devices XLA gathers those of the whole batch for it.
            found = jnp.argsort(distances, axis=-1)[..., : min(self.num_similar, count - 1)]
            counted = jnp.ones(found.shape, bool)
        else:
            found = jnp.asarray(_look_alikes(similar, class_ids, batch, scores.shape[1], count))
            counted = found != ids
        known = ((found >= 0) & (found < count)).all(-1) & counted.any(-1)
        every = jnp.broadcast_to(outputs[:, None], (*scores.shape, count))
        others = jnp.take_along_axis(every, jnp.clip(found, 0, count - 1), axis=2)
        if self.weights == "probability":
            # Their softmax is that of all classes, divided by its sum over them.
            shares = jax.nn.softmax(others, axis=-1, where=counted)
        else:
            shares = counted.astype(jnp.float32)
            shares = shares / jnp.maximum(shares.sum(-1, keepdims=True), 1)
        compared = (shares.astype(others.dtype) * others).sum(-1)
        return jnp.where(known, scores - strength.astype(scores.dtype) * compared, jnp.nan)


def _look_alikes(similar, class_ids, batch: int, number: int, count: int):
    """Look-alikes of N classes as (B, N, T); ValueError for what `finer` says."""
    given = similar.shape
    expected = f"expected integers (T,), ({batch}, T) or ({batch}, {number}, T)"
    if not 1 <= len(given) <= 3 or not given[-1] or not jnp.issubdtype(similar.dtype, jnp.integer):
        raise InputError(f"similar of shape {given} and dtype {similar.dtype}: {expected}.")
    if given[:-1] not in ((), (batch,), (batch, number)):
        raise InputError(f"similar of shape {given}: {expected}.")
    similar = similar.reshape(*((1, 1) if len(given) == 1 else (batch, -1)), given[-1])
    if not isinstance(similar, jax.core.Tracer):
        numbers = np.asarray(similar)
        if (wrong := numbers[(numbers < 0) | (numbers >= count)]).size:
            raise InputError(f"similar has {wrong[:5].tolist()}: expected classes in 0..{count - 1}.")
        if (np.diff(np.sort(numbers, axis=-1), axis=-1) == 0).any():
            raise InputError(f"similar={numbers.tolist()}: expected each class once.")
        if not isinstance(class_ids, jax.core.Tracer) and numbers.shape[-1] == 1:
            ids = np.asarray(class_ids).reshape(batch, number, 1)
            if (alone := ids[ids == numbers]).size:
                raise InputError(f"class {alone[0]} has no look-alike but itself: expected other classes in similar.")
    return jnp.broadcast_to(similar, (batch, number, given[-1]))


def _class_sets(members, outputs):
    members = members[:, None] if members.ndim == 2 else members
    _check_images("members", members.shape, (outputs.shape[0], members.shape[1], *outputs.shape[1:]))
    shares = members / members.sum(-1, keepdims=True)
    return jnp.einsum("bc,bnc->bn", outputs, shares, precision=jax.lax.Precision.HIGHEST)


def _binary(positive, outputs):
    if positive.ndim == 1 and outputs.ndim == 2 and outputs.shape[1] == 1:
        outputs = outputs[:, 0]
    _check_images("positive", positive.shape, outputs.shape)
    scores = jnp.where(positive, outputs, -outputs)
    return scores.reshape(len(scores), -1)


def _regression(sign, outputs):
    return sign * outputs.reshape(outputs.shape[0], -1)


def _region(masks, class_ids, outputs):
    masks = masks[:, None] if masks.ndim == 3 else masks
    if outputs.ndim != 4:
        raise InputError(f"outputs of shape {outputs.shape}: expected (B, h, w, C), the scores of a segmentation.")
    batch, *size, count = outputs.shape
    ids = jnp.asarray(check_class_ids(class_ids, batch, count))
    _check_images("masks", masks.shape, (batch, ids.shape[1], *size))
    scores = jnp.take_along_axis(outputs.reshape(batch, -1, count), ids[:, None], axis=2)
    masks = masks.reshape(*masks.shape[:2], -1)
    return jnp.einsum("bpn,bnp->bn", scores, masks) / jnp.maximum(masks.sum(-1), 1)


def _similarity(embeddings, outputs):
    embeddings = embeddings[:, None] if embeddings.ndim == 2 else embeddings
    _check_images("embeddings", embeddings.shape, (outputs.shape[0], embeddings.shape[1], *outputs.shape[1:]))
    products = jnp.einsum("bd,bnd->bn", outputs, embeddings, precision=jax.lax.Precision.HIGHEST)
    lengths = jnp.linalg.norm(outputs, axis=-1)[:, None] * jnp.linalg.norm(embeddings, axis=-1)
    return products / jnp.maximum(lengths, np.finfo(np.float32).tiny)


def _per_image(targets, outputs):
    if len(targets) != outputs.shape[0]:
        raise InputError(f"{len(targets)} targets for {outputs.shape[0]} images: expected one for each.")
    return jnp.concatenate([target(outputs[i : i + 1]) for i, target in enumerate(targets)])


def _check_images(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(shape) != tuple(expected):
        raise InputError(f"{name} of shape {tuple(shape)}: expected {tuple(expected)}, for the outputs of the network.")
