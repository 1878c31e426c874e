"""Annotating a folder: values worked out by hand, and every format read back by its readers."""

import json
import os

import numpy as np
import pytest
from colored import Colors, save, tree

from camjax.annotating import Options, annotate_folder


@pytest.fixture(scope="module")
def model():
    return Colors()


def boxes_of(out):
    """(file, category, bbox, score) of all boxes in coco.json."""
    coco = json.loads((out / "coco.json").read_text())
    files = {image["id"]: image["file_name"] for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    return [
        (files[item["image_id"]], names[item["category_id"]], item["bbox"], item["score"])
        for item in coco["annotations"]
    ]


def test_values_by_hand(model, tmp_path):
    # A red object, and a smaller, paler one; a green one in a picture of twice the network's input.
    save(tmp_path / "pictures/flat.png", [(0, 2, 4, 10, 14), (0, 12, 1, 15, 3, 200)])
    save(tmp_path / "pictures/cat/black.png", [], (10, 20))
    save(tmp_path / "pictures/cat/large.png", [(1, 4, 8, 20, 28)], (32, 32))
    out = tmp_path / "out"
    manifest = annotate_folder(model, tmp_path / "pictures", out, Options(boxes="components", batch_size=2))
    (_, _, third, large_score), (_, name, first, score), (_, _, second, pale_score) = boxes_of(out)
    assert (name, first, second, third) == ("red", [4, 2, 10, 8], [1, 12, 2, 3], [8, 4, 20, 16])
    pale = (200 - 127.5) / 127.5
    np.testing.assert_allclose(pale_score / score, pale, rtol=1e-5)
    # The mean of the map is the logit, and the other two are 0.
    logit = 40 * (8 * 10 + 3 * 2 * pale) / 16**2
    np.testing.assert_allclose(score, 1 / (1 + 2 * np.exp(-logit)), rtol=1e-5)
    assert (out / "boxes.csv").read_text().splitlines() == [
        "filename,xmin,ymin,xmax,ymax,label,class,probability,score,threshold",
        "cat/black.png,,,,,,red,0.333333,,",
        f"cat/large.png,8,4,27,19,,green,{large_score},{large_score},0.2",
        f"flat.png,4,2,13,9,red,red,{score},{score},0.2",
        f"flat.png,1,12,2,14,red,red,{score},{pale_score},0.2",
    ]
    assert manifest["folder"] == str(tmp_path / "pictures") and not os.path.exists(out / "parts")
    assert manifest["classes"] == [
        {"class_id": 0, "name": "red", "pictures": 1, "boxes": 2},
        {"class_id": 1, "name": "green", "pictures": 1, "boxes": 1},
    ]
    assert (manifest["annotated"], manifest["without_boxes"], manifest["boxes"]) == (3, 1, 3)
    assert sorted(tree(out)) == [
        *("boxes.csv", "coco.json", "manifest.json", "voc/cat/black.xml", "voc/cat/large.xml", "voc/flat.xml")
    ]
