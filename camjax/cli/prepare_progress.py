"""The progress of tfds' builders, shown by rich: tfds reports it to tqdm, which this replaces."""

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from tensorflow_datasets.core.utils import tqdm_utils

from camjax.terminal import Console, TextColumn

_LINE_EVERY = 60  # seconds between two lines of a log
_MIB_AT_ONCE = 16


@contextlib.contextmanager
def prepare_progress(console: Console, counts: Mapping[str, int]) -> Iterator[None]:
    """Shows what tfds does inside this context: bars on a terminal; in a job's log, a line a minute.

    Args:
      console: where to show it.
      counts: the number of examples of each split, if known; tfds knows it only at the end.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), _Amount(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        before = tqdm_utils.tqdm_lib
        tqdm_utils.tqdm_lib = SimpleNamespace(tqdm=_Tqdm(progress, counts))
        try:
            yield
        finally:
            tqdm_utils.tqdm_lib = before


class _Amount(ProgressColumn):
    """How much is done, of how much, and how fast."""

    def render(self, task: Task) -> Text:
        return Text(_amount(task))


def _amount(task: Task) -> str:
    unit = task.fields["unit"]
    total = f"/{task.total:,.0f}" if task.total else ""
    speed = f", {task.speed:,.0f}{unit}/s" if task.speed else ""
    return f"{task.completed:,.0f}{total}{unit}{speed}"


class _Tqdm:
    """What tfds uses of the class tqdm.tqdm: calling it makes a bar."""

    def __init__(self, progress: Progress, counts: Mapping[str, int]):
        self.progress = progress
        self.last_line = time.monotonic()
        self._counts = counts
        self._split = ""
        self._lock = threading.RLock()

    def get_lock(self) -> threading.RLock:
        return self._lock

    def __call__(self, iterable: Iterable = (), *, desc: str = "", total: int | None = None, **_) -> "_Bar":
        if match := re.match(r"Generating (\S+) examples", desc):
            self._split = match[1]
            return _Bar(self, iterable, f"{self._split}: reading", total or self._counts.get(self._split))
        if desc.startswith("Shuffling"):
            return _Bar(self, iterable, f"{self._split}: writing", total)
        if desc.startswith("Dl Size"):
            return _Bar(self, iterable, "downloading", total, " MiB")
        return _Bar(self, iterable, "unpacking" if desc.startswith("Extraction") else "", total)


class _Bar:
    """What tfds uses of a tqdm bar. Those without a description, of a handful of files or splits, are not shown."""

    def __init__(self, owner: _Tqdm, iterable: Iterable, description: str, total: int | None, unit: str = ""):
        self._owner, self._progress, self._iterable = owner, owner.progress, iterable
        self._shown, self._unit, self._total = bool(description), unit, total
        self._task = self._progress.add_task(description, total=total, visible=False, unit=unit)

    def __iter__(self) -> Iterator:
        with self:
            for item in self._iterable:
                yield item
                self.update()

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_) -> None:
        self._progress.remove_task(self._task)

    @property
    def total(self) -> int | None:
        return self._total

    @total.setter
    def total(self, total: int) -> None:
        self._total = total
        self._progress.update(self._task, total=total)

    def update(self, n: int = 1) -> None:
        # tfds counts a download MiB by MiB, but adds a file that it has already in bytes, all at once.
        if self._unit and n > _MIB_AT_ONCE and self.total is not None:
            self.total -= n
            return
        self._progress.update(self._task, advance=n, visible=self._shown)
        console, now = self._progress.console, time.monotonic()
        if self._shown and not console.is_terminal and now - self._owner.last_line >= _LINE_EVERY:
            self._owner.last_line = now
            task = next(task for task in self._progress.tasks if task.id == self._task)
            console.print(f"{task.description} {_amount(task)}")

    def refresh(self) -> None:
        pass  # rich does this by itself
