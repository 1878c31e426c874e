"""The batches of an evaluation: images through every method on all devices, while annotations are read."""

import collections
import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from camjax.data.annotation import AnnotatedSource
from camjax.data.loader import Batch, eval_batches
from camjax.evaluation.options import Options
from camjax.evaluation.truth import Known, TruthReader
from camjax.inference import Localization


class TopAndAsked(NamedTuple):
    """What a method found in a batch.

    Attributes:
      top: for the most probable classes, by falling logit.
      asked: for the classes that were asked for.
    """

    top: Localization
    asked: Localization


class Computed(NamedTuple):
    """A batch, what is known about its images, and what each method found in them, in NumPy's arrays.

    Attributes:
      batch: of `camjax.data.loader.eval_batches`.
      known: what is known about the images.
      found: method -> what it found for the most probable classes and for the label, in the frame of the stored image.
    """

    batch: Batch
    known: Known
    found: dict[str, TopAndAsked]


def computed_batches(
    source: AnnotatedSource,
    methods: Mapping[str, Callable],
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
      methods: name -> `method(images, class_ids) -> Localization` of the top classes, then of class_ids.
      options: of the evaluation.
      read_truth: reads annotations and masks, in threads.
      image_size: (H, W) to which images are resized.
      start: number of the first batch.
      num_workers: as in `eval_batches`.
      num_threads: as in `eval_batches`.
    """
    devices = jax.local_devices()
    waiting: collections.deque[tuple[Batch, Future[Known], dict[str, list]]] = collections.deque()
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
            parts = [
                jax.device_put(part, device)
                for *part, device in zip(
                    *(np.split(batch[key], len(devices)) for key in ("image", "label")), devices, strict=True
                )
            ]
            outs = {name: [method(images, labels) for images, labels in parts] for name, method in methods.items()}
            waiting.append((batch, known, outs))
            if len(waiting) > 1:
                yield _computed(*waiting.popleft(), in_crop=options.crop is not None)
        while waiting:
            yield _computed(*waiting.popleft(), in_crop=options.crop is not None)


def _computed(batch: Batch, known: Future[Known], outs: Mapping[str, Sequence], in_crop: bool) -> Computed:
    """Waits for a batch, and joins the results of all devices."""
    found = {}
    for name, of_devices in outs.items():
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(of_devices))
        found[name] = _by_name(joined)
        if in_crop:
            found[name] = TopAndAsked(*(_in_image(out, batch["view"]) for out in found[name]))
    return Computed(batch, known.result(), found)


def _by_name(out: Localization) -> TopAndAsked:
    """The result of a method that was asked for one class, which stands last."""
    fields = out.class_ids, out.maps, out.boxes, out.valid
    return TopAndAsked(
        Localization(out.logits, *(field[:, :-1] for field in fields)),
        Localization(out.logits, *(field[:, -1:] for field in fields)),
    )


def _in_image(out: Localization, view: np.ndarray) -> Localization:
    """The same with boxes of the stored image, in place of boxes of the view (B, 4) that the network saw."""
    corner = view[:, None, [0, 1, 0, 1]]
    extent = view[:, None, [2, 3, 2, 3]] - corner
    boxes = np.where(out.valid[..., None], np.clip(corner + out.boxes * extent, 0, 1), 0)
    return Localization(**{**out._asdict(), "boxes": boxes.astype(np.float32)})
