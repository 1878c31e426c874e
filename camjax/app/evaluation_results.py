"""What `camjax evaluate` left: by the IoU of the box of the true class, method by method."""

import csv
import functools
import threading
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from typing_extensions import TypedDict

from camjax.app.result_pages import Results, grouped
from camjax.data.annotated import open_annotated
from camjax.data.annotation import AnnotatedSource
from camjax.errors import InputError, reading
from camjax.json_files import read_json


class _Pictures(TypedDict):
    """The arguments of `open_annotated`, with absolute paths."""

    dataset: str
    split: str
    data_dir: str | None
    boxes: str | None
    blacklist: str | None
    lists: str | None
    masks: str | None


class _EvaluationSummary(TypedDict):
    """Of `results.json`; an older camjax did not write the last fields."""

    model: str
    dataset: str
    split: str
    num_images: int
    images: dict[str, int]
    results: dict[str, dict[str, dict[str, float]]]
    class_names: NotRequired[list[str]]
    pictures: NotRequired[_Pictures]


class EvaluationResults(Results):
    """What `camjax evaluate` left: by the IoU of the box of the true class, method by method."""

    kind = "evaluation"

    def __init__(self, directory: Path):
        super().__init__(directory)
        advice = "Run the evaluation again."
        self._summary = read_json(directory / "results.json", _EvaluationSummary, advice=advice)
        self.class_names = self._summary.get("class_names")
        self._opening = threading.Lock()
        methods = list(self._summary["results"])
        table = directory / "images.csv"
        if not table.exists():
            raise FileNotFoundError(f"{table} is missing: it has the pictures of the evaluation.")
        with reading(table, "a table of `camjax evaluate`", advice), table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if len(rows) != self._summary["num_images"]:
            raise InputError(
                f"{table} has {len(rows)} pictures, and results.json is of "
                f"{self._summary['num_images']}: they are not of one evaluation. Go on with it by --resume, or run it "
                "again."
            )
        with reading(table, "a table of `camjax evaluate`", advice):
            rows.sort(key=lambda row: int(row["index"]))
            self.names = [row["filename"] for row in rows]
            self._index = [int(row["index"]) for row in rows]
            self._status = np.array([row["status"] for row in rows])
            self._label = np.array([int(row["label"]) for row in rows])
            self._prediction = np.array([int(row["prediction"] or -1) for row in rows])
            self.measures = {m: np.array([float(row[f"{m}_iou"] or "nan") for row in rows]) for m in methods}
            edges = {m: [f"{m}_{edge}" for edge in ("ymin", "xmin", "ymax", "xmax")] for m in methods}
            self._boxes = {
                m: np.array([[float(row.get(edge) or "nan") for edge in of] for row in rows], np.float32).reshape(-1, 4)
                for m, of in edges.items()
            }
        if self.class_names is not None and rows:
            highest = max(self._label.max(), self._prediction.max())
            if highest >= len(self.class_names):
                raise InputError(f"{table}: class {highest} has no name in results.json. {advice}")
        self.rows_of_class = grouped(self._label)

    def facts(self) -> str:
        """See `Results`."""
        summary = self._summary
        counts = ", ".join(f"{count} {status}" for status, count in summary["images"].items() if count)
        return f"{summary['model']} on {summary['dataset']}, {summary['split']}. {len(self.names)} pictures: {counts}."

    def choices(self) -> dict[str, str]:
        """See `Results`."""
        return {
            "wrong": "wrong class",
            "right": "right class",
            "missed": "IoU below 0.5",
            "uncounted": "not counted",
        }

    def chosen(self, only: str) -> np.ndarray:
        """See `Results`."""
        counted = self._prediction >= 0
        if only == "uncounted":
            return ~counted
        if only == "missed":
            return functools.reduce(np.logical_or, (ious < 0.5 for ious in self.measures.values()))
        return counted & ((self._prediction == self._label) == (only == "right"))

    def badness(self, measure: str) -> np.ndarray:
        """First by IoU; then pictures without true boxes, of a wrong class first; at the end those not counted."""
        ious = self.measures[measure]
        otherwise = np.where(self._prediction < 0, -3.0, np.where(self._prediction == self._label, -2.0, -1.0))
        return np.where(np.isnan(ious), otherwise, 1 - ious)

    def row(self, row: int, measure: str) -> dict[str, Any]:
        """See `Results`."""
        iou, prediction, label = self.measures[measure][row], int(self._prediction[row]), int(self._label[row])
        box = self._boxes[measure][row]
        true, note = self._true_boxes(row)
        words = [] if np.isnan(iou) else [f"IoU {iou:.2f}"]
        if prediction >= 0:
            words.append("class right" if prediction == label else f"taken for {self.name_of(prediction)}")
        else:
            note = str(self._status[row])
        return {
            "row": row,
            "name": self.names[row],
            "title": self.name_of(label),
            "words": ", ".join(words),
            "note": note,
            "wrong": prediction >= 0 and prediction != label,
            "predicted": [] if np.isnan(box).any() else [{"box": box.tolist(), "words": measure}],
            "true": [{"box": of, "words": "true box"} for of in true],
            "readable": prediction >= 0,
        }

    def pixels(self, row: int) -> np.ndarray:
        """See `Results`."""
        return self._source[self._index[row]]["image"]

    def _true_boxes(self, row: int) -> tuple[list[list[float]], str]:
        """The true boxes of a picture, or why there are none to show."""
        if self._prediction[row] < 0:
            return [], ""
        try:
            annotation = self._source.annotation(self._index[row])
        except (InputError, OSError, IndexError) as error:
            return [], str(error)
        if annotation.filename != self.names[row]:
            return [], f"It is now {annotation.filename}: the data set has changed since the evaluation."
        return annotation.boxes.tolist(), ""

    @property
    def _source(self) -> AnnotatedSource:
        """The data set; raises InputError if it can't be opened."""
        with self._opening:
            opened = self._opened
        if isinstance(opened, str):
            raise InputError(opened)
        return opened

    @functools.cached_property
    def _opened(self) -> AnnotatedSource | str:
        """The data set, or why it can't be opened."""
        given = self._summary.get("pictures")
        if given is None:
            return (
                "An older camjax wrote this evaluation, without the place of its pictures: evaluate again to see them."
            )
        arguments: dict[str, Any] = {**given}
        try:
            return open_annotated(**arguments)
        except (InputError, OSError, ImportError) as error:
            return str(error)
