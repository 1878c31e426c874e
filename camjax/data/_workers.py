"""Reads batches in threads or Grain worker processes, and makes sure that these end."""

import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker

import grain
import numpy as np
from absl import flags
from grain.multiprocessing import SharedMemoryArray

_Batch = dict[str, np.ndarray]

_RUNNING: weakref.WeakSet = weakref.WeakSet()


def iterate(batches: grain.MapDataset, num_workers: int, num_threads: int) -> Generator[_Batch, None, None]:
    """Iterates over batches that threads or worker processes compute ahead; its `close()` ends those."""
    # Batched before to_iter_dataset: batching after it would deal examples instead of batches to the workers.
    read_options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
    dataset = batches.to_iter_dataset(read_options)
    if num_workers:
        if not flags.FLAGS.is_parsed():
            # Grain's workers read their options from absl's flags, which only programs started by absl have parsed.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=num_workers)
        dataset = dataset.mp_prefetch(options, worker_init_fn=_end_with_parent)
    generator = (_from_workers if num_workers else _from_threads)(iter(dataset))
    _RUNNING.add(generator)
    return generator


@atexit.register
def _close_running() -> None:
    """Closes what nobody closed: workers that end together with the interpreter leak their shared memory."""
    for generator in list(_RUNNING):
        with contextlib.suppress(ValueError):  # another thread is inside of it
            generator.close()


def _from_threads(iterator: grain.DatasetIterator) -> Generator[_Batch, None, None]:
    with contextlib.closing(iterator):
        yield from iterator


def _from_workers(iterator: grain.DatasetIterator) -> Generator[_Batch, None, None]:
    with contextlib.ExitStack() as stack:
        stack.callback(_wait_for_shared_memory)
        stack.enter_context(contextlib.closing(iterator))
        batch = _start(iterator)
        while batch is not None:
            # Shared memory lives as long as the array and leaks when a run is killed: return a copy, and keep no other.
            batch = {key: np.array(value) for key, value in batch.items()}
            yield batch
            batch = next(iterator, None)


def _start(iterator: grain.DatasetIterator) -> _Batch | None:
    """Starts the workers, and returns the first batch, if there is one."""
    # A process inherits the blocked signals of the thread that starts it. A worker that blocked them itself would do so
    # after its imports, and one that dies in them can leave this process waiting forever. A thread of its own, because
    # the first batch takes seconds, in which the caller should hear Ctrl-C.
    block = functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    resource_tracker.ensure_running()  # started in that thread it would unblock them
    with ThreadPoolExecutor(1, thread_name_prefix="start-workers", initializer=block) as starter:
        return starter.submit(next, iterator, None).result()


def _end_with_parent(worker_index: int, worker_count: int) -> None:
    """Ends a worker with its parent: if that is killed, the worker would wait for it forever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _wait_for_shared_memory() -> None:
    """Waits until the shared memory of all released batches is freed, which the interpreter's end cuts off."""
    # Grain frees it in one thread, and has no public way to wait for that (google/grain#398): a task put in now comes
    # after all others. It takes milliseconds. Remove this once Grain's `close()` waits.
    thread = getattr(SharedMemoryArray, "_del_thread_pool", None)
    if thread is not None:
        thread.apply_async(int).wait(timeout=10)
