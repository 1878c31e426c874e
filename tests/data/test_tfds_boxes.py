import io
import tarfile

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from skimage import data
from tiny_tfds import prepare_tfds

from camjax.data import scenes
from camjax.data.annotated import open_annotated
from camjax.data.annotation import BLACKLISTED, AnnotatedSource
from camjax.data.annotations.tfds_boxes import TfdsImages
from camjax.data.sources import open_source

WNIDS = ["n01440764", "n01443537", "n01484850"]
# xmin, ymin, xmax, ymax of the boxes of ILSVRC2012_val_00000001 to 4; the fourth has no XML file.
BOXES = [[(0, 0, 450, 299)], [(45, 30, 89, 59), (100, 0, 200, 50)], []]
XML = """<annotation>
	<folder>val</folder>
	<filename>{stem}</filename>
	<size><width>451</width><height>300</height><depth>3</depth></size>{objects}
</annotation>"""
OBJECT = """
	<object>
		<name>{wnid}</name>
		<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
	</object>"""


def stem(number):
    return f"ILSVRC2012_val_{number:08d}"


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, scenes_dir):
    """scenes; imagenet2012 with four photographs; masks of both kinds, without file names."""
    data_dir = tmp_path_factory.mktemp("tfds")
    (data_dir / "scenes").symlink_to(scenes_dir / "scenes")
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=WNIDS),
        "file_name": tfds.features.Text(),
    }
    photo = cv2.imencode(".jpg", data.chelsea()[..., ::-1])[1].tobytes()
    examples = [{"image": photo, "label": n % 3, "file_name": f"{stem(n)}.JPEG"} for n in range(1, 5)]
    prepare_tfds(data_dir, "imagenet2012", features, {"validation": examples}, version="5.1.0")
    # The levels of caltech_birds2011: how many of five annotators saw the bird.
    levels = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
    photo = png(data.chelsea()[:2, :3])
    examples = [
        {"image": photo, "label": 0, "segmentation_mask": png(levels)},
        {"image": photo, "label": 1, "segmentation_mask": png(levels[:, ::-1])},
    ]
    for config in ("gray", "colormap"):  # a color map numbers classes
        mask = tfds.features.Image(shape=(None, None, 1), encoding_format="png", use_colormap=config == "colormap")
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=2),
            "segmentation_mask": mask,
        }
        prepare_tfds(data_dir, "tiny_masks", features, {"test": examples}, config=config)
    return data_dir


@pytest.fixture
def archive(tmp_path):
    """In the layout of ILSVRC2012_bbox_val_v3.tgz."""
    path = tmp_path / "ILSVRC2012_bbox_val_v3.tgz"
    with tarfile.open(path, "w:gz") as packed:
        for number, boxes in enumerate(BOXES, 1):
            objects = "".join(OBJECT.format(*box, wnid=WNIDS[number % 3]) for box in boxes)
            text = XML.format(stem=stem(number), objects=objects).encode()
            member = tarfile.TarInfo(f"val/{stem(number)}.xml")
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text))
    return path


def by_name(source):
    annotations = [source.annotation(i) for i in range(len(source))]
    return {annotation.filename: annotation for annotation in annotations}


def test_scenes_have_boxes_and_masks_that_fit_each_other(data_dir):
    source = open_annotated("scenes", "test[:10]", data_dir=data_dir)
    plain = open_source("scenes", "test[:10]", data_dir=data_dir)
    assert isinstance(source, AnnotatedSource) and source.has_boxes and source.has_masks
    assert len(source) == source.info.num_examples == 10 and source.info.class_names == scenes.CLASS_NAMES
    assert source.info.name == "scenes" and source.info.split == "test[:10]"
    for i in range(10):
        example, annotation, mask = source[i], source.annotation(i), source.mask(i)
        assert tuple(example) == source.info.keys == ("image", "label", "filename")
        np.testing.assert_array_equal(example["image"], plain[i]["image"])
        assert (annotation.filename, annotation.label) == (example["filename"], example["label"])
        np.testing.assert_array_equal(annotation.boxes, plain[i]["bbox"][None])
        assert annotation.excluded == "" and annotation.wsol_boxes is annotation.boxes
        assert mask.dtype == np.uint8 and mask.shape == (64, 64) and set(np.unique(mask)) == {0, 1}
        np.testing.assert_array_equal(scenes.tight_box(mask == 1), annotation.boxes[0])
        assert source.mask(i, (224, 112)).shape == (224, 112)
        np.testing.assert_array_equal(source.mask(i, (128, 128)), np.kron(mask, np.ones((2, 2), np.uint8)))
    for method in (source.__getitem__, source.annotation, source.mask):
        with pytest.raises(IndexError):
            method(10)


def test_annotations_and_masks_are_read_without_decoding_the_image(data_dir, monkeypatch):
    monkeypatch.setattr("camjax.data.sources.decode_image", None)
    source = open_annotated("scenes", "test", data_dir=data_dir)
    assert source.annotation(3).boxes.shape == (1, 4) and source.mask(3).any()
    with pytest.raises(ValueError, match="example 3 of data set 'scenes'"):
        source[3]


def test_validation_boxes_join_by_file_name(data_dir, archive, tmp_path):
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "xml", filter="data")
    for boxes in (archive, tmp_path / "xml"):
        source = open_annotated("imagenet2012", "validation", data_dir=data_dir, boxes=boxes)
        assert source.has_boxes and not source.has_masks
        found = by_name(source)
        assert sorted(found) == [f"{stem(number)}.JPEG" for number in range(1, 5)]
        for number, boxes_of_image in enumerate([*BOXES, []], 1):
            annotation = found[f"{stem(number)}.JPEG"]
            corners = np.array(boxes_of_image, np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
            expected = (corners + np.array([0, 0, 1, 1])) / [300, 451, 300, 451]
            np.testing.assert_array_equal(annotation.boxes, expected.astype(np.float32))
            np.testing.assert_array_equal(annotation.wsol_boxes, (corners / [300, 451, 300, 451]).astype(np.float32))
            assert annotation.label == number % 3 and annotation.excluded == ""
    examples = [source[i] for i in range(4)]
    assert [e["filename"] for e in examples] == [source.annotation(i).filename for i in range(4)]
    assert all(e["image"].shape == (300, 451, 3) for e in examples)


def test_without_boxes_there_are_none(data_dir):
    source = open_annotated("imagenet2012", "validation", data_dir=data_dir)
    assert not source.has_boxes and source.annotation(0).boxes.shape == (0, 4)


def test_the_blacklist_marks_images_and_drops_none(data_dir, archive, tmp_path):
    (tmp_path / "blacklist.txt").write_text("2\n4\n36\n")
    source = open_annotated(
        "imagenet2012", "validation", data_dir=data_dir, boxes=archive, blacklist=tmp_path / "blacklist.txt"
    )
    assert len(source) == 4
    excluded = {name: annotation.excluded for name, annotation in by_name(source).items()}
    assert excluded == {f"{stem(n)}.JPEG": BLACKLISTED if n in (2, 4) else "" for n in range(1, 5)}
    with pytest.raises(ValueError, match=r"blacklist\.txt lists ILSVRC validation images.*'test_00\d+_\w+\.png'"):
        open_annotated("scenes", "test", data_dir=data_dir, blacklist=tmp_path / "blacklist.txt")


def test_boxes_of_another_class_name_the_file(data_dir, tmp_path):
    write = lambda wnid: (tmp_path / f"{stem(1)}.xml").write_text(  # noqa: E731
        XML.format(stem=stem(1), objects=OBJECT.format(1, 2, 3, 4, wnid=wnid))
    )
    for wnid, what in ((WNIDS[2], "another class"), ("n99999999", "not a class of this data set")):
        write(wnid)
        message = rf"{stem(1)}\.xml: object 1 is a '{wnid}', {what}: expected '{WNIDS[1]}'"
        with pytest.raises(ValueError, match=message):
            open_annotated("imagenet2012", "validation", data_dir=data_dir, boxes=tmp_path)


def test_boxes_of_another_data_set(data_dir, archive, tmp_path):
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "n01440764_18.xml").write_text(
        XML.format(stem="n01440764_18", objects=OBJECT.format(1, 2, 3, 4, wnid=WNIDS[0]))
    )
    with pytest.raises(ValueError, match=r"xml has no boxes for the first 4 images of .*'ILSVRC2012_val_0000000"):
        open_annotated("imagenet2012", "validation", data_dir=data_dir, boxes=tmp_path / "xml")
    with pytest.raises(ValueError, match="'scenes' has boxes of its own: leave out"):
        open_annotated("scenes", "test", data_dir=data_dir, boxes=archive)
    with pytest.raises(ValueError, match="'tiny_masks' has no file names to join boxes by"):
        open_annotated("tiny_masks/gray", "test", data_dir=data_dir, boxes=archive)


def test_the_majority_of_annotators_makes_the_mask(data_dir):
    source = open_annotated("tiny_masks/gray", "test", data_dir=data_dir)
    assert source.has_masks and not source.has_boxes
    masks = {source.annotation(i).label: source.mask(i).tolist() for i in range(2)}
    assert masks == {0: [[0, 0, 0], [1, 1, 1]], 1: [[0, 0, 0], [1, 1, 1]]}
    assert [source[i]["filename"] for i in range(2)] == ["00000000", "00000001"]


def test_masks_that_number_classes_are_none(data_dir):
    source = open_annotated("tiny_masks/colormap", "test", data_dir=data_dir)
    assert not source.has_masks
    with pytest.raises(ValueError, match="has no masks"):
        source.mask(0)


def test_a_box_of_the_data_set_that_cannot_be_names_the_image(data_dir):
    class Broken:
        info = open_source("scenes", "test", data_dir=data_dir).info
        has_masks = False

        def without_image(self, index):
            return {
                "label": 0,
                "bbox": np.array([[0, 0, 0, 1], [0, 0.5, 1, 1.5]][index], np.float32),
                "filename": "a.png",
            }

    for index in (0, 1):
        with pytest.raises(ValueError, match=r"'a\.png' in .* has the box \[0\.0, "):
            TfdsImages(Broken()).annotation(index)
