"""Annotating a folder: values worked out by hand, and every format read back by its readers."""

import json
import os

import cv2
import jax
import numpy as np
import pytest
from colored import NAMES, Colors, random_folder, save, tree
from PIL import Image

from camjax.annotating import Options, annotate_folder
from camjax.annotating.pictures import Places
from camjax.data import load_image, open_annotated
from camjax.data.annotations.voc_xml import read_voc_xml
from camjax.errors import InputError


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
    manifest = annotate_folder(model, tmp_path / "pictures", out, Options(boxes="components", batch_size=4))
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_folder(tmp_path_factory.mktemp("pictures"), 21)


@pytest.fixture(scope="module")
def annotated(model, folder, tmp_path_factory):
    """Every component, of the two most probable classes."""
    out = tmp_path_factory.mktemp("annotated") / "out"
    annotate_folder(model, folder, out, Options(boxes="components", top_k=2, maps=True, batch_size=4))
    return out


def test_unreadable_pictures_are_in_the_manifest(annotated):
    manifest = json.loads((annotated / "manifest.json").read_text())
    reasons = {item["file"]: item["reason"] for item in manifest["unreadable"]}
    assert reasons["a b/empty.png"] == "the file is empty (0 bytes); get a complete copy of it"
    assert reasons.keys() == {"a b/empty.png", "torn.jpg"} and "Truncated" in reasons["torn.jpg"]
    assert (manifest["pictures"], manifest["annotated"]) == (23, 21)


def test_boxes_lie_on_the_stored_pixels(model, folder, annotated):
    """For any EXIF orientation the box holds the color of its class in the file as stored; NumPy reads it unturned."""
    found = [item for item in boxes_of(annotated) if item[3] > 0.5]
    assert len({name for name, *_ in found}) == 21
    for name, label, (x, y, width, height), _ in found:
        channel = np.asarray(Image.open(folder / name))[..., NAMES.index(label)]
        large = channel == 255
        rows, columns = np.flatnonzero(large.any(1)), np.flatnonzero(large.any(0))
        expected = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        # The picture is squashed to 16 x 16 pixels: edges may be off by one of those.
        cell = np.tile(np.ceil(np.array(channel.shape[::-1]) / 16), 2)
        assert (np.abs(np.array([x, y, x + width, y + height]) - expected) <= cell).all(), name


def test_every_reader_reads_the_same_boxes(folder, annotated):
    boxes = boxes_of(annotated)
    coco = json.loads((annotated / "coco.json").read_text())
    for image in coco["images"]:
        name = image["file_name"]
        stored = cv2.imread(str(folder / name), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        assert (image["height"], image["width"]) == stored.shape[:2]
        listed = read_voc_xml(annotated / "voc" / name.replace(".png", ".xml"))
        assert listed.size == stored.shape[:2]
        own = [(label, box) for file, label, box, _ in boxes if file == name]
        assert own and listed.classes == tuple(label for label, _ in own)
        as_coco = [[xmin, ymin, xmax + 1 - xmin, ymax + 1 - ymin] for xmin, ymin, xmax, ymax in listed.corners]
        assert as_coco == [box for _, box in own]


@pytest.mark.parametrize("boxes", ["boxes.csv", "voc"])
def test_round_through_open_annotated(model, tmp_path, boxes):
    """Pictures beside each other have their class in the file of boxes, those in a folder have the folder's."""
    save(tmp_path / "p/one.png", [(0, 2, 4, 10, 14), (0, 12, 1, 15, 3)])
    save(tmp_path / "p/one.bmp", [(2, 0, 0, 5, 7)])
    save(tmp_path / "p/green/two.png", [(1, 8, 2, 24, 6)], (32, 32), orientation=6)
    unreadable = {}
    if boxes == "boxes.csv":  # which has a line for each picture
        (tmp_path / "p/torn.jpg").write_bytes(b"torn")
        unreadable = {"torn.jpg": (0, "without a class")}
    annotate_folder(model, tmp_path / "p", tmp_path / "out", Options(boxes="components", top_k=1, batch_size=4))
    source = open_annotated(tmp_path / "p", "all", boxes=tmp_path / "out" / boxes, class_names=NAMES)
    found = {source.annotation(i).filename: source.annotation(i) for i in range(len(source))}
    assert {name: (item.label, item.excluded) for name, item in found.items()} == {
        "green/two.png": (1, ""),
        "one.bmp": (2, ""),
        "one.png": (0, ""),
        **unreadable,
    }
    np.testing.assert_array_equal(found["one.png"].boxes * 16, [[2, 4, 10, 14], [12, 1, 15, 3]])
    np.testing.assert_array_equal(found["one.bmp"].boxes * 16, [[0, 0, 5, 7]])
    np.testing.assert_array_equal(found["green/two.png"].boxes * 32, [[8, 2, 24, 6]])


def test_maps_as_arrays(model, folder, annotated):
    manifest = json.loads((annotated / "manifest.json").read_text())
    (part,) = manifest["files"]["maps"]
    assert part == {"file": "maps/maps-000000.npz", "first": 0, "pictures": 23}
    with np.load(annotated / part["file"]) as arrays:
        assert arrays["maps"].shape == (21, 2, 16, 16) and arrays["class_ids"].shape == (21, 2)
        row = arrays["files"].tolist().index("a b/001.png")
        image = cv2.resize(load_image(folder / "a b/001.png"), (16, 16), interpolation=cv2.INTER_AREA)
        expected = 40 * np.maximum(image[..., arrays["class_ids"][row, 0]] / 127.5 - 1, 0)
        assert np.corrcoef(arrays["maps"][row, 0].ravel(), expected.ravel())[0, 1] > 0.9


def test_overlays(model, tmp_path):
    """A figure as a viewer shows the picture: the second box, which is not the largest, is drawn too."""
    save(tmp_path / "p/a/turned.png", [(0, 8, 2, 24, 12), (0, 32, 20, 40, 28)], (40, 32), orientation=6)
    for name, drawing in (("boxes", {}), ("none", {"draw_boxes": False}), ("gray", {"colormap": "gray", "dpi": 80})):
        given = Options(
            overlays=True, boxes="components", drawing=drawing, format="svg" if name == "gray" else "png", batch_size=4
        )
        annotate_folder(model, tmp_path / "p", tmp_path / name, given)
    assert [name for name in tree(tmp_path / "gray") if name.startswith("overlays")] == ["overlays/a/turned.svg"]
    boxes, none = (np.asarray(Image.open(tmp_path / name / "overlays/a/turned.png")) for name in ("boxes", "none"))
    assert boxes.shape == none.shape
    rows, columns = np.nonzero((boxes != none).any(-1))
    # Stored rows 8..24 and 32..40 are columns 16..32 and 0..8 of the upright picture; columns 2..12, 20..28 its rows.
    low, high = np.array([rows.min(), columns.min()]), np.array([rows.max(), columns.max()])
    height, width = high - low
    assert abs(width / height - 32 / 26) < 0.05
    heat = none[low[0] : high[0], low[1] : high[1]].astype(int)
    peak = heat[round(height * 5 / 26), round(width * 24 / 32)]
    assert peak[0] > peak[2] + 50 and heat[round(height * 5 / 26), round(width * 4 / 32), 2] > 50  # hot, and cold
    with pytest.raises(InputError, match=r"drawing was \{\}, is \{'alpha': 0.1\}"):
        annotate_folder(model, tmp_path / "p", tmp_path / "boxes", Options(overlays=True, drawing={"alpha": 0.1}))


def test_named_classes_thresholds_and_least_scores(model, folder, tmp_path):
    chosen = Options(classes=(2, 0), thresholds=(0.2, 0.7), batch_size=4, min_score=0.01)
    annotate_folder(model, folder, tmp_path / "out", chosen)
    coco = json.loads((tmp_path / "out/coco.json").read_text())
    assert {item["category_id"] for item in coco["annotations"]} == {1, 3}
    assert {item["threshold"] for item in coco["annotations"]} == {0.2, 0.7}
    assert min(item["score"] for item in coco["annotations"]) >= 0.01
    by_class = {}
    for item in coco["annotations"]:
        by_class.setdefault((item["image_id"], item["category_id"]), []).append(item)
    for first, second in (items for items in by_class.values() if len(items) == 2):
        assert first["area"] >= second["area"] and first["score"] == second["score"]


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "backprop", "center"])
def test_any_method(model, folder, tmp_path, method):
    manifest = annotate_folder(model, folder / "a b/ü", tmp_path / "out", Options(method=method))
    # Gradients of this network are the same everywhere: backprop's own rule finds no foreground.
    assert manifest["annotated"] == manifest["pictures"] == 7 and bool(manifest["boxes"]) == (method != "backprop")


def test_each_picture_has_a_place_of_its_own():
    names = ["a.jpg", "a.png", "a.jpg.png", "b/a.jpg", "c.d.jpg", "c"]
    places = Places(names)
    assert list(map(places, names[:5])) == ["a.jpg", "a.png", "a.jpg.png", "b/a", "c.d"]


def test_names_that_tools_could_not_read(model, tmp_path):
    undecodable = os.fsdecode(b"latin-\xe9.png")
    bad = {"line\nbreak.png", "back\\slash.png", undecodable}
    good = {" blank.png", "ü & <x>.png", "-rf.png", "comma, 'quote\".png"}
    for name in bad | good:
        save(tmp_path / "p" / name, [(1, 2, 2, 9, 9)])
    out = tmp_path / "out"
    manifest = annotate_folder(model, tmp_path / "p", out, Options(batch_size=4))
    assert {item["file"] for item in manifest["unreadable"]} == {*bad} - {undecodable} | {"latin-\\xe9.png"}
    assert all("rename the file" in item["reason"] for item in manifest["unreadable"])
    assert {name for name, *_ in boxes_of(out)} == good
    for name in bad:
        (tmp_path / "p" / name).unlink()
    annotate_folder(model, tmp_path / "p", tmp_path / "again", Options(batch_size=4))
    source = open_annotated(tmp_path / "p", "all", boxes=tmp_path / "again/boxes.csv", class_names=NAMES)
    assert {source.annotation(i).filename for i in range(len(source))} == good
    assert all(len(source.annotation(i).boxes) == 1 for i in range(len(source)))


def test_devices_do_not_change_the_files(model, folder, annotated, tmp_path, monkeypatch):
    """Each device takes whole batches, in turn."""
    used = []
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices() * 2)
    monkeypatch.setattr(jax, "device_put", lambda x, device, put=jax.device_put: used.append(device) or put(x, device))
    annotate_folder(model, folder, tmp_path / "out", Options(boxes="components", top_k=2, maps=True, batch_size=4))
    assert len(used) >= 6 and tree(tmp_path / "out") == tree(annotated)


@pytest.mark.long
def test_worker_processes(model, folder, annotated, tmp_path):
    chosen = Options(boxes="components", top_k=2, maps=True, batch_size=4)
    annotate_folder(model, folder, tmp_path / "out", chosen, num_workers=1)
    assert tree(tmp_path / "out") == tree(annotated)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": (3,)}, r"classes=\[3\]: out of range, the network has classes 0..2"),
        ({"top_k": 4}, "top_k"),
        ({"method": "grad"}, "method 'grad': expected one of"),
        ({"thresholds": (1.0,)}, "0 <= threshold < 1"),
        ({"thresholds": ()}, "0 <= threshold < 1"),
        ({"boxes": "all"}, "boxes='all': expected one of paper, components"),
        ({"batch_size": 0}, "batch_size=0: expected at least 1"),
        ({"min_score": 2.0}, "min_score=2.0: expected a share"),
        ({"method": "backprop", "thresholds": (0.2, 0.3)}, "backprop has a box rule of its own"),
    ],
)
def test_options_that_are_refused(model, folder, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        annotate_folder(model, folder, tmp_path / "out", Options(**options))
    assert not (tmp_path / "out").exists()


def test_folders_that_are_refused(model, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "file").touch()
    for place, out, error, message in (
        (tmp_path / "missing", tmp_path / "out", FileNotFoundError, "missing is not a folder"),
        (tmp_path / "empty", tmp_path / "out", InputError, "empty has no pictures: expected files that end in .apng"),
        (folder, tmp_path / "file", InputError, "file is a file: expected a folder of results"),
        (folder, folder / "out", InputError, "lie one in the other"),
        (folder / "a b", folder, InputError, "lie one in the other"),
        (tmp_path / "link", folder / "out", InputError, "lie one in the other"),
    ):
        with pytest.raises(error, match=message):
            annotate_folder(model, place, out, Options())
    assert not (folder / "out").exists()


def test_a_full_disk_loses_nothing(model, folder, annotated, tmp_path, monkeypatch):
    """The second part can't be written; the same call goes on after it."""
    from camjax.annotating.parts import Parts

    monkeypatch.setattr("camjax.annotating.loop.PICTURES", 8)
    write, out = Parts.write, tmp_path / "out"

    def full(self, part, pictures):
        if part == 1:
            raise OSError(28, "No space left on device")
        write(self, part, pictures)

    monkeypatch.setattr(Parts, "write", full)
    with pytest.raises(OSError, match=r"out can't be written to \(No space left on device\).*goes on where it stopped"):
        annotate_folder(model, folder, out, Options(batch_size=4))
    assert (out / "parts/part-000000.json").exists() and not (out / "manifest.json").exists()
    monkeypatch.setattr(Parts, "write", lambda self, part, pictures: (write(self, part, pictures), done.append(part)))
    done = []
    annotate_folder(model, folder, out, Options(batch_size=4))
    assert done == [1, 2]
    annotate_folder(model, folder, tmp_path / "whole", Options(batch_size=4))
    assert tree(out) == tree(tmp_path / "whole")
