"""Which examples a training batch is made of, without reading them."""

import grain
import numpy as np


def batch_indices(length: int, *, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The examples of a batch of `camjax.data.loader.train_batches`, over all processes.

    Args:
      length: of the source.
      batch_size: images in a global batch.
      seed: of the order, as in `train_batches`.
      step: the number of the batch, from 0.

    Returns:
      (batch_size,) int64 indices into the source, in the order of one process.
    """
    order = grain.MapDataset.range(length).seed(seed).shuffle().repeat()
    return np.array([order[i] for i in range(step * batch_size, (step + 1) * batch_size)], np.int64)
