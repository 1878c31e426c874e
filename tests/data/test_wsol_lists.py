import cv2
import numpy as np
import pytest
from skimage import data

from camjax.data.annotated import open_annotated

# The first lines of wsolevaluation's lists for ImageNetV2, with names of our own; the fourth image has no boxes.
IDS = ["val2/0/cat.jpeg", "val2/0/coffee.jpeg", "val2/1/rocket.jpeg", "val2/10/empty.jpeg"]
BOXES = """\
val2/0/cat.jpeg,156,163,318,230
val2/0/coffee.jpeg,0,0,599,399
val2/0/coffee.jpeg,70,162,70,326
val2/1/rocket.jpeg,639,426,639,426
"""


def write_lists(folder, **lists):
    folder.mkdir(parents=True)
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text)


@pytest.fixture
def dataset(tmp_path):
    """Folders in the layout of wsolevaluation: dataset/ILSVRC with images, metadata/ILSVRC/val with lists."""
    images = {IDS[0]: data.chelsea(), IDS[1]: data.coffee(), IDS[2]: data.rocket(), IDS[3]: data.rocket()[:90, :80]}
    for name, image in images.items():
        path = tmp_path / "dataset" / "ILSVRC" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])
    write_lists(
        tmp_path / "metadata" / "ILSVRC" / "val",
        image_ids="".join(f"{name}\n" for name in IDS),
        class_labels="".join(f"{name},{label}\n" for name, label in zip(IDS, [2, 0, 1, 1], strict=True)),
        image_sizes="".join(f"{name},{i.shape[1]},{i.shape[0]}\n" for name, i in images.items()),
        localization=BOXES,
    )
    return tmp_path


def open_val(dataset, **options):
    return open_annotated(dataset / "dataset" / "ILSVRC", "val", lists=dataset / "metadata" / "ILSVRC", **options)


def edit(dataset, name, old, new):
    path = dataset / "metadata" / "ILSVRC" / "val" / f"{name}.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_images_labels_and_boxes_in_the_order_of_the_list(dataset):
    source = open_val(dataset)
    assert source.has_boxes and not source.has_masks and len(source) == 4
    assert source.info.class_names == ("0", "1", "2") and source.info.split == "val"
    for index, (name, label) in enumerate(zip(IDS, [2, 0, 1, 1], strict=True)):
        example, annotation = source[index], source.annotation(index)
        assert (example["filename"], example["label"]) == (annotation.filename, annotation.label) == (name, label)
        stored = cv2.imread(str(dataset / "dataset" / "ILSVRC" / name))[..., ::-1]
        np.testing.assert_array_equal(example["image"], stored)
    expected = np.array([[163 / 300, 156 / 451, 230 / 300, 318 / 451]], np.float32)
    np.testing.assert_array_equal(source.annotation(0).boxes, expected)
    assert source.annotation(3).boxes.shape == source.annotation(3).wsol_boxes.shape == (0, 4)
    assert source.annotation(3).excluded == ""
    with pytest.raises(IndexError, match=r"index 4 is out of range.*4 images"):
        source.annotation(4)
    with pytest.raises(IndexError):
        source[-1]


def test_a_side_without_length_is_a_pixel_long_but_stays_as_listed_for_wsolevaluation(dataset):
    source = open_val(dataset)
    _, box = source.annotation(1).boxes
    np.testing.assert_array_equal(box, np.array([162 / 400, 70 / 600, 326 / 400, 71 / 600], np.float32))
    np.testing.assert_array_equal(source.annotation(2).boxes, np.array([[426 / 427, 639 / 640, 1, 1]], np.float32))
    _, box = source.annotation(1).wsol_boxes
    np.testing.assert_array_equal(box, np.array([162 / 400, 70 / 600, 326 / 400, 70 / 600], np.float32))


def test_every_listed_integer_can_be_had_back(tmp_path):
    """wsolevaluation's box on its grid of 224 is int(x * 224 / width); from the shares, with room for rounding."""
    rng = np.random.default_rng(0)
    sizes = [(500, 375), (448, 672), (333, 500), (700, 224), (1652, 1439), (97, 61)]
    images, boxes, expected = [], [], []
    for number, (width, height) in enumerate(sizes):
        images.append(f"{number}.png")
        for _ in range(300):
            x, y = np.sort(rng.integers(0, width, 2)), np.sort(rng.integers(0, height, 2))
            boxes.append(f"{number}.png,{x[0]},{y[0]},{x[1]},{y[1]}\n")
            expected.append(
                [int(float(v) * 224.0 / n) for v, n in zip((*y, *x), (height, height, width, width), strict=True)]
            )
        (tmp_path / images[-1]).touch()
    write_lists(
        tmp_path / "lists",
        image_ids="\n".join(images),
        class_labels="\n".join(f"{name},0" for name in images),
        image_sizes="\n".join(f"{name},{w},{h}" for name, (w, h) in zip(images, sizes, strict=True)),
        localization="".join(boxes),
    )
    source = open_annotated(tmp_path, "test", lists=tmp_path / "lists")
    shares = np.concatenate([source.annotation(i).wsol_boxes for i in range(len(source))])
    found = np.floor(shares[:, [0, 2, 1, 3]].astype(np.float64) * 224 + 1e-4).astype(int)
    np.testing.assert_array_equal(found, expected)


def test_images_without_any_boxes_or_masks(dataset):
    (dataset / "metadata" / "ILSVRC" / "val" / "localization.txt").unlink()
    source = open_val(dataset)
    assert not source.has_boxes and not source.has_masks
    assert len(source.annotation(0).boxes) == 0
    with pytest.raises(ValueError, match="has no masks"):
        source.mask(0)


def test_class_names_bound_the_labels(dataset):
    assert open_val(dataset, class_names=["a", "b", "c", "d"]).info.class_names == ("a", "b", "c", "d")
    with pytest.raises(
        ValueError, match=r"class_labels\.txt, line 1: val2/0/cat\.jpeg has the label 2: expected 0\.\.1"
    ):
        open_val(dataset, class_names=["a", "b"])


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("image_ids", IDS[1], IDS[0], r"image_ids\.txt, line 2: val2/0/cat\.jpeg is listed already"),
        ("image_ids", IDS[1], f"{IDS[1]},1", r"image_ids\.txt, line 2: .*expected path\."),
        ("class_labels", ",2", ",two", r"class_labels\.txt, line 1: 'two': expected whole numbers, path,label"),
        ("class_labels", ",2", ",-2", r"class_labels\.txt, line 1: .*has the label -2: expected 0"),
        ("class_labels", f"{IDS[1]},0\n", "", rf"image_ids\.txt, line 2: {IDS[1]} has no label"),
        ("class_labels", f"{IDS[1]},", f"{IDS[0]},", r"class_labels\.txt, line 2: .*is listed already"),
        ("image_sizes", ",451,300", ",451", r"image_sizes\.txt, line 1: .*expected path,width,height"),
        ("image_sizes", ",451,300", ",0,300", r"image_sizes\.txt, line 1: .*is 0 x 300 pixels"),
        ("image_sizes", f"{IDS[1]},600", f"{IDS[0]},600", r"image_sizes\.txt, line 2: .*is listed already"),
        ("image_sizes", f"{IDS[1]},600,400\n", "", r"localization\.txt, line 2: .*coffee.jpeg has no size"),
        ("localization", ",318,230", ",318", r"localization\.txt, line 1: .*x0,y0,x1,y1 or path,mask,ignore"),
        ("localization", "156,163,318,230", "-1,163,-1,230", r"localization\.txt, line 1: .*leaves the image"),
        ("localization", ",318,230", ",318.5,230", r"localization\.txt, line 1: .*expected whole numbers"),
        ("localization", IDS[0], "val2/0/dog.jpeg", r"localization\.txt, line 1: val2/0/dog\.jpeg is not in"),
        ("localization", BOXES, f"{BOXES}{IDS[0]},a.png,\n", "lines of boxes .* and of masks"),
    ],
)
def test_a_wrong_line_is_named(dataset, name, old, new, message):
    edit(dataset, name, old, new)
    with pytest.raises(ValueError, match=message):
        open_val(dataset)


def test_missing_files_are_named(dataset):
    (dataset / "dataset" / "ILSVRC" / IDS[1]).unlink()
    (dataset / "dataset" / "ILSVRC" / IDS[3]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"image_ids\.txt, line 2: .*{IDS[1]} is missing, with 1 others"):
        open_val(dataset)
    edit(dataset, "image_ids", IDS[1], f"\n{IDS[1]}")  # an empty line before it
    with pytest.raises(FileNotFoundError, match=r"image_ids\.txt, line 3: "):
        open_val(dataset)
    with pytest.raises(FileNotFoundError, match="metadata/CUB is not a folder"):
        open_annotated(dataset / "dataset" / "ILSVRC", "val", lists=dataset / "metadata" / "CUB")
    with pytest.raises(FileNotFoundError, match=r"image_ids\.txt is missing: expected a line path for each image"):
        open_annotated(dataset / "dataset" / "ILSVRC", "test", lists=dataset / "metadata" / "ILSVRC")


@pytest.mark.parametrize("name", ["../cat.jpeg", "/etc/passwd", "val2/../../cat.jpeg"])
def test_names_that_lead_out_of_the_folder(dataset, name):
    edit(dataset, "image_ids", IDS[0], name)
    edit(dataset, "class_labels", IDS[0], name)
    edit(dataset, "localization", f"{IDS[0]},156,163,318,230\n", "")
    with pytest.raises(ValueError, match=r"image_ids\.txt, line 1: .*leads out of"):
        open_val(dataset)


@pytest.fixture
def openimages(tmp_path):
    """Two images in the layout of OpenImages30k: one mask of objects a line, the first line of an image with ignore."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "OpenImages" / "val" / "01226z"
    folder.mkdir(parents=True)
    for stem in ("32fd", "1498"):
        cv2.imwrite(str(folder / f"{stem}.jpg"), data.coffee())
    regions = {name: rng.random((90, 120)) < 0.3 for name in ("32fd_m1.png", "32fd_m2.png", "32fd_ignore.png")}
    regions["1498_m1.png"] = rng.random((45, 60)) < 0.5
    for name, region in regions.items():
        cv2.imwrite(str(folder / name), region.astype(np.uint8) * 255)
    write_lists(
        tmp_path / "metadata" / "val",
        image_ids="val/01226z/32fd.jpg\nval/01226z/1498.jpg\n",
        class_labels="val/01226z/32fd.jpg,3\nval/01226z/1498.jpg,0\n",
        localization=(
            "val/01226z/32fd.jpg,val/01226z/32fd_m1.png,val/01226z/32fd_ignore.png\n"
            "val/01226z/1498.jpg,val/01226z/1498_m1.png,\n"
            "val/01226z/32fd.jpg,val/01226z/32fd_m2.png,\n"
        ),
    )
    return tmp_path, regions


def test_masks_are_all_objects_and_ignore_what_is_no_object(openimages):
    folder, regions = openimages
    source = open_annotated(folder / "OpenImages", "val", lists=folder / "metadata")
    assert source.has_masks and not source.has_boxes and len(source.annotation(0).boxes) == 0
    objects = regions["32fd_m1.png"] | regions["32fd_m2.png"]
    expected = objects.astype(np.uint8) + np.uint8(255) * (regions["32fd_ignore.png"] & ~objects)
    assert set(np.unique(expected)) == {0, 1, 255}
    np.testing.assert_array_equal(source.mask(0), expected)
    assert source.mask(0).dtype == np.uint8
    np.testing.assert_array_equal(source.mask(1), regions["1498_m1.png"])
    with pytest.raises(IndexError):
        source.mask(2)


def test_masks_on_the_grid_of_the_evaluation(openimages):
    """As wsolevaluation: each file in gray, as float32, to 224 x 224 by the nearest pixel, then above a half."""
    folder, _ = openimages
    source = open_annotated(folder / "OpenImages", "val", lists=folder / "metadata", masks=folder / "OpenImages")
    # A second object's file of another size.
    path = folder / "OpenImages" / "val" / "01226z" / "32fd_m2.png"
    cv2.imwrite(str(path), cv2.imread(str(path))[::2, 1::3])

    def load(name):
        gray = np.float32(cv2.imread(str(path.with_name(name)), cv2.IMREAD_GRAYSCALE))
        return cv2.resize(gray, (224, 224), interpolation=cv2.INTER_NEAREST) > 0.5

    objects = np.stack([load("32fd_m1.png"), load("32fd_m2.png")]).any(0)
    ignored = load("32fd_ignore.png") & ~objects
    np.testing.assert_array_equal(source.mask(0, (224, 224)), objects + 255 * ignored)
    assert source.mask(0).shape == (90, 120)


def test_masks_that_are_missing_or_damaged(openimages):
    folder, _ = openimages
    masks = folder / "OpenImages" / "val" / "01226z"
    source = open_annotated(folder / "OpenImages", "val", lists=folder / "metadata")
    (masks / "1498_m1.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"1498_m1\.png: not an image"):
        source.mask(1)
    (masks / "1498_m1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"localization\.txt: .*1498_m1\.png is missing"):
        open_annotated(folder / "OpenImages", "val", lists=folder / "metadata")


def test_two_masks_of_regions_to_ignore(openimages):
    folder, _ = openimages
    path = folder / "metadata" / "val" / "localization.txt"
    path.write_text(path.read_text().replace("32fd_m2.png,", "32fd_m2.png,val/01226z/32fd_ignore.png"))
    with pytest.raises(ValueError, match=r"localization\.txt, line 3: val/01226z/32fd\.jpg is listed already"):
        open_annotated(folder / "OpenImages", "val", lists=folder / "metadata")
