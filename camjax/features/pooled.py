"""Pooled features of images, and networks with a linear classifier of them as their head.

Features from a network's global average pooling serve for tasks that it was not trained on, and a linear classifier of
them gives maps for classes that the network never saw (Zhou et al. 2016, section 4).
"""

import contextlib
import itertools
import operator
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
from camjax.processes import gather_arrays
from camjax.sharding import Placed

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
    """Applies a function of batches to all images of a source, in its order, on all devices of all processes.

    Each device takes whole batches, so that results do not depend on the number of devices or processes; all processes
    get all results, and have to call this together.

    Args:
      function: takes images (batch_size, H, W, 3) uint8, on the device that is to compute if there are several, and
        their indices in the source (batch_size,); returns one or more arrays (batch_size, ...) of at most 32 bits. The
        last batch is padded with black images of index 0, whose results are dropped.
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
      unreadable: as in `camjax.data.eval_batches`; results of marked images are dropped.
      start_batch: the number of the first batch.
      progress: as in `map_images`.

    Yields:
      The batch of `camjax.data.eval_batches` without its images, and the results for the images in its mask,
      NumPy.

    Raises:
      ValueError: the source is empty, or an image can't be read.
    """
    processes, devices = jax.process_count(), jax.local_devices()
    next_device = itertools.cycle(devices).__next__

    def start(batch: Batch) -> Any:
        images = batch["image"] if len(devices) == 1 else jax.device_put(batch["image"], next_device())
        return function(images, np.maximum(batch["index"], 0))

    # In each round, every process has the next batch of its own.
    batches = eval_batches(
        source,
        batch_size=batch_size * processes,
        size=size,
        unreadable=unreadable,
        start_batch=start_batch // processes,
        num_threads=num_threads,
    )
    with contextlib.closing(batches):
        number = start_batch // processes * processes
        for batch, own in overlapped(batches, start, ahead=len(devices)):
            told = {name: array for name, array in batch.items() if name != "image"}
            gathered = gather_arrays((told, own))
            for process in range(processes):
                batch, results = jax.tree.map(operator.itemgetter(process), gathered)
                if start_batch <= number and number * batch_size < len(source):
                    results = jax.tree.map(operator.itemgetter(batch["mask"]), results)
                    if progress:
                        progress(min((number + 1) * batch_size, len(source)), len(source))
                    yield batch, results
                number += 1


def unreadable_because(source: RandomAccessSource, index: int) -> str:
    """Why an image that a batch has marked as unreadable can't be read.

    Args:
      source: of the batch.
      index: of the image in the source.

    Returns:
      The error of its source as a sentence.
    """
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

    This is the average even if the network's own head pools otherwise. It runs on all devices of all processes.

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


def pooled_fn(model: CamModel) -> Callable[[Any, Any], jax.Array]:
    """A function for `map_images`, bound to a snapshot of a network.

    Args:
      model: the network; K channels of its last feature map.

    Returns:
      Images (B, H, W, 3) in 0..255, and something that is ignored, -> pooled features (B, K) float32.
    """
    weights = Placed(fold_batchnorm(model))

    def pooled(images: np.ndarray | jax.Array, _: Any) -> jax.Array:
        return _pooled(weights.beside(images), images)

    return pooled


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
