"""What `camjax annotate` left: by the best score of a picture's boxes."""

from collections import defaultdict
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from typing_extensions import TypedDict

from camjax.annotating import manifest
from camjax.app.result_pages import Results, grouped
from camjax.data.image_files import read_stored_image
from camjax.errors import InputError, reading
from camjax.json_files import read_json


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
        self.rows_of_class = {i: np.unique(np.array(rows)[of]) for i, of in grouped(np.array(ids, int)).items()}
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
