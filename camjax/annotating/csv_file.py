"""Boxes as the CSV file that `camjax evaluate --boxes` reads."""

import csv
from pathlib import Path

from camjax.annotating.finished import Finished
from camjax.annotating.pictures import holdable
from camjax.files import whole_file

COLUMNS = ("filename", "xmin", "ymin", "xmax", "ymax", "label", "class", "probability", "score", "threshold")


def write(path: Path, finished: Finished) -> None:
    """Writes a line for each box of a picture's first class, see `camjax.data.annotations.box_csv`.

    The format has one class a picture: where maps of several classes were computed, the most probable of them that has
    a box. `label` is that class, and is empty for a picture in a sub-folder, whose class is the folder's. A picture
    without boxes has a line without numbers; so has one that can't be read, unless a line can't hold its name.
    """
    with whole_file(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for picture in finished.pictures():
            if not holdable(picture.name):
                continue
            # The format takes blanks off the ends of a name.
            name = picture.name if picture.name == picture.name.strip() else f"./{picture.name}"
            by_probability = sorted(picture.classes, key=lambda of_class: -of_class[1])
            having = {box.class_id for box in picture.boxes}
            chosen = [of_class for of_class in by_probability if of_class[0] in having] or by_probability
            if not chosen:
                rows.writerow([name, *[""] * (len(COLUMNS) - 1)])
                continue
            class_id, probability = chosen[0]
            label = finished.names.read[class_id]
            what = ["" if "/" in picture.name else label, label, probability]
            for box in picture.boxes:
                if box.class_id == class_id:
                    xmin, ymin, xmax, ymax = box.corners
                    rows.writerow([name, xmin, ymin, xmax - 1, ymax - 1, *what, box.score, box.threshold])
            if class_id not in having:
                rows.writerow([name, "", "", "", "", *what, "", ""])
