"""What every format of annotations holds to, and how `open_annotated` chooses among them."""

import io
import math
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tiny_tfds import prepare_tfds

import camjax.data
from camjax.data.annotated import open_annotated, open_image_folder
from camjax.data.annotation import BLACKLISTED, AnnotatedSource, Annotation
from camjax.data.annotations import FORMATS, Request
from camjax.data.annotations._format import OPTIONS
from camjax.data.loader import eval_batches
from camjax.data.pixel_boxes import same_aspect, whole_pixels

# One picture of 60 x 40 pixels, of the class "cat" of "ant", "bee", "cat", with one box: pixels 6..41 and 8..29.
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
PNG = cv2.imencode(".png", PIXELS[..., ::-1])[1].tobytes()
CLASSES = ("ant", "bee", "cat")
STEM = "ILSVRC2012_val_00000001"
BOX = (6, 8, 41, 29)
LAST_PIXELS = np.array([[8 / 40, 6 / 60, 30 / 40, 42 / 60]], np.float32)
AS_LISTED = np.array([[8 / 40, 6 / 60, 29 / 40, 41 / 60]], np.float32)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The picture, with the name and the features of tfds' imagenet2012."""
    data_dir = tmp_path_factory.mktemp("tfds")
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=CLASSES),
        "file_name": tfds.features.Text(),
    }
    examples = [{"image": PNG, "label": 2, "file_name": f"{STEM}.JPEG"}]
    prepare_tfds(data_dir, "imagenet2012", features, {"validation": examples}, version="5.1.0")
    return data_dir


@dataclass
class Case:
    """The picture and its box in one format.

    Attributes:
      dataset, split, options: the arguments of `open_annotated`.
      files: of annotations; the first lists the images.
      boxes: what `Annotation.boxes` has to be.
    """

    dataset: str | Path
    split: str
    options: dict
    files: list[Path]
    boxes: np.ndarray

    def open(self) -> AnnotatedSource:
        return open_annotated(self.dataset, self.split, **self.options)

    def annotation(self) -> Annotation:
        return self.open().annotation(0)


def xml(box, label, name=STEM):
    sides = "".join(f"\n<{side}>{n}</{side}>" for side, n in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return (
        f"<annotation>\n<filename>{name}</filename>\n<size><width>60</width>\n<height>40</height></size>\n"
        f"<object>\n<name>{label}</name>\n<bndbox>{sides}\n</bndbox>\n</object>\n</annotation>\n"
    )


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def csv_case(folder, data_dir, box=BOX, label="cat"):
    write(folder / "photos" / "val" / f"{STEM}.JPEG", PNG)
    columns = "filename,label,xmin,ymin,xmax,ymax"
    boxes = write(folder / "boxes.csv", f"{columns}\n{STEM}.JPEG,{label},{','.join(map(str, box))}\n")
    options = {"boxes": boxes, "class_names": CLASSES}
    return Case(folder / "photos", "val", options, [boxes], LAST_PIXELS)


def voc_case(folder, data_dir, box=BOX, label="cat"):
    write(folder / "photos" / "val" / f"{STEM}.JPEG", PNG)
    file = write(folder / "xml" / f"{STEM}.xml", xml(box, label))
    options = {"boxes": folder / "xml", "class_names": CLASSES}
    return Case(folder / "photos", "val", options, [file], LAST_PIXELS)


def label_case(folder, data_dir, box=BOX, label="cat"):
    case = csv_case(folder, data_dir, box, label)
    labels = write(folder / "photos" / "labels.csv", f"file,label,split\nval/{STEM}.JPEG,cat,val\n")
    case.files[0].write_text(case.files[0].read_text().replace(STEM, f"val/{STEM}"))
    return Case(labels, "validation", case.options, [labels, *case.files], LAST_PIXELS)


def ilsvrc_case(folder, data_dir, box=BOX, label="cat"):
    file = write(folder / "xml" / "val" / f"{STEM}.xml", xml(box, label))
    options = {"boxes": folder / "xml", "data_dir": data_dir}
    return Case("imagenet2012", "validation", options, [file], LAST_PIXELS)


def lists_case(folder, data_dir, box=BOX, label="cat"):
    name = f"val/{STEM}.JPEG"
    write(folder / "images" / name, PNG)
    lists = {
        "image_ids": name,
        "class_labels": f"{name},{CLASSES.index(label) if label in CLASSES else 7}",
        "localization": f"{name},{','.join(map(str, box))}",
        "image_sizes": f"{name},60,40",
    }
    files = [write(folder / "lists" / "val" / f"{kind}.txt", f"{text}\n") for kind, text in lists.items()]
    options = {"lists": folder / "lists", "class_names": CLASSES}
    return Case(folder / "images", "val", options, files, AS_LISTED)


WITH_BOXES = {
    **{"box_csv": csv_case, "voc_xml": voc_case, "label_csv": label_case},
    **{"ilsvrc_xml": ilsvrc_case, "wsol_lists": lists_case},
}


@pytest.fixture(params=WITH_BOXES)
def make(request, tmp_path, data_dir) -> Callable[..., Case]:
    """Writes the picture and its box in one of the formats: make(box=, label=)."""
    return lambda **changes: WITH_BOXES[request.param](tmp_path, data_dir, **changes)


@pytest.mark.parametrize("seed", range(3))
def test_a_scaled_copy_has_the_same_aspect_and_another_image_has_not(seed):
    rng = np.random.default_rng(seed)
    for height, width in rng.integers(30, 900, (100, 2)).tolist():
        image = Image.new("L", (width, height))
        image.thumbnail(rng.integers(16, 300, 2).tolist())
        assert same_aspect((height, width), (image.height, image.width))
        factor = rng.uniform(0.1, 3)
        for rounded in (math.floor, math.ceil, round):
            assert same_aspect((height, width), (rounded(height * factor), rounded(width * factor)))
    for listed, size in (
        ((80, 100), (40, 60)),
        ((60, 60), (40, 60)),
        ((375, 500), (500, 375)),
        ((375, 500), (372, 500)),
    ):
        assert not same_aspect(listed, size) and not same_aspect(size, listed)


def test_boxes_in_whole_pixels():
    boxes = [
        [0, 0, 1, 1],
        [0.24, 0.26, 0.46, 0.96],  # edges at 2.4, 5.2, 4.6, 19.2
        [0.31, 0.5, 0.34, 0.51],  # narrower than a pixel
        [0.99, 0.99, 1, 1],  # the same, at the end
        [0, 0, 0, 0],  # of a map without a region
    ]
    expected = [[0, 0, 10, 20], [2, 5, 5, 19], [3, 10, 4, 11], [9, 19, 10, 20], [0, 0, 0, 0]]
    np.testing.assert_array_equal(whole_pixels(np.array(boxes, np.float32), (10, 20)), expected)


@pytest.mark.parametrize("case", [ilsvrc_case, lists_case])
def test_the_listed_size_goes_with_the_boxes(case, tmp_path, data_dir):
    assert case(tmp_path, data_dir).annotation().size == (40, 60)


def check(case):
    source = case.open()
    annotation, example = source.annotation(0), source[0]
    assert source.has_boxes and len(source) == 1 and source.info.class_names == CLASSES
    assert (annotation.label, annotation.excluded) == (example["label"], "") == (2, "")
    assert annotation.filename == example["filename"] and Path(annotation.filename).name == f"{STEM}.JPEG"
    assert annotation.boxes.dtype == annotation.wsol_boxes.dtype == np.float32
    np.testing.assert_array_equal(annotation.boxes, case.boxes)
    np.testing.assert_array_equal(annotation.wsol_boxes, AS_LISTED)
    np.testing.assert_array_equal(example["image"], PIXELS)
    for index in (1, -1):
        with pytest.raises(IndexError):
            source.annotation(index)
        with pytest.raises(IndexError):
            source[index]


def test_the_same_picture_with_the_same_box_gives_the_same_annotation(make):
    check(make())


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n", "\t \r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_byte_order_marks_and_line_ends_make_no_difference(make, start, end):
    case = make()
    for file in case.files:
        file.write_bytes((start + file.read_text().replace("\n", end)).encode())
    check(case)


@pytest.mark.parametrize("box", [(42, 8, 41, 29), (6, 30, 41, 29), (6, 8, 61, 29), (-2, 8, 41, 29), (6, 8, "nan", 29)])
def test_a_box_that_cannot_be_names_the_file(make, box):
    case = make(box=box)
    with pytest.raises(ValueError) as error:
        case.open()
    assert any(str(file) in str(error.value) for file in case.files)
    if "nan" not in box:
        assert f"xmin={box[0]}, ymin={box[1]}, xmax={box[2]}, ymax={box[3]}" in str(error.value)


def test_a_box_may_end_a_pixel_outside(make):
    assert make(box=(1, 1, 60, 40)).annotation().boxes.tolist() == [[np.float32(1 / 40), np.float32(1 / 60), 1, 1]]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n\xff\xfe"])
def test_a_file_that_is_empty_or_of_another_kind_is_named(make, content):
    case = make()
    case.files[0].write_bytes(content)
    with pytest.raises(ValueError, match=case.files[0].name):
        case.open()


def test_a_class_that_is_not_the_images_or_unknown_is_an_error(make):
    case = make(label="dog")
    with pytest.raises(ValueError, match=r"dog|label 7"):
        case.annotation()


def test_boxes_of_an_image_that_is_missing(make, tmp_path):
    case = make()
    if case.dataset == "imagenet2012":  # an archive may have more images than the data set
        case.files[0].write_text(xml(BOX, "cat", "other"))
        case.files[0].rename(case.files[0].with_name("other.xml"))
        with pytest.raises(ValueError, match=f"xml has no boxes for the first 1 images of .*{STEM}"):
            case.open()
        return
    (image,) = tmp_path.glob(f"**/{STEM}.JPEG")
    image.rename(image.with_name("other.jpg"))
    with pytest.raises(FileNotFoundError, match=f"{case.files[0].name}.*{STEM}"):
        case.open()


def test_an_image_that_cannot_be_read_is_named(make, tmp_path):
    case = make()
    if case.dataset == "imagenet2012":
        pytest.skip("tests of camjax.data.sources damage records")
    (image,) = tmp_path.glob(f"**/{STEM}.JPEG")
    image.write_bytes(PNG[:50])
    source = case.open()
    assert source.annotation(0).label == 2
    np.testing.assert_array_equal(source.annotation(0).boxes, case.boxes)  # the header is whole
    with pytest.raises(ValueError, match=rf"{STEM}\.JPEG: "):
        source[0]


def test_a_path_that_does_not_exist(make, tmp_path):
    case = make()
    option = "lists" if "lists" in case.options else "boxes"
    case.options[option] = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        case.open()


def test_sources_can_be_pickled_and_batched(make):
    source = make().open()
    copy = pickle.loads(pickle.dumps(source))
    assert copy.info == source.info and repr(copy) == repr(source)
    np.testing.assert_array_equal(copy.annotation(0).boxes, source.annotation(0).boxes)
    (batch,) = eval_batches(copy, batch_size=2, size=32)
    assert batch["mask"].tolist() == [True, False] and batch["label"].tolist() == [2, 0]


@pytest.mark.parametrize("case", [ilsvrc_case, lists_case])
def test_blacklisted_images_are_marked_and_stay(case, tmp_path, data_dir):
    case = case(tmp_path, data_dir)
    case.options["blacklist"] = write(tmp_path / "blacklist.txt", "36\n")
    assert case.annotation().excluded == ""
    write(tmp_path / "blacklist.txt", "\ufeff1 \r\n36\r\n")
    assert case.annotation().excluded == BLACKLISTED and len(case.annotation().boxes) == 1


def test_an_archive_gives_the_same_as_its_folder(tmp_path, data_dir):
    case = ilsvrc_case(tmp_path, data_dir)
    case.options["boxes"] = tmp_path / "ILSVRC2012_bbox_val_v3.tgz"
    with tarfile.open(case.options["boxes"], "w:gz") as archive:
        data = case.files[0].read_bytes()
        member = tarfile.TarInfo(f"val/{STEM}.xml")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    check(case)


def test_one_format_is_chosen_for_each(tmp_path, data_dir):
    modules = [format.open.__module__.rpartition(".")[2] for format in FORMATS]
    assert sorted(modules) == sorted({*WITH_BOXES, "class_folders", "tfds_boxes"})
    assert {option for format in FORMATS for option in format.options} == set(OPTIONS)
    assert len({format.title for format in FORMATS}) == len(FORMATS)
    (tmp_path / "xml").mkdir()
    requests = {
        "box_csv": Request("photos", "val", True, boxes=tmp_path / "boxes.csv"),
        "voc_xml": Request("photos", "val", True, boxes=tmp_path / "xml"),
        "class_folders": Request("photos", "val", True),
        "label_csv": Request("photos.csv", "val", False, boxes=tmp_path / "boxes.csv"),
        "wsol_lists": Request("photos", "val", True, lists=tmp_path),
        "ilsvrc_xml": Request("imagenet2012", "val", False, boxes=tmp_path / "xml"),
        "tfds_boxes": Request("imagenet2012", "val", False),
    }
    for module, request in requests.items():
        assert modules[[format.recognizes(request) for format in FORMATS].index(True)] == module


@pytest.mark.parametrize(
    ("folder", "options", "wrong"),
    [
        (False, {"masks": "m"}, "masks"),
        (False, {"class_names": ["a"]}, "class_names"),
        (True, {"data_dir": "d"}, "data_dir"),
        (True, {"blacklist": "b", "masks": "m"}, "blacklist, masks"),
        (True, {"boxes": "b", "lists": "l"}, "boxes"),
        (True, {"boxes": "b", "blacklist": "l"}, "blacklist"),
    ],
)
def test_options_that_cannot_be_used_together(tmp_path, folder, options, wrong):
    dataset = tmp_path / "photos" if folder else "scenes"
    kind = "a folder of images" if folder else "a data set of tfds"
    with pytest.raises(ValueError, match=f"^{wrong} cannot be used with .*{dataset}.*{kind}"):
        open_annotated(dataset, "val", **options)


def test_a_folder_is_a_path_and_a_word_is_a_name(tmp_path, monkeypatch):
    write(tmp_path / "photos" / "val" / "cat" / "a.png", PNG)
    photos = tmp_path / "photos"
    monkeypatch.chdir(tmp_path)
    for folder in (photos, "./photos", str(photos), f"../{tmp_path.name}/photos"):
        assert open_annotated(folder, "val").annotation(0).filename == "cat/a.png"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_annotated("~/photos", "val").annotation(0).filename == "cat/a.png"
    assert open_annotated("photos/val", "all").annotation(0).filename == "cat/a.png"
    assert open_image_folder("photos", "val").annotation(0).filename == "cat/a.png"
    with pytest.raises(ValueError, match=r"unknown data set 'photos'.*give '\./photos'"):
        open_annotated("photos", "val")
    lists = lists_case(tmp_path, None)
    assert open_annotated("images", "val", lists=lists.options["lists"]).annotation(0).label == 2


def test_a_folder_called_as_a_data_set_does_not_hide_it(data_dir, tmp_path, monkeypatch):
    (tmp_path / "imagenet2012").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(open_annotated("imagenet2012", "validation", data_dir=data_dir)) == 1


def test_an_annotation_without_more_is_its_own_for_wsolevaluation():
    boxes = np.array([[0, 0, 1, 1]], np.float32)
    assert Annotation("a.png", 0, boxes).wsol_boxes is boxes
    assert Annotation("a.png", 0, boxes, wsol_boxes=boxes[:0]).wsol_boxes.shape == (0, 4)


def test_the_public_names_are_there():
    assert sorted(name for names in camjax.data._MODULES.values() for name in names) == sorted(camjax.data.__all__)
    for name in camjax.data.__all__:
        assert getattr(camjax.data, name).__module__.startswith("camjax.data.")
    with pytest.raises(AttributeError, match="has no attribute 'open_anotated'"):
        _ = camjax.data.open_anotated
