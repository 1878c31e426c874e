"""Opens what `camjax evaluate` or `camjax annotate` left in a directory."""

from pathlib import Path

from camjax.addresses import local_path
from camjax.app.annotation_results import AnnotationResults
from camjax.app.evaluation_results import EvaluationResults
from camjax.app.result_pages import Results


def open_results(directory: Path) -> Results:
    """Opens what a command left in a directory.

    Raises:
      FileNotFoundError: the directory has no files of these commands, or not all of them.
      InputError: a file is damaged.
    """
    local_path(directory, "results in")
    if (directory / "results.json").is_file():
        return EvaluationResults(directory)
    if (directory / "coco.json").is_file():
        return AnnotationResults(directory)
    raise FileNotFoundError(
        f"{directory} is nothing that camjax app can show: expected a run (run.json), what `camjax evaluate` wrote at "
        "its end (results.json), or `camjax annotate` (coco.json)."
    )
