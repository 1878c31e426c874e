"""Boxes as MS COCO's JSON, for detection: https://cocodataset.org/#format-data."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from camjax.annotating.finished import Finished
from camjax.annotating.json_lines import write_object


def write(path: Path, finished: Finished) -> None:
    """Writes images, annotations and categories.

    - An image's `id` is its place among all pictures, from 1; its `file_name` is relative to the folder of pictures.
    - A category's `id` is the class's plus 1, since tools take 0 for the background.
    - An annotation has COCO's `bbox` `[x, y, width, height]` in pixels of the stored picture, and also a `score`, as
      COCO's format of results has: pycocotools reads the file by `COCO(path)`, and
      `coco.loadRes(coco.dataset["annotations"])` takes its boxes as results.

    Pictures that can't be read are left out; the manifest has them.
    """
    write_object(
        path,
        {
            "info": {"description": "Boxes from class activation maps, by camjax"},
            "licenses": [],
            "categories": [
                {"id": i + 1, "name": name, "supercategory": ""} for i, name in enumerate(finished.names.shown)
            ],
            "images": _images(finished),
            "annotations": _annotations(finished),
        },
    )


def _images(finished: Finished) -> Iterator[dict]:
    for number, picture in enumerate(finished.pictures(), 1):
        if not picture.unreadable:
            height, width = picture.size
            yield {"id": number, "file_name": picture.name, "width": width, "height": height}


def _annotations(finished: Finished) -> Iterator[dict]:
    ids = itertools.count(1)
    for number, picture in enumerate(finished.pictures(), 1):
        for box in picture.boxes:
            xmin, ymin, xmax, ymax = box.corners
            width, height = xmax - xmin, ymax - ymin
            yield {
                "id": next(ids),
                "image_id": number,
                "category_id": box.class_id + 1,
                "bbox": [xmin, ymin, width, height],
                "area": width * height,
                "iscrowd": 0,
                "segmentation": [],
                "score": box.score,
                "threshold": box.threshold,
            }
