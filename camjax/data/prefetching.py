"""Moving batches to the device while the previous step is still computing."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from camjax.errors import InputError

Item = TypeVar("Item")
Started = TypeVar("Started")


class Prefetched(Iterator):
    """The iterator that `prefetch` returns; a context manager calls its `close()`."""

    def __init__(self, batches: Iterator, put: Callable[[Any], Any], size: int):
        if size < 1:
            raise InputError(f"size is {size}; expected a number of batches, at least 1")
        self._batches = batches
        self._put = put
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._ahead: collections.deque[Future] = collections.deque()
        for _ in range(size):
            self._start_next()

    def __next__(self):
        if not self._ahead:
            raise StopIteration
        # Removed only after this: an error, or the StopIteration at the end, stays for all later calls.
        batch = self._ahead[0].result()
        self._ahead.popleft()
        self._start_next()
        return batch

    def __enter__(self) -> "Prefetched":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread after its current batch, and closes the batches; a second call does nothing."""
        self._ahead.clear()
        close = getattr(self._batches, "close", lambda: None)
        if getattr(self._batches, "closes_while_read", False):
            close()  # first, because the thread may wait for a worker process that does not answer
        self._thread.shutdown(cancel_futures=True)
        close()

    def _start_next(self) -> None:
        self._ahead.append(self._thread.submit(_next_put, self._batches, self._put))


def prefetch(batches: Iterator, put: Callable[[Any], Any], size: int = 2) -> Prefetched:
    """Applies `put` to batches ahead of time, in a background thread.

    With a `put` that starts a transfer to the device, reading, copying and transferring a batch overlap with the
    previous step. At most `size` batches are ahead, and take memory.

        with prefetch(train_batches(source, ...), jax.device_put) as batches:
            for batch in batches: ...

    Args:
      batches: from `camjax.data.loader`, or any iterator. Only the thread may use it from now on; `close()` closes it.
      put: what to do with a batch, such as `jax.device_put`. JAX's context managers, such as `jax.default_device`, do
        not apply in the thread: name devices or shardings.
      size: how many batches are ahead.

    Returns:
      An iterator of what `put` returns, in order. An error in `batches` or `put` is raised in its turn, and by each
      later call.

    Raises:
      ValueError: `size` below 1.
    """
    return Prefetched(batches, put, size)


def overlapped(
    items: Iterable[Item], start: Callable[[Item], Started], ahead: int = 1
) -> Iterator[tuple[Item, Started]]:
    """Starts work on each item before the caller waits for the one before: devices compute while results are used.

    Args:
      items: such as batches.
      start: starts the work, such as a call of a jitted function, and returns what will hold its result.
      ahead: how many items are started beyond the one that the caller gets. Each takes memory.

    Yields:
      Each item with what `start` returned, in order.
    """
    waiting: collections.deque[tuple[Item, Started]] = collections.deque()
    for item in items:
        waiting.append((item, start(item)))
        if len(waiting) > ahead:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def _next_put(batches: Iterator, put: Callable[[Any], Any]):
    # Not a method: the thread should not keep the iterator alive.
    return put(next(batches))
