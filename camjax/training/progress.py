"""The progress bar of a run."""

import contextlib

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from camjax.terminal import Console, TextColumn


class Bar(contextlib.AbstractContextManager["Bar"]):
    """A progress bar on stderr with the latest loss, accuracy and speed, and the remaining time.

    Args:
      steps: of the run.
      start: number of steps that earlier processes took.
      shown: False shows nothing.
    """

    def __init__(self, steps: int, start: int, *, shown: bool):
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
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
        self._progress.update(self._task, completed=step, description=text)
