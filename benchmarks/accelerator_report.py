"""The figures of `benchmarks.accelerator`: each on its own line as it comes, and as a line of JSON."""

import json
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Report:
    """Where figures go.

    Attributes:
      out: a file that gets each figure as a line of JSON, too, or None.
      deadline: of the section that is measured, by `time.monotonic`.
      section: its name.
    """

    out: Path | None = None
    deadline: float = float("inf")
    section: str = ""

    def line(self, what: str, text: str, **figures: float) -> None:
        """Prints `what: text`, and adds both with the figures to the file."""
        print(f"{what}: {text}", flush=True)
        if self.out is not None:
            figures = {key: float(f"{value:.5g}") for key, value in figures.items()}
            with self.out.open("a") as file:
                file.write(json.dumps({"section": self.section, "what": what, "text": text, **figures}) + "\n")

    def fits(self, what: str, seconds: float) -> bool:
        """Whether the section has so many seconds left; if not, says that `what` is left out."""
        left = self.deadline - time.monotonic()
        if left < seconds:
            self.line(what, f"left out: it takes about {seconds:.0f} s, and the section has {max(0, left):.0f} s left")
        return left >= seconds
