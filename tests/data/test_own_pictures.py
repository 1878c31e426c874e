"""One's own pictures: what is found in folders and lists, how it is split, and what is refused."""

import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from photographs import RED, encode, with_orientation
from tiny_tfds import prepare_tfds

from camjax.data import own_pictures
from camjax.data.annotated import open_annotated
from camjax.data.annotations.label_csv import sorted_classes
from camjax.data.loader import train_batches
from camjax.data.own_pictures import Inspection, OwnPictures, open_own_pictures


def picture(number):
    """A small picture that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return encode(pixels, "PNG")


def fill(root, *names, first=0):
    """Writes a picture of its own for each name; "cat/*9" is nine of them."""
    for name in names:
        place, _, count = name.partition("*")
        for i in range(int(count or 1)):
            path = root / (f"{place}{i}.png" if count else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(first))
            first += 1
    return root


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def names_of(source):
    return [source.annotation(i).filename for i in range(len(source))]


def split_of(own):
    return {item.sha256: item.split for item in own.pictures}


def test_a_folder_of_classes_is_split(tmp_path):
    photos = fill(tmp_path / "photos", "cat/*10", "dog/*7", "dog/old/x.png", "bird/*2", "emu/*1")
    seen = []
    own = open_own_pictures(photos, progress=lambda *counts: seen.append(counts))
    assert seen == [(i, 21) for i in range(1, 22)]
    assert own.class_names == own.train.info.class_names == own.validation.info.class_names
    assert own.class_names == ("bird", "cat", "dog", "emu")
    # round(0.2 n) of n, and at least one picture on either side of a class that has two.
    assert own.found.counts["validation"] == {"bird": 1, "cat": 2, "dog": 2, "emu": 0}
    assert own.found.counts["train"] == {"bird": 1, "cat": 8, "dog": 6, "emu": 1}
    assert own.found.too_few == ["emu"] and not own.found.unreadable and not own.found.in_both
    train, validation = names_of(own.train), names_of(own.validation)
    assert sorted(train + validation) == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    for source in (own.train, own.validation):
        for i in range(len(source)):
            assert own.class_names[source[i]["label"]] == source[i]["filename"].partition("/")[0]
    assert Counter(own.train[i]["label"] for i in range(len(train))) == {0: 1, 1: 8, 2: 6, 3: 1}
    text = "\n".join(own.lines())
    assert text.startswith("4 classes, 16 pictures to train on and 5 to validate. One folder for each class in ")
    assert "20 % of each class to validate, seed 0" in text and "1 class has fewer than two pictures: emu." in text
    assert "belong to the class of the upper one: dog/old." in text
    copy = pickle.loads(pickle.dumps(own.train))
    batch = next(train_batches(copy, batch_size=4, seed=0, size=8))
    assert batch["image"].shape == (4, 8, 8, 3)


def test_a_split_depends_on_seed_and_content_alone(tmp_path, monkeypatch):
    photos = fill(tmp_path / "photos", "cat/*20", "dog/*20")
    own = open_own_pictures(photos, seed=3)
    for number, path in enumerate(sorted(photos.rglob("*.png"))):  # other names, in another order
        write(tmp_path / "renamed" / path.parent.name / f"{(7 * number) % 40}.png", path.read_bytes())
    assert split_of(open_own_pictures(tmp_path / "renamed", seed=3)) == split_of(own)
    assert split_of(open_own_pictures(photos, seed=4)) != split_of(own)
    assert len(open_own_pictures(photos, seed=3, validation=0.5).validation) == 20
    # More pictures of a class make it larger, and move few.
    fill(photos, "cat/new*5", first=100)
    moved = split_of(open_own_pictures(photos, seed=3))
    assert sum(moved[sha256] != split for sha256, split in split_of(own).items()) <= 2


@pytest.mark.parametrize("validation", ["val", "validation", "valid", "test", "VAL"])
def test_folders_of_splits(tmp_path, validation):
    photos = fill(tmp_path, "train/cat/*3", "train/dog/*3", f"{validation}/cat/*2", f"{validation}/dog/x/*1", "more/*4")
    own = open_own_pictures(photos)
    assert own.found.counts == {"train": {"cat": 3, "dog": 3}, "validation": {"cat": 2, "dog": 1}}
    assert names_of(own.validation) == [
        f"{validation}/cat/0.png",
        f"{validation}/cat/1.png",
        f"{validation}/dog/x/0.png",
    ]
    assert own.validation.info.split == "validation"
    assert f"Not used, beside train and {validation}: more (4 pictures)." in own.lines()


def test_of_val_and_test_val_validates(tmp_path):
    photos = fill(tmp_path / "photos", "train/a/*2", "train/b/*2", "val/a/*1", "test/b/*3", "loose.png")
    own = open_own_pictures(photos)
    assert names_of(own.validation) == ["val/a/0.png"]
    assert own.lines()[-1] == "Not used, beside train and val: loose.png (1 picture), test (3 pictures)."
    assert "Without a picture to validate: b." in own.lines()
    lines = ["file,label,split", "train/a/0.png,a,train", "train/b/0.png,b,TRAIN", "val/a/0.png,a,val"]
    labels = write(photos / "labels.csv", "\n".join([*lines, "test/b/0.png,b,test"]))
    own = open_own_pictures(labels)
    assert names_of(own.train) == ["train/a/0.png", "train/b/0.png"] and names_of(own.validation) == ["val/a/0.png"]
    assert own.lines()[-1] == "Not used, beside train and validation: 1 picture of the split test."
    assert names_of(open_annotated(labels, "test")) == ["test/b/0.png"]
    assert len(open_annotated(labels, "all")) == 4


def test_a_list_of_files_and_labels(tmp_path):
    photos = fill(tmp_path / "my photos", "a, b.png", "b.png", "sub/c.png", "e\u0301.png", "d.png")
    far = fill(tmp_path / "far", "f.png", first=10) / "f.png"
    rows = ['0001, "a, b.png"', "10,b.png", "0001,sub\\c.png", "10,\u00e9.png", "10,./d.png", "10,d.png"]
    text = "label,file,\n" + "".join(f"{row.replace(', ', ',', 1)},x\n" for row in rows)
    own = open_own_pictures(write(photos / "labels.csv", "\ufeff" + text.replace("\n", "\r\n")), validation=0.34)
    assert own.class_names == ("0001", "10") and own.found.counts["validation"] == {"0001": 1, "10": 1}
    assert own.root == photos and own.train.info.name == str(photos)
    assert sorted(names_of(own.train) + names_of(own.validation)) == sorted(
        ["a, b.png", "b.png", "sub/c.png", "e\u0301.png", "d.png"]
    )
    own = open_own_pictures(write(photos / "labels.csv", f"{text}10,{far},\n10,../far/f.png,\n"))
    assert own.root == tmp_path and "far/f.png" in [item.name for item in own.pictures]
    assert sorted_classes(["10", "9", "9"]) == ("9", "10") and sorted_classes(["10", "9", "x"]) == ("10", "9", "x")


def test_what_is_written_is_read_again_and_not_checked_again(tmp_path, monkeypatch):
    photos = fill(tmp_path / "photos", "cat/*6", "dog/*6", "dog/a, \u00e4.png", "gnu/*3")
    write(photos / "cat" / "empty.png", b"")
    own = open_own_pictures(photos, seed=5)
    monkeypatch.setattr(own_pictures, "decode_image", None)
    for path in (tmp_path / "runs" / "x" / "pictures.csv", photos / "pictures.csv"):
        own.write(path)
        again = open_own_pictures(path, seed=6, progress=pytest.fail)
        assert again.train.info == own.train.info and again.validation.info == own.validation.info
        assert names_of(again.train) == names_of(own.train) and names_of(again.validation) == names_of(own.validation)
        assert again.lines()[1:] == own.lines()[1:]
        again.write(tmp_path / "again.csv")
        assert ("/./cat/" in path.read_text()) == (path.parent != photos)
        source = open_annotated(path, "validation")
        assert [source[i]["label"] for i in range(len(source))] == [
            own.validation[i]["label"] for i in range(len(source))
        ]
        assert names_of(source) == names_of(own.validation) and len(open_annotated(path, "all")) == 16
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "runs" / "x" / "pictures.csv").read_bytes()
    # The root stays where all pictures are deeper in it.
    fill(tmp_path / "more", "deep/a*2", "deep/b*2", first=50)
    labels = write(
        tmp_path / "more" / "labels.csv", "file,label\n" + "".join(f"deep/{x}.png,{x[0]}\n" for x in ("a0", "a1", "b0"))
    )
    monkeypatch.undo()
    open_own_pictures(labels).write(tmp_path / "more.csv")
    assert open_own_pictures(tmp_path / "more.csv").root == open_own_pictures(labels).root == tmp_path / "more"
    # As absolute names, the list may move; the pictures may not.
    moved = shutil.move(tmp_path / "runs" / "x" / "pictures.csv", tmp_path / "moved.csv")
    assert names_of(open_own_pictures(moved).train) == names_of(own.train)
    (photos / "dog" / "0.png").unlink()
    (photos / "cat" / "empty.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"moved\.csv, line \d+: .*photos/dog/0\.png is missing\. Correct"):
        open_own_pictures(moved)


def test_only_new_lines_of_a_list_are_checked(tmp_path, monkeypatch):
    photos = fill(tmp_path / "photos", "cat/*3", "dog/*3")
    open_own_pictures(photos).write(photos / "pictures.csv")
    write(photos / "cat" / "new.png", b"no picture")
    with (photos / "pictures.csv").open("a") as file:
        file.write("cat/new.png,cat,train,,\n")
    decoded = []
    monkeypatch.setattr(own_pictures, "decode_image", lambda data, **_: decoded.append(data))
    open_own_pictures(photos / "pictures.csv")
    assert decoded == [b"no picture"]


def test_boxes_of_listed_pictures_are_turned_with_them(tmp_path):
    image = np.zeros((20, 32, 3), np.uint8)
    image[3:8, 6:17] = RED
    root = tmp_path / "photos"
    for orientation in range(1, 9):
        write(
            root / "ab"[orientation % 2] / f"{orientation}.png",
            encode(image, "PNG", exif=with_orientation(orientation)),
        )
    write(root / "a" / "9.tif", encode(image, "TIFF", exif=with_orientation(6)))
    own = open_own_pictures(root, validation=0.5)
    own.write(tmp_path / "run" / "pictures.csv")
    boxes = "".join(f"{'ab'[n % 2]}/{n}.png,6,3,16,7\n" for n in range(1, 9)) + "a/9.tif,12,6,16,16\n"
    boxes = write(tmp_path / "boxes.csv", f"filename,xmin,ymin,xmax,ymax\n{boxes}")
    seen = set()
    for split in ("train", "validation"):
        source = open_annotated(tmp_path / "run" / "pictures.csv", split, boxes=boxes)
        for i in range(len(source)):
            pixels, (box,) = source[i]["image"], source.annotation(i).boxes
            rows, columns = np.nonzero(pixels[..., 0] > 128)
            (height, width), name = pixels.shape[:2], source.annotation(i).filename
            edges = [rows.min() / height, columns.min() / width, (rows.max() + 1) / height, (columns.max() + 1) / width]
            np.testing.assert_allclose(box, edges, atol=1e-6, err_msg=name)
            assert box.dtype == np.float32
            seen.add((name, pixels.shape))
    assert Counter(shape for _, shape in seen) == {(20, 32, 3): 4, (32, 20, 3): 5}  # 5 to 8, and the TIFF, lie
    write(boxes, "filename,xmin,ymin,xmax,ymax,label\na/2.png,6,3,16,7,b\nb/1.png,6,3,16,7,b\n")
    with pytest.raises(
        ValueError, match=r"boxes\.csv, line 2 gives 'a/2\.png' the class b, but .*csv, line \d gives 'a'"
    ):
        open_annotated(tmp_path / "run" / "pictures.csv", "all", boxes=boxes)


def test_files_that_cannot_be_read_are_named_and_left_out(tmp_path):
    photos = fill(tmp_path / "photos", "cat/*20", "dog/*4", ".hidden/1.png", "dog/._0.png", "dog/real/1.png")
    for i in range(11):
        write(photos / "cat" / f"text{i:02}.jpg", "Not found")
    write(photos / "dog" / "cut.png", picture(3)[:60])
    (photos / "dog" / "nowhere.png").symlink_to("gone.png")
    (photos / "dog" / "link.png").symlink_to(photos / "dog" / "0.png")
    own = open_own_pictures(photos)
    assert len(own.found.unreadable) == 13 and sum(map(len, (own.train, own.validation))) == 26
    text = "\n".join(own.lines())
    assert "13 files cannot be read and will be left out:\n  cat/text00.jpg: not an image in a known format" in text
    assert "  cat/text09.jpg: " in text and "text10" not in text and "\n  ... and 3 more" in text
    assert own.found.unreadable["dog/nowhere.png"] == "No such file or directory"
    assert "cut off or damaged" in own.found.unreadable["dog/cut.png"]
    own.write(tmp_path / "pictures.csv")
    assert (tmp_path / "pictures.csv").read_text().count(",unreadable,,") == 13
    assert split_of(own).keys() >= {""}


def test_the_same_picture_twice(tmp_path):
    photos = fill(tmp_path / "split", "train/cat/*3", "train/dog/*3", "val/cat/*2", "val/dog/*2")
    shutil.copy(photos / "train" / "cat" / "1.png", photos / "val" / "cat" / "copy.png")
    shutil.copy(photos / "train" / "cat" / "2.png", photos / "train" / "dog" / "no dog.png")
    own = open_own_pictures(photos)
    assert own.found.in_both == [("train/cat/1.png", "val/cat/copy.png")]
    assert own.found.in_two_classes == [("train/cat/2.png", "train/dog/no dog.png")]
    text = "\n".join(own.lines())
    assert "keep one:\n  train/cat/1.png and val/cat/copy.png" in text
    assert "one of which is wrong:\n  train/cat/2.png and train/dog/no dog.png" in text
    # A split that is made here keeps them together.
    photos = fill(tmp_path / "photos", "cat/*4", "dog/*9")
    for i in range(4):
        shutil.copy(photos / "cat" / f"{i}.png", photos / "cat" / f"{i} copy.png")
    shutil.copy(photos / "cat" / "0.png", photos / "dog" / "cat.png")
    for seed in range(12):
        own = open_own_pictures(photos, seed=seed)
        assert not own.found.in_both and own.found.counts["validation"]["cat"] > 0
        own = open_own_pictures(photos, seed=seed, validation=0.5)
        assert own.found.in_two_classes == [("cat/0 copy.png", "dog/cat.png")]
        assert {"cat/0 copy.png", "cat/0.png", "dog/cat.png"} < set(names_of(own.train))  # it would tell nothing
    assert open_own_pictures(photos, validation=0.02).found.counts["validation"]["cat"] == 2


def test_lines_of_a_thousand_classes():
    names = [f"class {i}" for i in range(1000)]
    counts = {"train": {name: i for i, name in enumerate(names)}, "validation": dict.fromkeys(names, 1)}
    own = OwnPictures([0] * 10, [0], tuple(names), Inspection("Here.", counts, {}))
    lines = own.lines()
    assert lines[0] == "1000 classes, 10 pictures to train on and 1 to validate. Here."
    assert lines[1].split() == ["class", "train", "validation"] and lines[12] == "  ... 980 more ..."
    assert lines[2].split() == ["class", "999", "999", "1"] and lines[22].split() == ["class", "0", "0", "1"]
    assert len(lines) == 23


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["a", "b"]),
    }
    splits = {
        split: [{"image": picture(i), "label": i % 2} for i in range(n)] for split, n in (("train", 9), ("test", 3))
    }
    prepare_tfds(data_dir, "both", features, splits)
    prepare_tfds(data_dir, "one", features, {"train": splits["train"]})
    prepare_tfds(data_dir, "none", features, {"test": splits["test"]})
    return data_dir


@pytest.mark.parametrize(
    ("name", "train", "validation", "lengths"),
    [("both", "train", "test", (9, 3)), ("one", "train[:7]", "train[7:]", (7, 2))],
)
def test_a_prepared_data_set(data_dir, tmp_path, name, train, validation, lengths):
    own = open_own_pictures(name, data_dir=data_dir)
    assert (own.train.info.split, own.validation.info.split) == (train, validation)
    assert (len(own.train), len(own.validation)) == lengths and own.class_names == ("a", "b")
    (line,) = own.lines()
    assert line.startswith(f"2 classes, {lengths[0]} pictures to train on") and name in line
    with pytest.raises(ValueError, match=rf"Open it by its name, with the splits '{train[:5]}.*{validation[:4]}"):
        own.write(tmp_path / "pictures.csv")


CASES = {
    "empty folder": ([], "photos has no pictures: expected a folder for each class with files that end in .*jpg"),
    "flat": (["*3"], r"photos has pictures that lie in no folder of a class \(all of 3, such as 0\.png\)\. Sort"),
    "some loose": (["a/*2", "b/*2", "x.png"], r"in no folder of a class \(1 of 5, such as x\.png\)"),
    "one class": (["cat/*3"], "photos has 1 class with pictures \\(cat\\): expected two or more"),
    "in a folder": (
        ["my/cat/*2", "my/dog/*2"],
        r"in one folder only, my, which has cat, dog in it\. If .* give .*photos/my\.",
    ),
    "train alone": (["train/cat/*2", "train/dog/*2"], r"one folder only, train, .* give .*photos/train\."),
    "nested": (
        ["x/cat/*2", "x/dog/*2", "y/car/*2"],
        "folders of folders: x/cat, x/dog, y/car. It is not clear which are",
    ),
    "nested in train": (
        ["train/x/a/*1", "train/x/b/*1", "train/y/c/*1", "val/x/*1"],
        "train has all pictures in folders of",
    ),
    "val alone has it": (
        ["train/a/*2", "train/b/*2", "val/a/*1", "val/c/*1"],
        r"to validate of 1 class without any to train on: c\. Those to train on are of a, b\.",
    ),
    "no class to train": (["train/x.png", "val/a/*1"], "train has pictures that lie in no folder of a class"),
    "empty train": (["train/notes.txt", "val/a/*1", "val/b/*1"], "train has no pictures: expected a folder for each"),
    "two to validate": (
        ["train/a/*1", "val/a/*1", "valid/a/*1"],
        "has the folders val and valid: expected one to valid",
    ),
    "classes by case": (
        ["Cat/*2", "cat/*2", "dog/*2"],
        "has the classes 'Cat' and 'cat', which differ only in upper and lower",
    ),
    "by side": (
        ["train/a/*2", "train/b/*2", "val/A/*2"],
        "has the classes 'a' and 'A', which differ only in upper and lower",
    ),
    "blanks": (["cat/*2", "cat /*2", "dog/*2"], "has the classes 'cat ' and 'cat', which differ"),
    "accents": (["\u00e9/*2", "e\u0301/*2"], r"has the classes 'e\\u0301' and '\\xe9', which differ"),
    "files by case": (["a/x.png", "a/X.PNG", "b/*2"], r"has the files 'a/X\.PNG' and 'a/x\.png', which differ"),
    "line end": (["a/x\ny.png", "b/*2"], r"has the file 'a/x\\ny\.png' of class 'a': expected names in UTF-8"),
    "not UTF-8": (["a/\udce9.png", "b/*2"], r"has the file 'a/\\udce9\.png' of class 'a': expected names in UTF-8"),
    "one each": (["a/*1", "b/*1"], "has one picture of each class: expected a class with two"),
    "all damaged": (
        ["a/*2", "b/zero.png"],
        r"1 of 1 picture of class 'b' cannot be read, such as b/zero\.png: the file is",
    ),
    "most damaged": (["a/*2", "b/ok.png", "b/zero.png", "b/zero1.png"], "2 of 3 pictures of class 'b' cannot be read"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_trained_on(tmp_path, case):
    names, message = CASES[case]
    photos = tmp_path / "photos"
    photos.mkdir()
    fill(photos, *names)
    for path in photos.rglob("zero*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=message) as error:
        open_own_pictures(photos)
    assert type(error.value).__name__ == "InputError"


LISTS = {
    "no file": (None, FileNotFoundError, r"list\.csv does not exist: expected a CSV file with the columns file,label"),
    "empty": ("", ValueError, "line 1 names the columns nothing: expected each of file, label once"),
    "no rows": ("file,label\n\n", ValueError, "lists no pictures: expected a line file,label"),
    "semicolons": (
        "file;label\na0.png;a\n",
        ValueError,
        "line 1 names the columns file;label: expected each of file, label",
    ),
    "fields": ("file,label\na0.png,a\na1.png\n", ValueError, "line 3 has 1 fields: expected 2, as line 1 has"),
    "no label": ("file,label\na0.png,a\nb0.png, \n", ValueError, "line 3 has no label: expected"),
    "no name": ("file,label\n,a\n", ValueError, "line 2 has no file: expected"),
    "two labels": (
        "file,label\na0.png,a\n./a0.png,b\n",
        ValueError,
        "line 3 gives 'a0.png' the label 'b', but .*line 2 gives",
    ),
    "two splits": (
        "file,label,split\na0.png,a,train\na0.png,a,val\n",
        ValueError,
        "line 3 gives 'a0.png' the split 'validation', but .*line 2 gives 'train'",
    ),
    "a split": (
        "file,label,split\na0.png,a,dev\n",
        ValueError,
        "line 2 has the split 'dev': expected train, validation, ",
    ),
    "no split": (
        "file,label,split\na0.png,a,train\na1.png,a,\n",
        ValueError,
        "line 3 has no split, but .*line 2 has 'train': expected a split in all lines, or in none",
    ),
    "missing": (
        "file,label\na0.png,a\nx.png,b\nb0.png,b\nsub/y.png,b\n",
        FileNotFoundError,
        r"line 3: .*/x\.png is missing, with 1 others\. Correct the names",
    ),
    "one class": (
        "file,label\na0.png,a\na1.png,a\n",
        ValueError,
        r"list\.csv has 1 class with pictures \(a\): expected two",
    ),
    "not to train": (
        "file,label,split\na0.png,a,train\nb0.png,b,train\nb1.png,c,valid\n",
        ValueError,
        "pictures to validate of 1 class without any to train on: c",
    ),
    "no train": (
        "file,label,split\na0.png,a,val\nb0.png,b,val\n",
        ValueError,
        "has no picture of the split train that can",
    ),
    "no validation": (
        "file,label,split\na0.png,a,train\nb0.png,b,train\n",
        ValueError,
        "no picture of the split validation",
    ),
    "case": (
        "file,label\na0.png,cat\na1.png,Cat\nb0.png,b\n",
        ValueError,
        "has the classes 'cat' and 'Cat', which differ",
    ),
    "only copies": (
        "file,label\na0.png,a\na0 copy.png,a\nb0.png,b\n",
        ValueError,
        "no picture of the split validation",
    ),
    "not UTF-8": (b"file,label\n\xe9.png,a\n", ValueError, r"list\.csv, line 2, is not UTF-8"),
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_that_cannot_be_trained_on(tmp_path, case):
    text, kind, message = LISTS[case]
    fill(tmp_path, "a*2", "b*2")
    shutil.copy(tmp_path / "a0.png", tmp_path / "a0 copy.png")
    if text is not None:
        write(tmp_path / "list.csv", text)
    with pytest.raises(kind, match=message):
        open_own_pictures(tmp_path / "list.csv")


def test_names_that_are_nothing(tmp_path, data_dir, monkeypatch):
    monkeypatch.chdir(fill(tmp_path, "photos/a/*2", "photos/b/*2"))
    assert len(open_own_pictures("photos").train) == 2
    with pytest.raises(
        ValueError, match=r"no folder or file 'foto', and as the name of a data set: unknown data set 'foto'"
    ):
        open_own_pictures("foto")
    with pytest.raises(
        FileNotFoundError, match=r"no folder or file 'mnist', and as .*: data set 'mnist' is not prepared"
    ):
        open_own_pictures("mnist")
    with pytest.raises(FileNotFoundError, match="far does not exist"):
        open_own_pictures(Path("far"))
    with pytest.raises(
        ValueError, match=r"photos/a/0\.png is one picture: expected a folder of pictures, or a CSV file"
    ):
        open_own_pictures("photos/a/0.png")
    with pytest.raises(ValueError, match="data set 'none' has the splits test: expected one named train"):
        open_own_pictures("none", data_dir=data_dir)
    for share in (0, 1, 20, float("nan")):
        with pytest.raises(ValueError, match=rf"validation is {share}: expected a share of the pictures, above 0 and"):
            open_own_pictures("photos", validation=share)
    with pytest.raises(ValueError, match=r"split is 'dev': expected one of .*list\.csv \(it has none\), or 'all'"):
        open_annotated(write(tmp_path / "list.csv", "file,label\nphotos/a/0.png,a\n"), "dev")
    os.symlink("photos", "link")
    assert open_own_pictures("link/../photos").root == tmp_path / "photos"
