"""Pooled features of images, and networks with a linear classifier of them as their head.

Features from a network's global average pooling serve for tasks that it was not trained on, and a linear classifier of
them gives maps for classes that the network never saw (Zhou et al. 2016, section 4).
"""

import contextlib
from collections.abc import Callable, Generator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.data.loader import Batch, eval_batches
from camjax.data.prefetching import overlapped
from camjax.data.rows import RandomAccessSource
from camjax.errors import InputError
from camjax.models import CamModel, PooledHead, fold_batchnorm
from camjax.models.head import global_pool
from camjax.models.inference_mode import inference_view, run_for_inference

Progress = Callable[[int, int], None]
"""Called after each batch with the number of images done, and the number of all."""


class Crops:
    """The images of a source, each cropped to a box.

    Args:
      source: n images.
      boxes: (n, 4) `[ymin, xmin, ymax, xmax]` in 0..1, one for each image; edges are rounded to the nearest pixel.

    Raises:
      ValueError: the number of boxes differs, or a box is empty or not within its image.
    """

    def __init__(self, source: RandomAccessSource, boxes: np.ndarray):
        boxes = np.asarray(boxes, np.float64)
        if boxes.shape != (len(source), 4):
            raise InputError(f"boxes of shape {boxes.shape} for {len(source)} images: expected one box (4,) an image.")
        low, high = boxes[:, :2], boxes[:, 2:]
        wrong = np.flatnonzero(~((low >= 0) & (low < high) & (high <= 1)).all(1))
        if len(wrong):
            raise InputError(
                f"the box of image {wrong[0]} is {boxes[wrong[0]].tolist()}: expected [ymin, xmin, ymax, xmax] in "
                "0..1, with an extent."
            )
        self._source, self._boxes = source, boxes

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        """Returns image, the pixels of the box (at least one), and the label of the source."""
        example = self._source[index]
        image, (ymin, xmin, ymax, xmax) = example["image"], self._boxes[index]
        rows, columns = (
            slice(first := min(round(low * side), side - 1), max(round(high * side), first + 1))
            for low, high, side in ((ymin, ymax, image.shape[0]), (xmin, xmax, image.shape[1]))
        )
        return {"image": image[rows, columns], "label": example["label"]}


def map_images(
    function: Callable[[np.ndarray, np.ndarray], Any],
    source: RandomAccessSource,
    size: tuple[int, int],
    *,
    batch_size: int = 32,
    num_threads: int = 4,
    progress: Progress | None = None,
) -> Any:
    """Applies a function of batches to all images of a source, in its order.

    Args:
      function: takes images (batch_size, H, W, 3) uint8 and their indices in the source (batch_size,), and returns one
        or more arrays (batch_size, ...). The last batch is padded with black images of index 0, whose results are
        dropped.
      source: the images, each squashed to `size`.
      size: (H, W).
      batch_size: images in a call.
      num_threads: threads that read images.
      progress: see `Progress`.

    Returns:
      The same arrays for all n images: (n, ...), NumPy.

    Raises:
      ValueError: the source is empty, or an image can't be read.
    """
    parts = [
        results
        for _, results in batch_results(
            function, source, size, batch_size=batch_size, num_threads=num_threads, progress=progress
        )
    ]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def batch_results(
    function: Callable[[np.ndarray, np.ndarray], Any],
    source: RandomAccessSource,
    size: tuple[int, int],
    *,
    batch_size: int,
    num_threads: int = 4,
    unreadable: Literal["raise", "mark"] = "raise",
    start_batch: int = 0,
    progress: Progress | None = None,
) -> Generator[tuple[Batch, Any], None, None]:
    """Applies a function of batches to all images of a source, batch by batch, in constant memory; see `map_images`.

    Args:
      function: as in `map_images`.
      source: as in `map_images`.
      size: as in `map_images`.
      batch_size: as in `map_images`.
      num_threads: as in `map_images`.
      unreadable: as in `camjax.data.loader.eval_batches`; results of marked images are dropped.
      start_batch: the number of the first batch.
      progress: as in `map_images`.

    Yields:
      The batch of `camjax.data.loader.eval_batches`, and the results for the images in its mask, NumPy.

    Raises:
      ValueError: the source is empty, or an image can't be read.
    """
    done = start_batch * batch_size

    def fetch(batch: Batch, results: Any) -> tuple[Batch, Any]:
        nonlocal done
        results = jax.tree.map(lambda result: np.asarray(result)[batch["mask"]], results)
        done = min(done + batch_size, len(source))
        if progress:
            progress(done, len(source))
        return batch, results

    batches = eval_batches(
        source,
        batch_size=batch_size,
        size=size,
        unreadable=unreadable,
        start_batch=start_batch,
        num_threads=num_threads,
        shard_index=0,
        shard_count=1,
    )
    with contextlib.closing(batches):
        for batch, results in overlapped(
            batches, lambda batch: function(batch["image"], np.maximum(batch["index"], 0))
        ):
            yield fetch(batch, results)


def unreadable_because(source: RandomAccessSource, index: int) -> str:
    """Why an image that a batch has marked as unreadable can't be read."""
    try:
        source[index]
    except ValueError as error:
        return str(error)
    return "it could not be read the first time"


def gap_features(
    model: CamModel,
    source: RandomAccessSource,
    *,
    boxes: np.ndarray | None = None,
    batch_size: int = 32,
    num_threads: int = 4,
    progress: Progress | None = None,
) -> np.ndarray:
    """The global average of a network's last feature map, for each image (Zhou et al. 2016, section 4).

    This is the average even if the network's own head pools otherwise. It runs on one device.

    Args:
      model: has `features(images) -> (B, h, w, K)`; runs in inference mode, and is not changed.
      source: the images, squashed to the model's input size.
      boxes: (n, 4) the part of each image to take, as in `Crops`; None for whole images.
      batch_size: images at a time.
      num_threads: as in `map_images`.
      progress: as in `map_images`.

    Returns:
      (n, K) float32.

    Raises:
      ValueError: as `Crops` and `map_images`.
    """
    return map_images(
        pooled_fn(model),
        source if boxes is None else Crops(source, boxes),
        model.input_size,
        batch_size=batch_size,
        num_threads=num_threads,
        progress=progress,
    )


def pooled_fn(model: CamModel) -> Callable[[np.ndarray, np.ndarray], jax.Array]:
    """A function for `map_images` that returns pooled features (B, K) float32, bound to a snapshot of a network."""
    model = fold_batchnorm(model)
    return lambda images, _: _pooled(model, images)


@jax.jit
def _pooled(model: CamModel, images: jax.Array) -> jax.Array:
    """(B, H, W, 3) images -> (B, K) float32; snapshots of a network share one compiled program."""
    return global_pool(run_for_inference(inference_view(model).features, images), "gap")


def with_linear_classifier(model: CamModel, kernel: np.ndarray, bias: np.ndarray) -> CamModel:
    """The network with a classifier of its GAP features as its head: logits and maps are those of the classifier.

    Args:
      model: has `features(images) -> (B, h, w, K)`; it is not changed.
      kernel: (K, C).
      bias: (C,).

    Returns:
      A new model in inference mode, without class names.

    Raises:
      ValueError: the shapes do not match, or a number is not finite.
    """
    images = jax.ShapeDtypeStruct((1, *model.input_size, 3), jnp.uint8)
    channels = jax.eval_shape(
        lambda model, images: run_for_inference(inference_view(model).features, images), model, images
    ).shape[-1]
    if np.ndim(kernel) != 2 or np.shape(kernel)[0] != channels or np.shape(bias) != np.shape(kernel)[1:]:
        raise InputError(
            f"kernel of shape {np.shape(kernel)} and bias of shape {np.shape(bias)}: expected ({channels}, C) and "
            f"(C,), because the features of {type(model).__name__} have {channels} channels."
        )
    for name, numbers in (("kernel", kernel), ("bias", bias)):
        if not np.isfinite(np.asarray(numbers, np.float32)).all():
            raise InputError(f"{name} has numbers that are not finite: expected the weights of a trained classifier.")
    model = nnx.clone(model, arrays=True)
    model.head = PooledHead(*np.shape(kernel), pool="gap", rngs=nnx.Rngs(0))
    model.head.kernel[...] = jnp.asarray(kernel, jnp.float32)
    model.head.bias[...] = jnp.asarray(bias, jnp.float32)
    model.class_names = None
    model.multi_label = False
    # The head no longer is the one that the name stands for.
    model.created_as = None
    model.eval()
    return model
