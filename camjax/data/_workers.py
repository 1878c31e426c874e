"""Reads batches in threads or in worker processes, and makes sure that these end."""

import contextlib
import mmap
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Generator, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import recv_handle, send_handle
from multiprocessing.util import Finalize
from typing import Protocol

import cloudpickle
import grain
import numpy as np

_Batch = dict[str, np.ndarray]

_READY = 2
"""Number of finished batches that a worker holds besides those of its threads, each in memory that is used again."""

_Layout = dict[str, tuple[int, tuple[int, ...], str]]
"""Offset, shape and dtype of each array of a batch in memory."""


class BatchIterator(Protocol):
    """An iterator over batches."""

    def __iter__(self) -> Iterator[_Batch]: ...

    def __next__(self) -> _Batch: ...

    def close(self) -> None:
        """Ends threads and worker processes."""


def iterate(batches: grain.MapDataset, num_workers: int, num_threads: int) -> BatchIterator:
    """Iterates over batches that threads or worker processes compute ahead."""
    # Batched before to_iter_dataset: batching after it would deal examples instead of batches to the workers.
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
    return _FromWorkers(batches, num_workers, options) if num_workers else _from_threads(batches, options)


def _from_threads(batches: grain.MapDataset, options: grain.ReadOptions) -> Generator[_Batch, None, None]:
    with contextlib.closing(iter(batches.to_iter_dataset(options))) as iterator:
        yield from iterator


class _FromWorkers(Iterator[_Batch]):
    """Batches from worker processes in turn: worker i of n reads the batches i, i + n, ...

    `close()` may come from any thread; one that waits for a batch gets StopIteration then.
    """

    closes_while_read = True

    def __init__(self, batches: grain.MapDataset, num_workers: int, options: grain.ReadOptions):
        self._jobs = [cloudpickle.dumps((batches[i::num_workers], options)) for i in range(num_workers)]
        self._turn = 0
        # A process inherits the blocked signals of the thread that starts it. A worker that blocked them itself would
        # do so after its imports. The tracker would unblock them if it started in between.
        resource_tracker.ensure_running()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._workers = [_Worker() for _ in range(num_workers)]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        # Also when nothing refers to this any more, and at exit before multiprocessing waits for its processes.
        self._end = Finalize(self, _kill, [[worker.process for worker in self._workers]], exitpriority=1)

    def __next__(self) -> _Batch:
        try:
            if self._jobs:  # here, because sending waits for the imports of a worker if the job is large
                for worker, job in zip(self._workers, self._jobs, strict=True):
                    worker.connection.send_bytes(job)
                self._jobs = []
            answer = self._workers[self._turn % len(self._workers)].next()
        except (EOFError, OSError, RuntimeError) as error:  # half a message, among others
            answer = _death([worker.process for worker in self._workers], error) if self._end.still_active() else None
        except BaseException:
            self.close()
            raise
        if isinstance(answer, dict):
            self._turn += 1
            return answer
        self.close()
        raise StopIteration if answer is None else answer

    def close(self) -> None:
        self._end()


class _Worker:
    """A worker process, seen from this one.

    Batches come through memory that has no name: whoever is killed, the system frees it with its last process.
    """

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True, name="input-worker")
        self.process.start()
        theirs.close()  # so that this end closes when the worker dies
        self._memory: dict[int, mmap.mmap] = {}

    def next(self) -> _Batch | Exception | None:
        """The worker's next batch, its error, or None after its last batch.

        Raises:
          EOFError, OSError or RuntimeError: the worker has died.
        """
        answer = self.connection.recv()
        if answer is None:
            return None
        if isinstance(answer, bytes):
            return cloudpickle.loads(answer)
        number, layout, new_size = answer
        if new_size:
            self._memory[number] = _mapped(recv_handle(self.connection), new_size)
        batch = {name: array.copy() for name, array in _views(self._memory[number], layout).items()}
        self.connection.send(None)  # its memory is free again
        return batch


def _work(connection: Connection) -> None:
    """Reads batches, in a worker process."""
    _end_with_parent()
    answer: bytes | None = None
    memory: dict[int, mmap.mmap] = {}
    try:
        batches, options = cloudpickle.loads(connection.recv_bytes())
        for count, batch in enumerate(batches.to_iter_dataset(options)):
            number = count % _READY
            if count >= _READY:
                connection.recv()  # until this memory is free
            layout, size = _layout(batch)
            file = None
            if number not in memory or len(memory[number]) < size:
                file = _anonymous_file(size)
                memory[number] = _mapped(os.dup(file), size)
            for name, array in _views(memory[number], layout).items():
                array[...] = batch[name]
            sys.stdout.flush()  # this process ends by SIGKILL
            connection.send((number, layout, size if file else None))
            if file:
                send_handle(connection, file, os.getppid())
                os.close(file)
    except Exception as error:
        answer = _pickled(error)
    sys.stdout.flush()
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        connection.send(answer)
        while True:  # until the parent ends this process
            connection.recv()


def _layout(batch: _Batch) -> tuple[_Layout, int]:
    """Where each array of a batch lies in memory, and the bytes that all take."""
    layout, size = {}, 0
    for name, array in batch.items():
        layout[name] = (size, array.shape, array.dtype.str)
        size += -(-array.nbytes // 64) * 64  # aligned for any type
    return layout, size


def _views(memory: mmap.mmap, layout: _Layout) -> _Batch:
    return {name: np.ndarray(shape, kind, memory, offset) for name, (offset, shape, kind) in layout.items()}


def _anonymous_file(size: int) -> int:
    """A file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("camjax-batch")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file


def _mapped(file: int, size: int) -> mmap.mmap:
    """The memory of an open file, which is closed."""
    try:
        return mmap.mmap(file, size)
    finally:
        os.close(file)


def _pickled(error: Exception) -> bytes:
    """The error for the parent, with its traceback as a note."""
    note = "In an input worker:\n" + "".join(traceback.format_exception(error))
    error.add_note(note)
    try:
        pickled = cloudpickle.dumps(error)
        cloudpickle.loads(pickled)
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(note)
        pickled = cloudpickle.dumps(error)
    return pickled


def _death(workers: list[SpawnProcess], error: Exception) -> Exception:
    """The error that says which worker has died, and how; `error` itself if none has."""
    ended = wait([worker.sentinel for worker in workers], timeout=5)
    dead = next((worker for worker in workers if worker.sentinel in ended), workers[0])
    dead.join(timeout=5)
    if dead.exitcode is None:
        return error
    if dead.exitcode < 0:
        return ChildProcessError(
            f"An input worker (process {dead.pid}) was killed by {signal.Signals(-dead.exitcode).name}. The system "
            "sends SIGKILL when memory runs out: then use fewer workers (num_workers), or smaller batches."
        )
    return ChildProcessError(
        f"An input worker (process {dead.pid}) ended with exit code {dead.exitcode}; its output says why. A script "
        'that asks for workers has to keep its own work under `if __name__ == "__main__":`.'
    )


def _end_with_parent() -> None:
    """Ends this process with its parent: if that is killed, a read that hangs would keep it forever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait_for_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()


def _kill(processes: list[SpawnProcess]) -> None:
    """Ends workers at once. They own nothing, and one that is stopped or hangs in a read ends in no other way."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join(timeout=5)
