import gc
import threading
import weakref

import numpy as np
import pytest

from camjax.data.loader import train_batches
from camjax.data.prefetching import prefetch

SOON = 30  # seconds that nothing here takes, unless it hangs


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert prefetching() == []


class Batches:
    """An iterator over 0, 1, 2, ... that knows whether it was closed, and may fail at one place."""

    def __init__(self, count, fails_at=None):
        self._numbers, self._fails_at, self.closed = iter(range(count)), fails_at, False

    def __iter__(self):
        return self

    def __next__(self):
        number = next(self._numbers)
        if number == self._fails_at:
            raise OSError(f"batch {number} is gone")
        return number

    def close(self):
        self.closed = True


def test_all_batches_come_in_order_as_put_returns_them():
    source = Batches(20)
    with prefetch(source, lambda number: number * 10) as batches:
        assert list(batches) == list(range(0, 200, 10))
        assert list(batches) == []
    assert source.closed


def test_put_runs_while_the_batch_before_is_used():
    started = [threading.Event() for _ in range(10)]
    may_end = threading.Semaphore(0)

    def slow_put(number):
        started[number].set()
        assert may_end.acquire(timeout=SOON)
        return number

    with prefetch(Batches(10), slow_put) as batches:
        for number in range(10):
            may_end.release()
            assert next(batches) == number
            # The caller is "computing" now, and the next put is under way, though nobody has asked for it.
            if number < 9:
                assert started[number + 1].wait(SOON)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_so_many_batches_are_ahead_and_no_more(size):
    put = [threading.Event() for _ in range(10)]
    with prefetch(Batches(10), lambda number: put[number].set(), size=size) as batches:
        for taken in range(10 - size):
            assert put[taken + size - 1].wait(SOON)
            assert not put[taken + size].wait(0.02)
            next(batches)


def test_put_runs_in_one_other_thread():
    with prefetch(Batches(6), lambda _: threading.current_thread()) as batches:
        threads = set(batches)
    assert len(threads) == 1 and threading.main_thread() not in threads


@pytest.mark.parametrize("fails_at", [0, 1, 4])
def test_an_error_of_the_batches_comes_at_its_place_and_stays(fails_at):
    with prefetch(Batches(9, fails_at), str) as batches:
        assert [next(batches) for _ in range(fails_at)] == [str(number) for number in range(fails_at)]
        for _ in range(2):
            with pytest.raises(OSError, match=f"batch {fails_at} is gone"):
                next(batches)


def test_an_error_of_put_comes_at_its_place_and_stays():
    with prefetch(Batches(9), lambda number: 12 // (3 - number)) as batches:
        assert [next(batches) for _ in range(3)] == [4, 6, 12]
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                next(batches)


def test_close_waits_for_the_thread_and_closes_the_batches():
    source, entered, leave = Batches(9), threading.Event(), threading.Event()

    def put(number):
        assert not source.closed
        entered.set()
        assert leave.wait(SOON)
        return number

    batches = prefetch(source, put)
    assert entered.wait(SOON)
    threading.Timer(0.1, leave.set).start()
    batches.close()
    assert prefetching() == [] and source.closed
    assert list(batches) == []
    batches.close()


def test_nothing_holds_what_was_dropped_without_close():
    gc.freeze()  # so that only what is made from here on is looked through
    source = Batches(9)
    batches = prefetch(source, lambda number: number)
    next(batches)
    dropped, (thread,) = weakref.ref(source), prefetching()
    del batches, source
    gc.collect()
    thread.join(SOON)
    gc.collect()
    assert not thread.is_alive() and dropped() is None


def test_the_loader_ends_with_it():
    source = [{"image": np.full((2, 2, 3), i, np.uint8), "label": i} for i in range(8)]
    before = set(threading.enumerate())
    with prefetch(train_batches(source, batch_size=4, seed=0), lambda batch: batch["label"].tolist()) as batches:
        assert sorted(next(batches) + next(batches)) == list(range(8))
    for thread in set(threading.enumerate()) - before:
        thread.join(SOON)  # Grain tells its threads to end, and does not wait for them
        assert not thread.is_alive()


def test_an_iterator_without_close():
    with prefetch(iter([1, 2]), str) as batches:
        assert list(batches) == ["1", "2"]


def test_size_is_at_least_one():
    with pytest.raises(ValueError, match="size is 0; expected a number of batches, at least 1"):
        prefetch(Batches(1), str, size=0)
