"""The progress bar of a run."""

import contextlib
import sys

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from camjax.terminal import Console, TextColumn


class Bar(contextlib.AbstractContextManager["Bar"]):
    """A progress bar on stderr with the latest loss, accuracy and speed, and the remaining time.

    Where stderr is no terminal, as in a file or the log of a job, it has a plain line for each update in its place.

    Args:
      steps: of the run.
      start: number of steps that earlier processes took.
      shown: False shows nothing.
    """

    def __init__(self, steps: int, start: int, *, shown: bool):
        console = Console(stderr=True)
        self._steps, self._lines = steps, shown and not console.is_terminal
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=not shown or self._lines,
        )
        self._task = self._progress.add_task("compiling", total=steps, completed=start)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *exception) -> None:
        self._progress.stop()

    def update(self, step: int, means: dict[str, float]) -> None:
        """Moves the bar to a step."""
        text = "loss {loss:.3f}  accuracy {accuracy:.3f}  {images_per_second:.0f} images/s".format(**means)
        if self._lines:
            print(f"step {step}/{self._steps}  {text}", file=sys.stderr, flush=True)
        self._progress.update(self._task, completed=step, description=text)
