import numpy as np
import pytest

from camjax.data.annotations.voc_xml import MAX_BYTES, parse_voc_xml, read_voc_xml

OBJECT = """
	<object>
		<name>{name}</name>
		<pose>Unspecified</pose>
		<truncated>0</truncated>
		<difficult>1</difficult>
		<bndbox>
			<xmin>{box[0]}</xmin>
			<ymin>{box[1]}</ymin>
			<xmax>{box[2]}</xmax>
			<ymax>{box[3]}</ymax>
		</bndbox>
	</object>"""


def voc_xml(*boxes, width=500, height=375, filename="cat", name="n01751748") -> bytes:
    """An annotation as ILSVRC writes them: tabs, a file name without suffix, boxes (xmin, ymin, xmax, ymax)."""
    objects = "".join(OBJECT.format(name=name, box=box) for box in boxes)
    return f"""<annotation>
	<folder>val</folder>
	<filename>{filename}</filename>
	<source>
		<database>ILSVRC_2012</database>
	</source>
	<size>
		<width>{width}</width>
		<height>{height}</height>
		<depth>3</depth>
	</size>
	<segmented>0</segmented>{objects}
</annotation>
""".encode()


def ilsvrc_iou(a, b):
    """The overlap of ILSVRC's and VOC's development kits, on inclusive pixels: every extent counts one more."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    area_a, area_b = ((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b))
    return width * height / (area_a + area_b - width * height)


def iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def test_a_file_of_the_validation_set(tmp_path):
    path = tmp_path / "ILSVRC2012_val_00000001.xml"
    path.write_bytes(voc_xml((111, 108, 441, 193), (0, 0, 499, 374), filename="ILSVRC2012_val_00000001"))
    found = read_voc_xml(path)
    assert (found.where, found.size, found.classes) == (str(path), (375, 500), ("n01751748", "n01751748"))
    assert found.corners == [(111, 108, 441, 193), (0, 0, 499, 374)]
    boxes = found.boxes(found.size)
    # Pixels 111 to 441 and 108 to 193; and the whole image.
    expected = np.array([[108 / 375, 111 / 500, 194 / 375, 442 / 500], [0, 0, 1, 1]], np.float32)
    np.testing.assert_array_equal(boxes, expected)
    assert boxes.dtype == np.float32
    expected = np.array([[108 / 375, 111 / 500, 193 / 375, 441 / 500], [0, 0, 374 / 375, 499 / 500]], np.float32)
    np.testing.assert_array_equal(found.wsol_boxes(found.size), expected)


def test_overlaps_are_those_of_the_development_kit():
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = rng.integers(2, 60, 2)
        x, y = np.sort(rng.integers(0, width, (2, 2))), np.sort(rng.integers(0, height, (2, 2)))
        corners = [(x[i, 0], y[i, 0], x[i, 1], y[i, 1]) for i in range(2)]
        found = parse_voc_xml(voc_xml(*corners, width=width, height=height), "cat.xml")
        boxes = found.boxes((height, width)).astype(np.float64)
        assert iou(*boxes) == pytest.approx(ilsvrc_iou(*corners), abs=1e-5)


def test_an_image_without_objects_has_no_boxes():
    found = parse_voc_xml(voc_xml(), "cat.xml")
    assert found.classes == () and found.boxes(found.size).shape == found.wsol_boxes(found.size).shape == (0, 4)


@pytest.mark.parametrize("filename", ["cat", "cat.jpg", "photos/cat.JPEG", "C:\\photos\\cat.png", ""])
def test_file_names_in_the_file(filename):
    assert len(parse_voc_xml(voc_xml((1, 2, 3, 4), filename=filename), "a/cat.xml").corners) == 1


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 5, 9, 8), "object 2: the box xmin=10, ymin=5, xmax=9, ymax=8"),
        ((1, 5, 9, 4), "expected xmin <= xmax and ymin <= ymax"),
        ((1, 5, 501, 8), "leaves the image of 500 x 375 pixels"),
        ((1, 5, 9, 376), "leaves the image"),
        ((-2, 5, 9, 8), "leaves the image"),
        ((500, 5, 500, 8), "leaves the image"),
        ((3, -1, 9, -1), "leaves the image"),
        ((1, 5, "nan", 8), "expected xmin <= xmax"),
        ((1, "", 9, 8), "object 2: <ymin> is '': expected a number"),
        ((1, "five", 9, 8), "<ymin> is 'five'"),
    ],
)
def test_a_box_that_cannot_be_names_file_and_object(box, message):
    with pytest.raises(ValueError, match="object 2") as error:
        parse_voc_xml(voc_xml((1, 2, 3, 4), box), "a/cat.xml")
    assert str(error.value).startswith("a/cat.xml") and message in str(error.value)


BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>"""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BOMB, "declares a document type"),
        (BOMB.decode().encode("utf-16"), "declares a document type"),
        (b'<!DOCTYPE annotation SYSTEM "file:///etc/passwd"><annotation/>', "declares a document type"),
        (b"", "cannot be read as XML: no element found"),
        (voc_xml((1, 2, 3, 4))[:200], "cannot be read as XML.*line"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read as XML"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "cannot be read as XML"),
        (b"<html></html>", "holds <html>: expected <annotation>"),
        (b"<annotation></annotation>", "<size>: <width> is nothing"),
        (voc_xml(width=0), "<size> is 0 x 375 pixels"),
        (voc_xml(width="nan"), "<size> is nan x 375 pixels"),
        (voc_xml(width="inf"), "<size> is inf x 375 pixels"),
        (voc_xml(filename="dog.jpg"), "has the <filename> 'dog.jpg': expected 'cat'"),
        (voc_xml((1, 2, 3, 4), name=""), "object 1 has no <name>"),
        (voc_xml((1, 2, 3, 4)).replace(b"bndbox", b"box"), "object 1: <xmin> is nothing"),
        (b" " * (MAX_BYTES + 1), f"larger than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_no_annotation_is_an_error_that_names_the_file(data, message):
    with pytest.raises(ValueError, match="^a/cat.xml.*" + message):
        parse_voc_xml(data, "a/cat.xml")


def test_a_huge_file_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "cat.xml").open("wb") as file:
        file.truncate(2**40)  # a terabyte that takes no room on disk
    with pytest.raises(ValueError, match="larger than"):
        read_voc_xml(tmp_path / "cat.xml")
