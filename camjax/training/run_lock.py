"""The lock of a run's directory: one run at a time trains in it."""

from contextlib import AbstractContextManager
from pathlib import Path

from camjax.locks import directory_lock


def run_lock(directory: Path) -> AbstractContextManager[None]:
    """Holds the lock of a directory, for the first process of a run; see `camjax.locks.directory_lock`."""
    return directory_lock(directory, "run", "trains in it. Wait until it has ended, or give another run_dir.")
