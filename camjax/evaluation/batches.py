"""The batches of an evaluation: images through every method on all devices, while annotations are read."""

import collections
import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from camjax.data.annotation import AnnotatedSource
from camjax.data.loader import Batch, eval_batches
from camjax.evaluation.options import Options
from camjax.evaluation.truth import Known, TruthReader
from camjax.inference import Localization
from camjax.metrics import Sample


class Computed(NamedTuple):
    """A batch, what is known about its images, and what each method found in them.

    Attributes:
      batch: of `camjax.data.loader.eval_batches`.
      known: what is known about the images.
      samples: method -> the batch for metrics; boxes are in the frame of the stored image.
    """

    batch: Batch
    known: Known
    samples: dict[str, Sample]


def computed_batches(
    source: AnnotatedSource,
    localize: Callable[[jax.Array, jax.Array], dict[str, Any]],
    options: Options,
    read_truth: TruthReader,
    *,
    image_size: tuple[int, int],
    start: int,
    num_workers: int,
    num_threads: int,
) -> Generator[Computed, None, None]:
    """Computes batch after batch; a batch is on the devices while the caller works on the one before.

    Args:
      source: the images.
      localize: images, labels -> method -> what it found for the top classes and for the label.
      options: of the evaluation.
      read_truth: reads annotations and masks, in threads.
      image_size: (H, W) to which images are resized.
      start: number of the first batch.
      num_workers: as in `eval_batches`.
      num_threads: as in `eval_batches`.
    """
    devices = jax.local_devices()
    waiting: collections.deque[tuple[Batch, Future[Known], list[dict[str, Any]]]] = collections.deque()
    with contextlib.ExitStack() as stack:
        batches = eval_batches(
            source,
            batch_size=options.batch_size,
            size=image_size,
            crop=options.crop,
            unreadable="mark",
            start_batch=start,
            num_workers=num_workers,
            num_threads=num_threads,
        )
        stack.enter_context(contextlib.closing(batches))
        pool = stack.enter_context(ThreadPoolExecutor(max(1, num_threads // 2)))
        for batch in batches:
            known = pool.submit(read_truth, batch)
            # The labels of the images go to the methods; annotations carry them too, and are checked there.
            images, labels = (np.split(batch[key], len(devices)) for key in ("image", "label"))
            parts = [jax.device_put(part, device) for *part, device in zip(images, labels, devices, strict=True)]
            waiting.append((batch, known, [localize(*part) for part in parts]))
            if len(waiting) > 1:
                yield _computed(*waiting.popleft(), options)
        while waiting:
            yield _computed(*waiting.popleft(), options)


def _computed(batch: Batch, known: Future[Known], of_devices: list[dict[str, Any]], options: Options) -> Computed:
    """Waits for a batch, and joins the results of all devices."""
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(of_devices))
    samples = {}
    for name in options.methods:
        top, asked = joined[name]
        if options.crop:
            top, asked = _in_image(top, batch["view"]), _in_image(asked, batch["view"])
        samples[name] = Sample(batch["image"], top, asked, known.result().truth)
    return Computed(batch, known.result(), samples)


def _in_image(out: Localization, view: np.ndarray) -> Localization:
    """The same with boxes of the stored image, in place of boxes of the view (B, 4) that the network saw."""
    corner = view[:, None, [0, 1, 0, 1]]
    extent = view[:, None, [2, 3, 2, 3]] - corner
    boxes = np.where(out.valid[..., None], np.clip(corner + out.boxes * extent, 0, 1), 0)
    return Localization(**{**out._asdict(), "boxes": boxes.astype(np.float32)})
