"""Finished evaluations and annotations as the second page shows them."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from camjax.app.result_pages import PAGE
from camjax.app.results import open_results
from camjax.errors import InputError

# name, label, prediction, IoU; the last ones: without true boxes, and not readable
CASES = [
    ("cat/a.png", 0, 0, 0.9),
    ("cat/b.png", 0, 1, 0.2),
    ("cup/c.png", 1, 1, 0.6),
    ("cup/d.png", 1, 1, 0.4),
    ("cup/e.png", 1, 0, None),
    ("cup/f.png", 1, 1, None),
    ("cup/g.png", 1, None, None),
]


NO_IMAGE = '{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 1, "bbox": []}]}'


def write_pictures(folder, names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 40, 3), 10 * i, np.uint8)).save(folder / name)


@pytest.fixture
def evaluation(tmp_path):
    """As `camjax evaluate` writes it; tests/cli/test_evaluate.py has a real one."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    write_pictures(photos, [name for name, *_ in CASES[:-1]])
    (photos / "cup" / "g.png").write_bytes(b"torn")
    lines = [f"{name},0,10,19,19" for name, *_, iou in CASES if iou is not None]
    (tmp_path / "boxes.csv").write_text("\n".join(["filename,xmin,ymin,xmax,ymax", *lines]) + "\n")
    out.mkdir()
    with (out / "images.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["index", "filename", "status", "label", "prediction", "cam_iou", "center_iou"])
        for i, (name, label, prediction, iou) in enumerate(CASES):
            status = "unreadable" if prediction is None else "without boxes" if iou is None else "scored"
            row = [i, name, status, label]
            rows.writerow(
                row if prediction is None else [*row, prediction, *(["", ""] if iou is None else [iou, 1 - iou])]
            )
    empty = dict.fromkeys(("data_dir", "blacklist", "lists", "masks"))
    given = {"dataset": str(photos), "split": "all", "boxes": str(tmp_path / "boxes.csv"), **empty}
    summary = {
        **{"model": "small", "dataset": "photos", "split": "all", "num_images": 7, "class_names": ["cat", "cup"]},
        **{"images": {"scored": 4, "without boxes": 2, "unreadable": 1}, "results": {"cam": {}, "center": {}}},
        "pictures": given,
    }
    (out / "results.json").write_text(json.dumps(summary))
    return out


def names(page):
    return [row["name"][4] for row in page["rows"]]


def test_an_evaluation_by_its_order_and_filters(evaluation):
    results = open_results(evaluation)
    page = results.page()
    assert names(page) == list("bdcaefg") and (page["total"], page["pages"]) == (7, 1)
    assert names(results.page(order="best")) == list("acdbefg")
    assert names(results.page(measure="center")) == list("acdbefg")
    assert names(results.page(order="listed", class_id=0)) == ["a", "b"]
    assert names(results.page(class_id=1, only="wrong")) == ["e"]
    assert names(results.page(only="right")) == list("dcaf")
    assert names(results.page(only="uncounted")) == ["g"]
    assert results.page(class_id=9)["rows"] == []
    assert [(one["name"], one["pictures"]) for one in page["classes"]] == [("cat", 2), ("cup", 5)]
    assert page["rows"][0]["title"] == "cat" and page["rows"][0]["words"] == "IoU 0.20, taken for cup"
    assert page["rows"][0]["true"] == [{"box": [0.5, 0, 1, 0.5], "words": "true box"}]
    assert page["rows"][-1]["note"] == "unreadable" and not page["rows"][-1]["readable"]
    for wrong in ({"order": "up"}, {"measure": "gradcam"}, {"only": "x"}):
        with pytest.raises(InputError, match="expected one"):
            results.page(**wrong)


def test_pictures_are_those_of_the_data_set(evaluation, tmp_path):
    results = open_results(evaluation)
    with Image.open(io.BytesIO(results.thumbnail(3))) as picture:
        assert picture.format == "JPEG" and picture.size == (40, 20) and abs(np.asarray(picture).mean() - 30) < 2
    name, data = results.file(3)
    with Image.open(io.BytesIO(data)) as picture:
        assert name == "cup/d.png" and np.asarray(picture).tolist() == np.full((20, 40, 3), 30).tolist()
    with pytest.raises(InputError, match=r"g\.png"):
        results.thumbnail(6)
    with pytest.raises(InputError, match="picture 7"):
        results.thumbnail(7)


def test_pictures_that_moved_or_changed_are_said(evaluation, tmp_path):
    changed = open_results(evaluation)
    (tmp_path / "photos" / "cat" / "a.png").rename(tmp_path / "photos" / "cat" / "z.png")
    (tmp_path / "boxes.csv").write_text((tmp_path / "boxes.csv").read_text().replace("cat/a.png", "cat/z.png"))
    rows = changed.page(order="listed")["rows"]
    assert "is now cat/b.png: the data set has changed" in rows[0]["note"] and rows[0]["true"] == []
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    moved = open_results(evaluation)
    assert "photos is not a folder" in moved.page()["rows"][0]["note"]
    with pytest.raises(InputError, match="photos is not a folder"):
        moved.thumbnail(0)


def test_an_evaluation_of_an_older_camjax_has_no_pictures(evaluation):
    summary = json.loads((evaluation / "results.json").read_text())
    del summary["pictures"], summary["class_names"]
    (evaluation / "results.json").write_text(json.dumps(summary))
    row = open_results(evaluation).page()["rows"][0]
    assert row["title"] == "class 0" and "evaluate again" in row["note"] and row["predicted"] == []


@pytest.fixture
def annotation(tmp_path):
    """As `camjax annotate` writes it: three pictures, of which one has no box, and one that can't be read."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    write_pictures(photos, ["a.png", "deep/b.png", "c.png"])
    out.mkdir()
    boxes = [(1, 1, 0.5, [0, 0, 20, 20]), (1, 2, 0.7, [20, 10, 20, 10]), (3, 2, 0.6, [0, 0, 40, 20])]
    coco = {
        "info": {},
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cup"}],
        "images": [
            {"id": id, "file_name": name, "width": 40, "height": 20}
            for id, name in ((1, "a.png"), (2, "deep/b.png"), (3, "c.png"))
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": bbox, "score": score}
            for i, (image, category, score, bbox) in enumerate(boxes, 1)
        ],
    }
    (out / "coco.json").write_text(json.dumps(coco))
    manifest = {
        **{"folder": str(photos), "unreadable": [{"file": "torn.png", "reason": "the file is empty"}]},
        **{"settings": {}, "pictures": 4, "annotated": 3, "without_boxes": 1, "boxes": 3, "classes": [], "files": {}},
    }
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def test_an_annotation_by_its_order_and_filters(annotation):
    results = open_results(annotation)
    page = results.page()
    assert [row["name"] for row in page["rows"]] == ["deep/b.png", "c.png", "a.png", "torn.png"]
    assert page["rows"][2]["predicted"] == [
        {"box": [0, 0, 1, 0.5], "words": "cat, score 0.50"},
        {"box": [0.5, 0.5, 1, 1], "words": "cup, score 0.70"},
    ]
    assert page["rows"][0]["title"] == "no box" and page["rows"][3]["note"] == "the file is empty"
    assert [row["name"] for row in results.page(class_id=2)["rows"]] == ["c.png", "a.png"]
    assert [row["name"] for row in results.page(class_id=1)["rows"]] == ["a.png"]
    assert [row["name"] for row in results.page(only="none")["rows"]] == ["deep/b.png"]
    assert [row["name"] for row in results.page(only="uncounted")["rows"]] == ["torn.png"]
    with Image.open(io.BytesIO(results.thumbnail(1))) as picture:
        assert picture.size == (40, 20)


def test_a_name_does_not_lead_out_of_the_folder(annotation, tmp_path):
    (tmp_path / "secret.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes())
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        coco = json.loads((annotation / "coco.json").read_text())
        coco["images"][0]["file_name"] = name
        (annotation / "coco.json").write_text(json.dumps(coco))
        with pytest.raises(InputError, match="leads out of"):
            open_results(annotation).thumbnail(0)


def test_paging(annotation):
    coco = json.loads((annotation / "coco.json").read_text())
    coco["images"] = [{"id": i, "file_name": f"{i}.png", "width": 1, "height": 1} for i in range(1, 2 * PAGE + 4)]
    coco["annotations"] = [{**coco["annotations"][0], "image_id": i, "score": 1 / i} for i in range(1, 2 * PAGE + 4)]
    (annotation / "coco.json").write_text(json.dumps(coco))
    results = open_results(annotation)
    pages = [results.page(page=i) for i in range(4)]
    assert [len(page["rows"]) for page in pages] == [PAGE, PAGE, 4, 4] and pages[3]["page"] == 2
    assert pages[1]["first"] == PAGE and pages[0]["rows"][0]["name"] == f"{2 * PAGE + 3}.png"
    assert pages[2]["rows"][-1]["name"] == "torn.png"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coco.json", "{", "coco.json is damaged"),
        (
            "coco.json",
            '{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 1, "bbox": []}]}',
            "coco.json",
        ),
        ("manifest.json", None, "manifest.json is missing, which is written last"),
        ("coco.json", None, "is nothing that camjax app can show"),
    ],
)
def test_damaged_or_unfinished_annotations(annotation, name, content, message):
    (annotation / name).unlink() if content is None else (annotation / name).write_text(content)
    with pytest.raises((InputError, FileNotFoundError), match=message):
        open_results(annotation)


def test_a_damaged_table_of_images(evaluation):
    text = (evaluation / "images.csv").read_text()
    for damaged in (text.replace("cat/b.png,scored,0", "cat/b.png,scored,x"), text.replace("prediction", "p")):
        (evaluation / "images.csv").write_text(damaged)
        with pytest.raises(InputError, match=r"images\.csv is not a table of `camjax evaluate`, or damaged"):
            open_results(evaluation)
    (evaluation / "images.csv").write_text(text[: text.index("cup/g.png")].rpartition("\n")[0] + "\n")
    with pytest.raises(InputError, match=r"has 6 pictures, and results\.json is of 7"):
        open_results(evaluation)
