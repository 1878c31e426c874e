"""The options that several commands and experiments have: one placeholder and one default each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from camjax.errors import InputError


def arg(metavar: str, default: bool = True):
    """An option with a placeholder for its value; `default=False` hides its default, which its sentence tells."""
    return tyro.conf.arg(metavar=metavar) if default else tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Count = Annotated[int, arg("N")]
Share = Annotated[float, arg("SHARE")]
Folder = Annotated[Path, arg("DIR")]
OptionalCount = Annotated[int | None, arg("N", default=False)]
OptionalRate = Annotated[float | None, arg("RATE", default=False)]
OptionalFolder = Annotated[Path | None, arg("DIR", default=False)]
OptionalPath = Annotated[Path | None, arg("PATH", default=False)]
OptionalName = Annotated[str | None, arg("NAME", default=False)]
Weights = Annotated[str | None, arg("FILE", default=False)]


def at_least_one(options: object, *names: str) -> None:
    """Raises ValueError for the first of the named options that is below 1; None passes."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected at least 1.")


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Which processes share the work, on one machine or several.

    Attributes:
      coordinator: host:port of process 0, on machines that JAX can't join by itself; see docs/tpu_pods.md.
      num_processes: The number of processes that share the work; with --coordinator.
      process_id: The number of this process, from 0; with --coordinator.
    """

    coordinator: Annotated[str | None, arg("HOST:PORT", default=False)] = None
    num_processes: OptionalCount = None
    process_id: OptionalCount = None

    def __post_init__(self):
        missing = [value is None for value in (self.coordinator, self.num_processes, self.process_id)]
        if any(missing) and not all(missing):
            raise InputError("--coordinator, --num-processes, --process-id: all three, or none.")

    def join(self, *, preemption: bool = False) -> None:
        """Joins the other processes; before any use of JAX.

        Args:
          preemption: as in `camjax.training.initialize`, for what trains.
        """
        from camjax.processes import initialize

        initialize(self.coordinator, self.num_processes, self.process_id, preemption=preemption)


Processes = Annotated[ProcessOptions, tyro.conf.arg(name="")]
ALONE = ProcessOptions()
"""The default: this process alone, or those that JAX finds by itself."""
