"""The batches of an evaluation: images through every method on all devices, while annotations are read."""

import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from camjax.data.annotation import AnnotatedSource
from camjax.data.loader import Batch, eval_batches
from camjax.data.prefetching import overlapped
from camjax.evaluation.truth import Known
from camjax.inference import TopAndAsked
from camjax.metrics import Sample
from camjax.outputs import Localization


class Computed(NamedTuple):
    """A batch, what is known about its images, and what each method found in them.

    Attributes:
      batch: of `camjax.data.eval_batches`.
      known: what is known about its images.
      samples: method -> the batch for metrics; boxes are in the frame of the stored image.
    """

    batch: Batch
    known: Known
    samples: dict[str, Sample]


def computed_batches(
    source: AnnotatedSource,
    localize: Callable[[jax.Array, jax.Array], dict[str, TopAndAsked]],
    read_truth: Callable[[Batch], Known],
    *,
    crop: Literal["center"] | None,
    num_threads: int,
    **options: Any,
) -> Generator[Computed, None, None]:
    """Computes batch after batch; a batch is on the devices while the caller works on the one before.

    Args:
      source: the images.
      localize: images, labels -> method -> what it found for the top classes and for the label.
      read_truth: reads annotations and masks; called in threads.
      crop: as in `eval_batches`.
      num_threads: as in `eval_batches`.
      **options: other options of `eval_batches`.
    """
    devices = jax.local_devices()
    with contextlib.ExitStack() as stack:
        batches = eval_batches(source, crop=crop, unreadable="mark", num_threads=num_threads, **options)
        stack.enter_context(contextlib.closing(batches))
        pool = stack.enter_context(ThreadPoolExecutor(max(1, num_threads // 2)))

        def start(batch: Batch) -> tuple[Future[Known], list[dict[str, TopAndAsked]]]:
            known = pool.submit(read_truth, batch)
            # The labels of the images go to the methods; annotations carry them too, and are checked there.
            images, labels = (np.split(batch[key], len(devices)) for key in ("image", "label"))
            parts = [jax.device_put(part, device) for *part, device in zip(images, labels, devices, strict=True)]
            return known, [localize(*part) for part in parts]

        for batch, (known, by_device) in overlapped(batches, start):
            yield _computed(batch, known, by_device, crop)


def _computed(
    batch: Batch, known: Future[Known], by_device: list[dict[str, TopAndAsked]], crop: str | None
) -> Computed:
    """Waits for a batch, and joins the results of all devices."""
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(by_device))
    samples = {}
    for name in by_device[0]:  # in the order of the methods: `joined` is sorted
        top, asked = joined[name]
        if crop:
            asked = _in_image(asked, batch["view"])
        samples[name] = Sample(batch["image"], top, asked, known.result().truth)
    return Computed(batch, known.result(), samples)


def _in_image(out: Localization, view: np.ndarray) -> Localization:
    """Moves boxes from the view (B, 4), which the network saw, to the stored image."""
    corner = view[:, None, [0, 1, 0, 1]]
    extent = view[:, None, [2, 3, 2, 3]] - corner
    boxes = np.where(out.valid[..., None], np.clip(corner + out.boxes * extent, 0, 1), 0)
    return Localization(**{**out._asdict(), "boxes": boxes.astype(np.float32)})
