import os

import numpy as np
import pytest
from PIL import Image
from skimage import data

from camjax.data.annotated import open_image_folder
from camjax.data.annotation import UNREADABLE
from camjax.data.annotations.box_csv import read_box_csv
from camjax.data.annotations.voc_xml import find_xml, read_voc_xml
from camjax.data.image_files import find_images
from camjax.data.images import load_image

XML = """<annotation><filename>{name}</filename><size><width>{width}</width><height>{height}</height></size>{objects}
</annotation>"""
OBJECT = """<object><name>{name}</name><bndbox>
<xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def write_xml(path, name, size, *boxes, label="cat"):
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(OBJECT.format(*box, name=label) for box in boxes)
    path.write_text(XML.format(name=name, width=size[0], height=size[1], objects=objects))


@pytest.fixture
def photos(tmp_path):
    """Sub-folders are classes: two cats, the second deeper and in capitals, and a cup; and files that are no images."""
    root = tmp_path / "photos"
    save(root / "val" / "cat" / "chelsea.png", data.chelsea())  # 451 x 300
    save(root / "val" / "cat" / "old" / "GRAY.JPG", data.cat()[..., 0])  # 451 x 300
    save(root / "val" / "cup" / "coffee.jpg", data.coffee())  # 600 x 400
    (root / "val" / "notes.txt").write_text("no image")
    save(root / "val" / ".thumbnails" / "chelsea.png", data.chelsea()[:10])
    save(root / "train" / "cat" / "other.png", data.chelsea()[:20])
    return root


NAMES = ["cat/chelsea.png", "cat/old/GRAY.JPG", "cup/coffee.jpg"]


def write_csv(path, *lines, columns="filename,xmin,ymin,xmax,ymax"):
    path.write_text("\n".join([columns, *lines, ""]))
    return path


def test_folders_are_classes(photos):
    source = open_image_folder(photos, "val")
    assert source.info.class_names == ("cat", "cup") and source.info.num_examples == len(source) == 3
    assert not source.has_boxes and not source.has_masks
    assert [source.annotation(i).filename for i in range(3)] == [source[i]["filename"] for i in range(3)] == NAMES
    assert [source.annotation(i).label for i in range(3)] == [source[i]["label"] for i in range(3)] == [0, 0, 1]
    assert all(source.annotation(i).boxes.shape == (0, 4) for i in range(3))
    np.testing.assert_array_equal(source[0]["image"], data.chelsea())
    assert source[1]["image"].shape == (300, 451, 3)
    with pytest.raises(IndexError, match="index 3"):
        source[3]
    with pytest.raises(ValueError, match="has no masks"):
        source.mask(0)


def test_splits_are_folders_or_all(photos):
    assert open_image_folder(photos, "train")[0]["filename"] == "cat/other.png"
    assert len(open_image_folder(photos / "val", "all")) == 3
    whole = open_image_folder(photos, "all")
    assert len(whole) == 4 and whole.info.class_names == ("train", "val")
    for split in ("test", "..", "", "../photos/val"):
        with pytest.raises(ValueError, match=r"expected a sub-folder of .*\(train, val\), or 'all'"):
            open_image_folder(photos, split)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        open_image_folder(photos / "none", "all")
    (photos / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no images: expected files that end in .*\.jpg"):
        open_image_folder(photos, "empty")


def test_class_names_give_the_order_of_the_labels(photos):
    source = open_image_folder(photos, "val", class_names=["dog", "cup", "cat"])
    assert [source.annotation(i).label for i in range(3)] == [2, 2, 1]
    assert source.info.class_names == ("dog", "cup", "cat")
    source = open_image_folder(photos, "val", class_names=["dog", "Cup", "tabby, cat"])  # as in `camjax evaluate`
    assert [source.annotation(i).label for i in range(3)] == [2, 2, 1]
    with pytest.raises(ValueError, match=r"val has classes that the model does not have: 'cup'\."):
        open_image_folder(photos, "val", class_names=["dog", "cat"])
    with pytest.raises(ValueError, match="several classes of the model share: 'cup'"):
        open_image_folder(photos, "val", class_names=["cup", "dog", "cup, mug", "cat, cup", "cup"])


def test_folders_called_by_numbers_are_labels(tmp_path):
    for label in (0, 2, 10):
        save(tmp_path / str(label) / "a.png", data.chelsea()[:5, :5])
    source = open_image_folder(tmp_path, "all")
    assert [(source[i]["filename"], source[i]["label"]) for i in range(3)] == [
        ("0/a.png", 0),
        ("10/a.png", 10),
        ("2/a.png", 2),
    ]
    assert source.info.class_names == tuple(map(str, range(11)))
    save(tmp_path / "20261121" / "a.png", data.chelsea()[:5, :5])  # a date: so these are names
    assert open_image_folder(tmp_path, "all").info.class_names == ("0", "10", "2", "20261121")


def test_boxes_of_a_csv_file(photos, tmp_path):
    boxes = write_csv(
        tmp_path / "boxes.csv",
        "cat/chelsea.png,0,0,450,299",
        "cup/coffee.jpg,,,,",
        "cat/chelsea.png,90,30,179.5,59",
        "",
    )
    source = open_image_folder(photos, "val", boxes=boxes)
    assert source.has_boxes
    first = source.annotation(0)
    expected = np.array([[0, 0, 1, 1], [30 / 300, 90 / 451, 60 / 300, 180.5 / 451]], np.float32)
    np.testing.assert_array_equal(first.boxes, expected)
    expected = np.array([[0, 0, 299 / 300, 450 / 451], [30 / 300, 90 / 451, 59 / 300, 179.5 / 451]], np.float32)
    np.testing.assert_array_equal(first.wsol_boxes, expected)
    assert first.excluded == "" and first.boxes.dtype == np.float32
    assert [len(source.annotation(i).boxes) for i in (1, 2)] == [0, 0]


def test_labels_of_a_csv_file(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "images" / name, data.chelsea())
    columns = "label,ymax,xmax,ymin,xmin,filename,width"
    lines = ["cup,5,4,3,2,a.png,451", "cat,,,,,b.png,451", "cup,9,8,7,6,a.png,451"]
    boxes = write_csv(tmp_path / "boxes.csv", *lines, "cat,1,1,0,0,c.png,451", columns="\ufeff" + columns)
    source = open_image_folder(tmp_path / "images", "all", boxes=boxes)
    assert source.info.class_names == ("cat", "cup")
    assert [source.annotation(i).label for i in range(3)] == [1, 0, 0]
    expected = np.array([[3 / 300, 2 / 451, 6 / 300, 5 / 451], [7 / 300, 6 / 451, 10 / 300, 9 / 451]], np.float32)
    np.testing.assert_array_equal(source.annotation(0).boxes, expected)

    boxes = write_csv(tmp_path / "boxes.csv", *lines, columns=columns)
    with pytest.raises(ValueError, match=r"c\.png has no class: expected a sub-folder for each class, or a label"):
        open_image_folder(tmp_path / "images", "all", boxes=boxes)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png,1,2,3"], "line 2 has 4 fields: expected 5, as line 1 has"),
        (["a.png,1,2,3,4", "a.png,1,2,3,4,cat"], "line 3 has 6 fields"),
        (["a.png,1,2,three,4"], "line 2 has the box 1, 2, three, 4: expected four numbers"),
        (["a.png,1,2,,4"], "line 2 has the box 1, 2, , 4: expected four numbers of pixels, or none"),
        ([",1,2,3,4"], "line 2 has no filename"),
        (["a.png,,,,", "a.png,1,2,3,4"], "line 3 gives 'a.png' a box, but .*line 2 says that it has none"),
        (["a.png,1,2,3,4", "a.png,,,,"], "line 3 says that 'a.png' has no boxes, but .*line 2 names it"),
        (["a.png,,,,", "a.png,,,,"], "line 3 says that 'a.png' has no boxes, but .*line 2 names it"),
        ([], "lists no images"),
    ],
)
def test_a_wrong_line_of_a_csv_file_is_named(tmp_path, lines, message):
    with pytest.raises(ValueError, match=r"boxes\.csv.*" + message):
        read_box_csv(write_csv(tmp_path / "boxes.csv", *lines))


def test_two_labels_for_one_image(tmp_path, photos):
    columns = "filename,xmin,ymin,xmax,ymax,label"
    boxes = write_csv(tmp_path / "boxes.csv", "a.png,1,2,3,4,cat", "a.png,1,2,3,4,cup", columns=columns)
    with pytest.raises(ValueError, match=r"line 3 gives 'a.png' the label 'cup', but .*line 2 gives 'cat'"):
        read_box_csv(boxes)
    write_csv(boxes, "cup/coffee.jpg,1,2,3,4,cat", columns=columns)
    with pytest.raises(ValueError, match=r"line 2: .*coffee\.jpg has the classes cat, cup: expected one"):
        open_image_folder(photos, "val", boxes=boxes)


@pytest.mark.parametrize("columns", ["filename,x,y,w,h", "filename,xmin,ymin,xmax,ymax,xmin", "", "a.png,1,2,3,4"])
def test_a_csv_file_without_the_columns(tmp_path, columns):
    with pytest.raises(ValueError, match=r"line 1 names the columns .*expected each of filename, xmin"):
        read_box_csv(write_csv(tmp_path / "boxes.csv", columns=columns))


def test_a_file_that_is_no_csv(tmp_path):
    (tmp_path / "boxes.csv").write_bytes("filename,xmin,ymin,xmax,ymax\nä.png,1,2,3,4\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"boxes\.csv, line 2, is not UTF-8"):
        read_box_csv(tmp_path / "boxes.csv")
    (tmp_path / "boxes.csv").write_text('filename,xmin,ymin,xmax,ymax\n"a' + "b" * 200_000)
    with pytest.raises(ValueError, match="near line"):
        read_box_csv(tmp_path / "boxes.csv")


def test_boxes_outside_of_their_image_name_the_line(photos, tmp_path):
    boxes = write_csv(tmp_path / "boxes.csv", "cat/chelsea.png,0,0,450,299", "cat/chelsea.png,0,0,452,299")
    with pytest.raises(ValueError, match=r"boxes\.csv, line 3: .*leaves the image of 451 x 300 pixels"):
        open_image_folder(photos, "val", boxes=boxes)


@pytest.mark.parametrize("box", ["0.25,0.1,0.5,1", "0,0,1,1", "0.0,0.0,1.0,0.99"])
def test_boxes_in_shares_of_the_image_are_told(photos, tmp_path, box):
    boxes = write_csv(tmp_path / "boxes.csv", f"cat/chelsea.png,{box}", "cup/coffee.jpg,,,,")
    with pytest.raises(ValueError, match=r"boxes\.csv: all boxes lie in 0\.\.1, as shares .* expected pixels"):
        open_image_folder(photos, "val", boxes=boxes)
    write_csv(boxes, f"cat/chelsea.png,{box}", "cup/coffee.jpg,1,2,300,200")
    if box != "0,0,1,1":  # four pixels, perhaps
        with pytest.raises(ValueError, match=r"boxes\.csv, line 2: .*looks like shares .*width, 451, .*height, 300"):
            for index in range(3):
                open_image_folder(photos, "val", boxes=boxes).annotation(index)
    write_xml(tmp_path / "xml" / "chelsea.xml", "chelsea.png", (451, 300), box.split(","))
    if box != "0,0,1,1":
        with pytest.raises(ValueError, match=r"chelsea\.xml: object 1: .*looks like shares"):
            open_image_folder(photos, "val", boxes=tmp_path / "xml")


def test_boxes_of_images_that_are_not_there(photos, tmp_path):
    boxes = write_csv(tmp_path / "boxes.csv", "cat/chelsea.png,0,0,5,5", "cat/chelsea.jpg,0,0,5,5")
    with pytest.raises(FileNotFoundError, match=r"boxes\.csv, line 3: image .*val/cat/chelsea\.jpg not found"):
        open_image_folder(photos, "val", boxes=boxes)
    for name in (photos / "train" / "cat" / "other.png", "notes.txt", "cat/.hidden.png"):
        (photos / "val" / "cat" / ".hidden.png").touch()
        write_csv(boxes, f"{name},0,0,5,5")
        with pytest.raises(ValueError, match=rf"{name} is there, but not one of the images of .*val"):
            open_image_folder(photos, "val", boxes=boxes)
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist"):
        open_image_folder(photos, "val", boxes=tmp_path / "none.csv")


def test_boxes_are_on_the_stored_pixels_whatever_the_exif_tag_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees"
    for suffix in ("jpg", "png", "tif"):
        save(tmp_path / "images" / "cat" / f"a_{suffix}.{suffix}", data.chelsea(), exif=exif)
    boxes = write_csv(tmp_path / "boxes.csv", *(f"cat/a_{suffix}.{suffix},0,0,149,299" for suffix in ("jpg", "png")))
    source = open_image_folder(tmp_path / "images", "all", boxes=boxes)
    for index in (0, 1):
        assert source[index]["image"].shape == (300, 451, 3)
        expected = np.array([[0, 0, 1, 150 / 451]], np.float32)
        np.testing.assert_array_equal(source.annotation(index).boxes, expected)
    # TIFF's tag tells its decoders how the rows are stored: the image comes out turned, and its size with it.
    boxes = write_csv(tmp_path / "boxes.csv", "cat/a_tif.tif,0,0,299,149")
    source = open_image_folder(tmp_path / "images", "all", boxes=boxes)
    assert source[2]["image"].shape == (451, 300, 3)
    np.testing.assert_array_equal(source.annotation(2).boxes, np.array([[0, 0, 150 / 451, 1]], np.float32))

    write_xml(tmp_path / "xml" / "a_jpg.xml", "a_jpg.jpg", (300, 451), (0, 0, 149, 299))
    with pytest.raises(
        ValueError, match=r"a_jpg\.xml .*300 x 451 pixels.* 451 x 300, as stored.*turned by its EXIF tag"
    ):
        open_image_folder(tmp_path / "images", "all", boxes=tmp_path / "xml")


def test_an_unreadable_image_is_told_and_not_dropped(photos, tmp_path):
    boxes = write_csv(tmp_path / "boxes.csv", *(f"{name},0,0,5,5" for name in NAMES))
    (photos / "val" / NAMES[0]).write_bytes(b"\x89PNG")
    (photos / "val" / NAMES[2]).write_bytes(b"")
    source = open_image_folder(photos, "val", boxes=boxes)
    assert [source.annotation(i).excluded for i in range(3)] == [UNREADABLE, "", UNREADABLE]
    assert source.annotation(0).boxes.shape == (0, 4)
    for index in (0, 2):
        with pytest.raises(ValueError, match=NAMES[index]):
            source[index]


def test_xml_files_lie_beside_their_images_or_in_a_folder_of_their_own(photos, tmp_path):
    for folder in (photos / "val", tmp_path / "flat"):
        place = "cat/old/GRAY.xml" if folder == photos / "val" else "GRAY.xml"
        write_xml(folder / place, "GRAY.JPG", (451, 300), (0, 0, 450, 299), (45, 30, 89, 59))
        source = open_image_folder(photos, "val", boxes=folder)
        expected = np.array([[0, 0, 1, 1], [30 / 300, 45 / 451, 60 / 300, 90 / 451]], np.float32)
        np.testing.assert_array_equal(source.annotation(1).boxes, expected)
        assert [len(source.annotation(i).boxes) for i in (0, 2)] == [0, 0]


def test_xml_files_give_the_classes_of_a_flat_folder(tmp_path):
    for name, label in (("a", "cup"), ("b", "cat")):
        save(tmp_path / "images" / f"{name}.png", data.chelsea())
        write_xml(tmp_path / "xml" / f"{name}.xml", f"{name}.png", (451, 300), (1, 2, 3, 4), label=label)
    source = open_image_folder(tmp_path / "images", "all", boxes=tmp_path / "xml")
    assert source.info.class_names == ("cat", "cup")
    assert [source.annotation(i).label for i in range(2)] == [1, 0]


def test_xml_files_that_do_not_fit_the_images(photos, tmp_path):
    xml = tmp_path / "xml"
    xml.mkdir()
    with pytest.raises(ValueError, match="xml has no XML files"):
        open_image_folder(photos, "val", boxes=xml)

    write_xml(xml / "tiger.xml", "tiger.png", (451, 300), (1, 2, 3, 4))
    with pytest.raises(FileNotFoundError, match=r"tiger\.xml: image 'tiger' not found"):
        open_image_folder(photos, "val", boxes=xml)
    (xml / "tiger.xml").unlink()

    write_xml(xml / "coffee.xml", "coffee.jpg", (600, 400), (1, 2, 3, 4), label="cat")
    with pytest.raises(ValueError, match=r"coffee\.xml: .*coffee\.jpg has the classes cat, cup"):
        open_image_folder(photos, "val", boxes=xml)

    write_xml(xml / "coffee.xml", "coffee.jpg", (300, 300), (1, 2, 3, 4), label="cup")
    with pytest.raises(ValueError, match=r"coffee\.xml is about an image of 300 x 300 pixels, but .* has 600 x 400\."):
        open_image_folder(photos, "val", boxes=xml)
    write_xml(xml / "coffee.xml", "coffee.jpg", (300, 200), (30, 20, 59, 39), label="cup")
    copied = open_image_folder(photos, "val", boxes=xml).annotation(2)
    np.testing.assert_allclose(copied.boxes, [[20 / 200, 30 / 300, 40 / 200, 60 / 300]], rtol=1e-6)

    write_xml(xml / "cup" / "coffee.xml", "coffee.jpg", (600, 400), (1, 2, 3, 4), label="cup")
    with pytest.raises(ValueError, match=r"coffee\.xml and .*coffee\.xml are both about cup/coffee\.jpg"):
        open_image_folder(photos, "val", boxes=xml)
    (xml / "cup" / "coffee.xml").unlink()

    save(photos / "val" / "cat" / "coffee.png", data.coffee())
    with pytest.raises(ValueError, match=r"coffee\.xml may be about cat/coffee\.png or cup/coffee\.jpg"):
        open_image_folder(photos, "val", boxes=xml)


@pytest.mark.parametrize(
    "written", ["./cat/chelsea.png", "cat//chelsea.png", "cat\\chelsea.png", "cup/../cat/chelsea.png"]
)
def test_spellings_of_a_name_in_a_csv_file(photos, tmp_path, written):
    boxes = write_csv(tmp_path / "boxes.csv", f"{written},0,0,450,299", "cat/chelsea.png,0,0,9,9")
    source = open_image_folder(photos, "val", boxes=boxes)
    assert [len(source.annotation(i).boxes) for i in range(3)] == [2, 0, 0]


def test_absolute_names_and_accents_in_one_and_two_characters(tmp_path):
    one, two = "caf\u00e9.png", "cafe\u0301.png"
    for stored, written in ((one, two), (two, one)):
        root = tmp_path / f"stored as {len(stored)}"
        save(root / "cup" / stored, data.chelsea())
        boxes = write_csv(tmp_path / "boxes.csv", f"cup/{written},0,0,9,9", f"{root / 'cup' / stored},0,0,9,9")
        with pytest.raises(ValueError, match=r"line 3 and .*line 2 write 'cup/cafe?.*' in two ways"):
            open_image_folder(root, "all", boxes=boxes)
        for name in (f"cup/{written}", root / "cup" / stored):
            write_csv(boxes, f"{name},0,0,9,9")
            assert len(open_image_folder(root, "all", boxes=boxes).annotation(0).boxes) == 1
        write_xml(root / "xml" / f"{written}.xml".replace(".png", ""), written, (451, 300), (0, 0, 9, 9), label="cup")
        assert len(open_image_folder(root, "all", boxes=root / "xml").annotation(0).boxes) == 1


def test_images_of_all_suffixes_are_found_and_other_files_counted(tmp_path):
    for name, kind in {
        "a.jfif": "JPEG",
        "b.JPE": "JPEG",
        "c.avif": "AVIF",
        "d.jp2": "JPEG2000",
        "e.Tga": "TGA",
    }.items():
        save(tmp_path / "cat" / name, data.chelsea()[:32, :32], format=kind)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    source = open_image_folder(tmp_path, "all")
    assert [source[i]["filename"][4:] for i in range(5)] == ["a.jfif", "b.JPE", "c.avif", "d.jp2", "e.Tga"]
    assert all(np.abs(source[i]["image"] - data.chelsea()[:32, :32].astype(int)).mean() < 8 for i in range(5))
    for name in ("f.heic", "g.HEIC", "h.jpg.1", ".DS_Store"):
        (tmp_path / "cat" / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"3 files are left out.*\(2 \.heic, 1 \.1\)"):
        assert len(open_image_folder(tmp_path, "all")) == 5


def test_links_in_circles_end(tmp_path):
    for here in "ab":
        save(tmp_path / here / "image.png", data.chelsea()[:5, :5])
    for here, there in ("ab", "ba", "aa", "bb"):
        (tmp_path / here / f"to {there}").symlink_to(tmp_path / there, target_is_directory=True)
        (tmp_path / here / f"up {there}").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "itself.txt").symlink_to("itself.txt")
    assert find_images(tmp_path) == ["a/image.png", "a/to b/image.png", "b/image.png", "b/to a/image.png"]
    write_xml(tmp_path / "xml" / "far" / "image.xml", "image.png", (5, 5), (0, 0, 1, 1))
    (tmp_path / "xml" / "far" / "up").symlink_to(tmp_path / "xml", target_is_directory=True)
    assert len(find_xml(tmp_path / "xml")) == 1


def test_a_named_pipe_is_refused_and_not_read(photos, tmp_path):
    os.mkfifo(photos / "val" / "cat" / "pipe.png")
    pipe = photos / "val" / "cat" / "pipe.png"
    source = open_image_folder(photos, "val", boxes=write_csv(tmp_path / "boxes.csv", "cat/pipe.png,0,0,5,5"))
    assert source.annotation(2).excluded == UNREADABLE
    os.mkfifo(tmp_path / "pipe.xml")
    for read in (lambda: source[2], lambda: load_image(pipe), lambda: read_box_csv(pipe), lambda: read_voc_xml(pipe)):
        with pytest.raises(ValueError, match=r"pipe\.png is a named pipe: expected a file"):
            read()
    with pytest.raises(ValueError, match="/dev/zero is a device"):
        load_image("/dev/zero")
