"""The options that several commands and experiments have: one placeholder and one default each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from camjax.cli.network_choice import DEFAULT_METHOD, DEFAULT_MODEL, DEFAULT_THRESHOLD
from camjax.errors import InputError


def arg(metavar: str, default: bool | str = True):
    """An option with a placeholder for its value.

    `default=False` hides its default, which its sentence tells; words stand in place of None.
    """
    if default is True:
        return tyro.conf.arg(metavar=metavar)
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})" if default else "")


Count = Annotated[int, arg("N")]
Share = Annotated[float, arg("SHARE")]
Folder = Annotated[Path, arg("DIR")]
OptionalCount = Annotated[int | None, arg("N", default=False)]
OptionalRate = Annotated[float | None, arg("RATE", default=False)]
OptionalFolder = Annotated[Path | None, arg("DIR", default=False)]
OptionalPath = Annotated[Path | None, arg("PATH", default=False)]
OptionalName = Annotated[str | None, arg("NAME", default=False)]
Model = Annotated[str | None, arg("NAME|RUN|FILE", f"that of --weights, or {DEFAULT_MODEL}")]
NetworkOrRun = Annotated[str | None, arg("NAME|RUN", f"that of --weights, or {DEFAULT_MODEL}")]
Weights = Annotated[str | None, arg("FILE", default=False)]
Method = Annotated[str | None, arg("NAME", DEFAULT_METHOD)]
Threshold = Annotated[float | None, arg("SHARE", str(DEFAULT_THRESHOLD))]
TopK = Annotated[int, arg("K")]
Classes = Annotated[tuple[str, ...], arg("CLASS...", default=False)]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
"""An option without a value, off by default."""


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
