"""The one table of files that hold boxes: a format is one file here, and one row."""

from collections.abc import Callable, Mapping
from pathlib import Path

from camjax.annotating import coco, csv_file, voc
from camjax.annotating.finished import Finished

FORMATS: Mapping[str, Callable[[Path, Finished], None]] = {
    "coco.json": coco.write,
    "boxes.csv": csv_file.write,
    "voc": voc.write,
}
"""Name in the folder of results -> (path, finished annotation) -> writes it. All read the pictures in one order."""
