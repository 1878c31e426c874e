"""What the faithfulness metrics share: checked arguments, ranks of pixels, scores of many copies, means over images."""

import abc
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from camjax.attribution.network import as_pytree
from camjax.cam import resize_map
from camjax.checks import check_class_ids, check_images
from camjax.metrics.sample import Sample
from camjax.metrics.streaming import StreamingMetric, rows_of

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""The mean color of ImageNet, RGB in 0..255: what a 0 is in the normalized images of most networks."""


class FaithfulnessMetric(StreamingMetric):
    """Means over images of numbers that depend on an image, its map and a class; see `camjax.metrics.FAITHFULNESS`.

    Args:
      options: what the metric was made with, in JSON's types.
      names: the names of the numbers, as in the results of `compute`.
    """

    needs = frozenset({"scores"})

    def __init__(self, options: Mapping, names: Sequence[str]):
        super().__init__(
            options, {"images": np.zeros((), np.int64)} | {name: np.zeros((), np.float64) for name in names}
        )

    @property
    def num_images(self) -> int:
        """The number of images seen, padding left out."""
        return int(self.sums["images"])

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation: the maps of the most probable classes.

        As in the papers, a map has to explain the network's own answer, right or wrong.

        Raises:
          ValueError: a sample without `probabilities_fn`, or a map of an image that counts holds NaN or infinity.
        """
        maps, class_ids, truth = sample.top.maps[:, 0], sample.top.class_ids[:, 0], sample.truth
        if sample.probabilities_fn is None:
            raise ValueError(f"{self.title} of a sample without probabilities_fn: expected the network's.")
        broken = np.flatnonzero(truth.counted & ~np.isfinite(maps).all((1, 2)))
        if len(broken):
            listed = ", ".join(truth.filenames[i] for i in broken[:5])
            raise ValueError(
                f"{self.title}: the maps of {len(broken)} images of a batch hold NaN or infinity ({listed}). The "
                "network's features are not finite there: check its weights, or leave out the metrics of faithfulness."
            )
        self.update(sample.probabilities_fn, sample.images, maps, class_ids, truth.counted)

    def update(self, probabilities_fn: Callable, images, maps, class_ids, mask=None) -> None:
        """Adds a batch of B images.

        Args:
          probabilities_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C), for any b; each row depends only on its
            own image. Probabilities, such as a softmax, unless the metric says that other scores will do. Pass the same
            function every time: each new one is compiled. Weights of NNX modules and of
            `jax.tree_util.Partial(function, weights)` are arguments of the compiled programs, others constants. A
            camjax model has to be in inference mode: see `camjax.inference.inference_view`.
          images: (B, H, W, 3) RGB in 0..255, uint8 or float.
          maps: (B, h, w), one of each image, for the class that is asked about; more is more relevant.
          class_ids: (B,) integers in 0..C-1.
          mask: (B,) bool, False for padding; None for all images.

        Raises:
          ValueError: another shape or type, maps that hold NaN or infinity, class ids out of range. Nothing is added
            then.
        """
        rows = rows_of(mask, len(images))
        if not len(rows):
            return
        if mask is not None:
            # Padding is scored like the rest, because another shape would be compiled. Its values may be anything.
            maps, class_ids = (_where(mask, array, len(images), rows) for array in (maps, class_ids))
        numbers = self._numbers(probabilities_fn, images, maps, class_ids)
        numbers = {name: np.asarray(values, np.float64)[rows].sum() for name, values in numbers.items()}
        self.sums["images"] += len(rows)
        for name, total in numbers.items():
            self.sums[name] += total

    def compute(self) -> dict[str, float]:
        """The means over images, by name.

        Raises:
          ValueError: no image was seen.
        """
        if not self.num_images:
            raise ValueError(f"{self!r} has seen no image: expected an update() with at least one.")
        return {name: float(total) / self.num_images for name, total in self.sums.items() if name != "images"}

    @abc.abstractmethod
    def _numbers(self, probabilities_fn, images, maps, class_ids) -> dict[str, jax.Array]:
        """Each name's (B,) numbers."""


def _where(mask, array, batch: int, rows: np.ndarray):
    """The array with zeros, or the class 0, in padding."""
    array = np.asarray(array)
    if array.shape[:1] != (batch,):
        return array  # an error of its shape, which the metric raises
    kept = np.zeros_like(array)
    kept[rows] = array[rows]
    return kept


def checked_maps(images, maps) -> jax.Array:
    """Maps of images, checked and brought to the images' size by `camjax.resize_map`.

    Args:
      images: (B, H, W, 3), uint8 or float.
      maps: (B, h, w) real numbers.

    Returns:
      (B, H, W) float32.

    Raises:
      ValueError: another shape or type, or maps that hold NaN or infinity.
    """
    check_images(None, images)
    shape, dtype = np.shape(maps), jnp.result_type(maps)
    if len(shape) != 3 or shape[0] != len(images) or 0 in shape or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"maps of shape {shape} and dtype {dtype} for {len(images)} images: expected floats of shape "
            f"({len(images)}, h, w), one map an image."
        )
    finite = np.asarray(jnp.isfinite(jnp.asarray(maps)).all((1, 2)))
    if not finite.all():
        raise ValueError(
            f"maps of rows {np.flatnonzero(~finite)[:10].tolist()} hold NaN or infinity: expected finite numbers, "
            "which put pixels in an order. Leave such images out by the mask of update()."
        )
    return _resized(maps, tuple(images.shape[1:3]))


_resized = jax.jit(resize_map, static_argnums=1)


def checked_scores(scores_fn: Callable, images, class_ids) -> tuple[Callable, jax.Array]:
    """A function of scores as a pytree, and class ids (B,), checked against what it gives.

    Raises:
      ValueError: scores that are not (B, C), or class ids of another shape, type or range.
    """
    scores_fn = as_pytree(scores_fn)
    shape = jax.eval_shape(_float_scores, scores_fn, jax.ShapeDtypeStruct(images.shape, jnp.float32)).shape
    if len(shape) != 2 or shape[0] != len(images):
        raise ValueError(f"scores of shape {shape} for {len(images)} images: expected ({len(images)}, C).")
    if np.ndim(class_ids) != 1:
        raise ValueError(f"class_ids of shape {np.shape(class_ids)}: expected ({len(images)},), one class an image.")
    return scores_fn, jnp.asarray(check_class_ids(class_ids, *shape)[:, 0])


def check_baseline(baseline, images) -> jax.Array:
    """The baseline, which replaces pixels, as an array that broadcasts with images (B, H, W, 3).

    Args:
      baseline: a number, a color (3,), or images that broadcast to (B, H, W, 3), in 0..255.
      images: (B, H, W, 3).

    Raises:
      ValueError: another shape, or NaN or infinity.
    """
    shape = np.shape(baseline)
    fits = len(shape) <= 4 and all(own in (1, side) for own, side in zip(shape[::-1], images.shape[::-1], strict=False))
    if not fits or not np.isfinite(baseline).all():
        raise ValueError(
            f"baseline of shape {shape} for images {tuple(images.shape)}: expected a finite number, a color (3,), or "
            "images of that shape, in 0..255."
        )
    whole = images.shape if len(shape) > 1 else (len(images), 1, 1, 3)
    return jnp.broadcast_to(jnp.asarray(baseline, jnp.float32), whole)


def color_option(baseline) -> float | list[float]:
    """A number or a color in JSON's types, for a metric's options.

    Raises:
      ValueError: neither a number nor a color of three numbers in 0..255.
    """
    color = np.asarray(baseline, np.float64)
    if color.shape not in ((), (3,)) or not ((color >= 0) & (color <= 255)).all():
        raise ValueError(f"baseline={baseline!r}: expected a number or a color of three, RGB in 0..255.")
    return color.tolist()


@jax.jit
def pixel_ranks(maps: jax.Array) -> jax.Array:
    """The rank of each pixel of a map: 0 for the largest value, H W - 1 for the least.

    Args:
      maps: (B, H, W), finite.

    Returns:
      (B, H, W) int32. Of equal values, the first in raster order comes first.
    """
    order = jnp.argsort(-maps.reshape(len(maps), -1), axis=1, stable=True)
    places = jnp.broadcast_to(jnp.arange(order.shape[1], dtype=jnp.int32), order.shape)
    return jnp.put_along_axis(jnp.zeros_like(places), order, places, axis=1, inplace=False).reshape(maps.shape)


def numbers_of_copies(
    numbers_of: Callable[[jax.Array], jax.Array], batch: int, copies: int, chunk_size: int
) -> jax.Array:
    """Numbers that many changed copies of images have, in compiled chunks of one shape; no more than one at a time.

    A loop on the host, not to be called inside `jax.jit`. Nothing in it waits for the device.

    Args:
      numbers_of: rows (R, 2) int32 of image and copy -> (R, ...) float32; a pytree. Rows that fill up the last chunk
        are copy 0 of image 0.
      batch: B.
      copies: of each image.
      chunk_size: the largest R.

    Returns:
      (B, copies, ...) float32.

    Raises:
      ValueError: chunk_size below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}: expected the number of copies to score at a time, at least 1.")
    rows = np.stack(np.divmod(np.arange(batch * copies, dtype=np.int32), np.int32(copies)), axis=1)
    chunk_size = min(chunk_size, len(rows))
    rows = np.pad(rows, ((0, -len(rows) % chunk_size), (0, 0)))
    shape = jax.eval_shape(numbers_of, rows[:chunk_size]).shape[1:]
    numbers = jnp.zeros((len(rows), *shape))
    for start in range(0, len(rows), chunk_size):
        # One chunk waits for the one before it, whose array it fills: asynchronous dispatch starts no two of them.
        numbers = _filled(numbers, numbers_of, rows[start : start + chunk_size], start)
    return numbers[: batch * copies].reshape(batch, copies, *shape)


def scores_of_classes(scores_fn: Callable, images: jax.Array, class_ids: jax.Array) -> jax.Array:
    """(R, H, W, 3) images, (R,) class ids -> (R,) float32 scores."""
    scores = _float_scores(scores_fn, images)
    return jnp.take_along_axis(scores, class_ids[:, None], axis=1)[:, 0]


@jax.jit
def correlation(a: jax.Array, b: jax.Array) -> jax.Array:
    """(..., n), (..., n) -> (...) float32, Pearson's correlation over the last axis; 0 where one is constant."""
    return (_standardized(a) * _standardized(b)).sum(-1).clip(-1, 1)


def _standardized(values):
    # Scaled to 0..1 first: the rounded mean of a constant may differ from it, and squares of small numbers are 0.
    low, high = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    values = (values - low) / jnp.where(high > low, high - low, 1)
    values = values - values.mean(-1, keepdims=True)
    length = jnp.linalg.norm(values, axis=-1, keepdims=True)
    return jnp.where(high == low, 0, values / jnp.where(length > 0, length, 1))


def _float_scores(scores_fn, images):
    return jnp.asarray(scores_fn(images)).astype(jnp.float32)


def _fill(numbers, numbers_of, rows, start):
    return jax.lax.dynamic_update_slice_in_dim(numbers, numbers_of(rows), start, axis=0)


_filled = jax.jit(_fill, donate_argnums=0)
