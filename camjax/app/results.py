"""What `camjax evaluate` and `camjax annotate` left in a directory, picture by picture, the worst first."""

import abc
import csv
import functools
import math
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired

import cv2
import numpy as np
from typing_extensions import TypedDict

from camjax.addresses import local_path
from camjax.annotating import manifest
from camjax.app.cache import Cache
from camjax.app.pictures import jpeg
from camjax.data.annotated import open_annotated
from camjax.data.annotation import AnnotatedSource
from camjax.data.image_files import read_stored_image
from camjax.data.images import shrink_image
from camjax.errors import InputError, reading
from camjax.json_files import read_json

PAGE = 24
"""Pictures on a page."""
_THUMBNAIL_SIDE = 480
_KEPT_BYTES = 64 << 20
ORDERS = ("worst", "best", "listed")


class Results(abc.ABC):
    """Pictures with boxes, in an order and by pages, whatever command wrote them.

    Attributes:
      title: the directory.
      kind: of command.
      measures: name -> (n,) float, how good each picture's box is; NaN where that is not known.
      names: (n,) of the files.
      rows_of_class: class id -> the pictures that have it.
      class_names: of the classes.
    """

    kind: Literal["evaluation", "annotation"]
    measures: Mapping[str, np.ndarray]
    names: Sequence[str]
    rows_of_class: Mapping[int, np.ndarray]
    class_names: Sequence[str] | None

    def __init__(self, directory: Path):
        self.title = str(directory)
        self._thumbnails: Cache[bytes] = Cache(_KEPT_BYTES)

    def page(
        self, *, measure: str = "", order: str = "worst", class_id: int | None = None, only: str = "", page: int = 0
    ) -> dict[str, Any]:
        """The pictures of a page, in JSON's types.

        Args:
          measure: of `measures`; "" for the first.
          order: of `ORDERS`: by the measure, or as the files list the pictures.
          class_id: only pictures of this class; None for all.
          only: one of `self.choices()`; "" for all.
          page: from 0; one past the last is the last.
        """
        measure = measure or next(iter(self.measures))
        if measure not in self.measures or order not in ORDERS:
            raise InputError(f"measure {measure!r}, order {order!r}: expected one that the page offers.")
        rows = np.arange(len(self.names)) if class_id is None else self.rows_of_class.get(class_id, np.zeros(0, int))
        if only:
            if only not in self.choices():
                raise InputError(f"only {only!r}: expected one of {', '.join(self.choices())}.")
            rows = rows[self.chosen(only)[rows]]
        if order != "listed":
            keys = self.badness(measure)[rows]
            best = np.where(keys < 0, 10 - keys, keys)  # what has no measure comes last in both orders
            rows = rows[np.argsort(best if order == "best" else -keys, kind="stable")]
        pages = max(1, math.ceil(len(rows) / PAGE))
        page = min(page, pages - 1)
        return {
            "kind": self.kind,
            "title": self.title,
            "facts": self.facts(),
            "measures": list(self.measures),
            "choices": self.choices(),
            "classes": [
                {"id": i, "name": self.name_of(i), "pictures": len(of)} for i, of in sorted(self.rows_of_class.items())
            ],
            "total": len(rows),
            "page": page,
            "pages": pages,
            "first": page * PAGE,
            "rows": [self.row(int(i), measure) for i in rows[page * PAGE : (page + 1) * PAGE]],
        }

    def thumbnail(self, row: int) -> bytes:
        """A picture as a page shows it, a JPEG file; raises InputError or OSError if it can't be read."""
        if (kept := self._thumbnails.get(row)) is None:
            kept = jpeg(shrink_image(self.pixels(self._checked(row)), _THUMBNAIL_SIDE))
            self._thumbnails.put(row, kept, len(kept))
        return kept

    def file(self, row: int) -> tuple[str, bytes]:
        """The name of a picture and its stored pixels as a PNG file, to look at its maps."""
        pixels = self.pixels(self._checked(row))
        return self.names[row], cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()

    def name_of(self, class_id: int) -> str:
        """The name of a class."""
        return f"class {class_id}" if self.class_names is None else self.class_names[class_id]

    def _checked(self, row: int) -> int:
        if not 0 <= row < len(self.names):
            raise InputError(f"picture {row}: {self.title} has {len(self.names)} pictures.")
        return row

    @abc.abstractmethod
    def facts(self) -> str:
        """What the whole is, in a sentence or two."""

    @abc.abstractmethod
    def choices(self) -> dict[str, str]:
        """Value -> words of what the pictures can be narrowed to."""

    @abc.abstractmethod
    def chosen(self, only: str) -> np.ndarray:
        """(n,) bool: the pictures of a choice."""

    @abc.abstractmethod
    def badness(self, measure: str) -> np.ndarray:
        """(n,) float: the larger, the worse; negative for pictures that the measure says nothing about."""

    @abc.abstractmethod
    def row(self, row: int, measure: str) -> dict[str, Any]:
        """A picture in JSON's types: row, name, title, note, wrong, predicted and true boxes with their words."""

    @abc.abstractmethod
    def pixels(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the stored pixels, not turned by an EXIF tag, as boxes refer to them."""


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
        self.rows_of_class = _grouped(self._label)

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


class _Image(TypedDict):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(TypedDict):
    image_id: int
    category_id: int
    bbox: list[float]
    score: NotRequired[float]


class _Category(TypedDict):
    id: int
    name: str


class _Coco(TypedDict):
    """Of `coco.json`: what is read of COCO's format for detection."""

    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class AnnotationResults(Results):
    """What `camjax annotate` left: by the best score of a picture's boxes."""

    kind = "annotation"

    def __init__(self, directory: Path):
        super().__init__(directory)
        advice = "Run camjax annotate again."
        if not (directory / manifest.NAME).is_file():
            raise FileNotFoundError(
                f"{directory / manifest.NAME} is missing, which is written last: the annotation is not finished. Go "
                "on with it by the same command."
            )
        found = manifest.read(directory)
        coco = read_json(directory / "coco.json", _Coco, advice=advice)
        self._folder = Path(found["folder"])
        self._sizes = [(image["height"], image["width"]) for image in coco["images"]]
        reasons = {one["file"]: one["reason"] for one in found["unreadable"]}
        self.names = [image["file_name"] for image in coco["images"]] + list(reasons)
        self._reasons = list(reasons.values())
        row_of = {image["id"]: row for row, image in enumerate(coco["images"])}
        self._annotations: defaultdict[int, list[_Annotation]] = defaultdict(list)
        scores = np.full(len(self.names), np.nan)
        ids: list[int] = []
        rows: list[int] = []
        with reading(directory / "coco.json", "an annotation in COCO's format", advice):
            for one in coco["annotations"]:
                row = row_of[one["image_id"]]
                self._annotations[row].append(one)
                scores[row] = np.fmax(scores[row], one.get("score", np.nan))
                ids.append(one["category_id"])
                rows.append(row)
        self._category = {category["id"]: category["name"] for category in coco["categories"]}
        self.measures = {"score": scores}
        self.rows_of_class = {i: np.unique(np.array(rows)[of]) for i, of in _grouped(np.array(ids, int)).items()}
        self.class_names = None
        if unknown := self.rows_of_class.keys() - self._category.keys():
            raise InputError(f"{directory / 'coco.json'}: category {min(unknown)} has no name. {advice}")

    def name_of(self, class_id: int) -> str:
        """See `Results`."""
        return self._category[class_id]

    def facts(self) -> str:
        """See `Results`."""
        boxes = sum(map(len, self._annotations.values()))
        unreadable = f", {len(self._reasons)} that can't be read" if self._reasons else ""
        return f"Pictures in {self._folder}: {len(self.names)}{unreadable}. {boxes} boxes."

    def choices(self) -> dict[str, str]:
        """See `Results`."""
        return {"boxes": "with a box", "none": "without a box", "uncounted": "can't be read"}

    def chosen(self, only: str) -> np.ndarray:
        """See `Results`."""
        rows = np.arange(len(self.names))
        if only == "uncounted":
            return rows >= len(self._sizes)
        having = np.isin(rows, list(self._annotations))
        return having if only == "boxes" else ~having & (rows < len(self._sizes))

    def badness(self, measure: str) -> np.ndarray:
        """Pictures without a box, then by the score; at the end those that can't be read."""
        having = np.isin(np.arange(len(self.names)), list(self._annotations))
        worst = np.where(having, 1 - np.nan_to_num(self.measures[measure]), 2.0)
        return np.where(np.arange(len(self.names)) < len(self._sizes), worst, -1.0)

    def row(self, row: int, measure: str) -> dict[str, Any]:
        """See `Results`."""
        readable = row < len(self._sizes)
        boxes: list[dict[str, Any]] = []
        for one in self._annotations.get(row, ()):
            x, y, width, height = one["bbox"]
            rows, columns = self._sizes[row]
            score = one.get("score")
            words = self.name_of(one["category_id"]) + ("" if score is None else f", score {score:.2f}")
            boxes.append({"box": [y / rows, x / columns, (y + height) / rows, (x + width) / columns], "words": words})
        return {
            "row": row,
            "name": self.names[row],
            "title": "; ".join(box["words"] for box in boxes) or ("no box" if readable else "can't be read"),
            "words": "",
            "note": "" if readable else self._reasons[row - len(self._sizes)],
            "wrong": False,
            "predicted": boxes,
            "true": [],
            "readable": readable,
        }

    def pixels(self, row: int) -> np.ndarray:
        """See `Results`; raises InputError for a name that leads out of the folder."""
        path = (self._folder / self.names[row]).resolve()
        if not path.is_relative_to(self._folder.resolve()):
            raise InputError(f"{self.names[row]} leads out of {self._folder}: the picture is not shown.")
        return read_stored_image(path)


def _grouped(values: np.ndarray) -> dict[int, np.ndarray]:
    """Value -> where it is."""
    order = np.argsort(values, kind="stable")
    found, starts = np.unique(values[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True)) if len(values) else {}
