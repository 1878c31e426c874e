"""Files of people that are damaged: each is read, or refused with an error of camjax that names the file."""

import contextlib
import io
import re
import tarfile
import tracemalloc

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tifffile
from mutations import mutated
from photographs import encode, photo, with_orientation
from PIL import Image
from tiny_tfds import prepare_tfds

from camjax.data import decoding
from camjax.data.annotations._blacklist import read_blacklist
from camjax.data.annotations.box_csv import read_box_csv
from camjax.data.annotations.ilsvrc_xml import read_box_files
from camjax.data.annotations.voc_xml import read_voc_xml
from camjax.data.annotations.wsol_lists import read_lists
from camjax.data.decoding import ImageError
from camjax.data.image_files import read_stored_image, read_stored_size
from camjax.data.images import load_image
from camjax.data.sources import open_source
from camjax.errors import InputError
from experiments.common.image_lists import list_lines
from experiments.scene_objects.folders import read_label_map
from experiments.scene_objects.places import read_object_names, read_place_list
from experiments.text_detector.svt_xml import read_svt_xml


def deep_tiff(**options):
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(photo(24, 16)) * np.uint16(257), photometric="rgb", metadata=None, **options)
    return file.getvalue()


def images():
    """A small file of each format, by its suffix."""
    exif, image = with_orientation(6), photo(24, 16)
    files = {kind: encode(image, kind, exif=exif) for kind in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")}
    files |= {kind: encode(image, kind) for kind in ("GIF", "BMP", "PPM", "JPEG2000", "TGA", "QOI", "DIB")}
    files |= {"PGM": b"P5 4 2 65535\n" + bytes(16), "PBM": b"P1 4 2\n1 0 1 0\n0 1 0 1\n"}
    files |= {"CMYK": encode(image.convert("CMYK"), "JPEG"), "gray": encode(image.convert("L"), "PNG")}
    files |= {"palette": encode(image.convert("P"), "PNG", transparency=3), "APNG": encode(image, "PNG", save_all=True)}
    files |= {"MPO": encode(image, "MPO", save_all=True, append_images=[image])}
    files |= {"LZW": encode(image, "TIFF", compression="tiff_lzw"), "packed": encode(image, "TIFF", compression="jpeg")}
    files |= {"16 bits": deep_tiff(), "16 bits, Deflate": deep_tiff(compression="zlib", predictor=2)}
    files |= {"16 bits, tiles": deep_tiff(tile=(16, 16)), "16 bits, Big": deep_tiff(bigtiff=True)}
    files |= {"16 bits, PNG": encode(Image.fromarray(np.uint16([[1, 2], [3, 40000]])), "PNG")}
    return files


def read_each_way(path):
    """Reads an image in all ways, which agree whether it is one."""
    refused = 0
    for read in (load_image, read_stored_image):
        try:
            pixels = read(path)
            assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8 and pixels.size
        except ImageError as error:
            assert str(path) in str(error)
            refused += 1
    for read in (read_stored_size, read_label_map):
        try:
            read(path)
        except ImageError as error:
            assert str(path) in str(error)
    assert refused in (0, 2)


XML = b"""<?xml version="1.0"?><annotation><filename>a</filename><size><width>9</width><height>8</height></size>
<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>"""
SVT = b"""<tagset><image><imageName>a.jpg</imageName><Resolution x="9" y="8"/><taggedRectangles>
<taggedRectangle height="2" width="3" x="1" y="2"><tag>HI</tag></taggedRectangle></taggedRectangles></image></tagset>"""
TEXTS = {
    "CSV": (b'filename,xmin,ymin,xmax,ymax,label\n"a.jpg",1,2,3,4,cat\nb.jpg,,,,,cup\n', read_box_csv),
    "XML": (XML, read_voc_xml),
    "XML of words": (SVT, read_svt_xml),
    "blacklist": (b"36\n50\n50000\n", read_blacklist),
    "list": (b"a/b.jpg\nc/d.jpg\n", list_lines),
    "places": (b"ADE_train_1 attic\nADE_train_2 bar\n", read_place_list),
    "objects.csv": (b"id,name\n1,wall\n2,floor\n", read_object_names),
    "objects.txt": (b"Idx\tRatio\tName\n1\t0.5\twall\n2\t0.2\tfloor, flooring\n", read_object_names),
}


def read_all(read, path, data, seeds):
    """The number of mutations that are refused."""
    refused = 0
    for seed in seeds:
        path.write_bytes(mutated(data, seed))
        try:
            read(path)
        except (InputError, OSError):
            refused += 1
    return refused


COUNTS = [pytest.param(25, id="few"), pytest.param(1000, id="many", marks=pytest.mark.long)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", images())
@pytest.mark.filterwarnings("ignore")  # Pillow comments on broken metadata
def test_damaged_images(tmp_path, monkeypatch, kind, count):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 10**6)
    data = images()[kind]
    path = tmp_path / f"{kind}.image"
    path.write_bytes(data)
    read_each_way(path)
    read_all(read_each_way, path, data, range(count))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", TEXTS)
def test_damaged_lists_and_annotations(tmp_path, kind, count):
    data, read = TEXTS[kind]
    path = tmp_path / ("a.xml" if kind == "XML" else kind)
    path.write_bytes(data)
    read(path)
    assert read_all(read, path, data, range(count)) or kind == "list"


TOKENS = [b"9" * 5000, b"-1", b"1e999", b"nan", b"\0", b"\xff", "\u00b2".encode(), b'"', b"x" * 200_000, b"", b"1_0"]


@pytest.mark.parametrize("kind", TEXTS)
def test_numbers_that_are_none(tmp_path, kind):
    data, read = TEXTS[kind]
    path = tmp_path / ("a.xml" if kind == "XML" else kind)
    for number in re.finditer(rb"\d+", data):
        for token in TOKENS:
            path.write_bytes(data[: number.start()] + token + data[number.end() :])
            with contextlib.suppress(InputError):
                read(path)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt"])
def test_damaged_lists_of_wsolevaluation(tmp_path, name, count):
    texts = {"image_ids": "a.jpg\nb.jpg\nc.jpg\n", "class_labels": "a.jpg,1\nb.jpg,0\nc.jpg,7\n"}
    texts |= {"image_sizes": "a.jpg,9,8\nb.jpg,90,80\n"}
    for list_name, text in (texts | {"localization": "a.jpg,1,2,3,4\nb.jpg,5,6,70,80\n"}).items():
        (tmp_path / f"{list_name}.txt").write_text(text)
    path = tmp_path / name
    whole = path.read_bytes()
    for token in TOKENS:
        path.write_bytes(whole.replace(b"1", token))
        with contextlib.suppress(InputError):
            read_lists(tmp_path)
    path.write_bytes(whole)
    assert read_all(lambda _: read_lists(tmp_path), path, path.read_bytes(), range(count))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "label.labels.txt"])
def test_damaged_files_of_a_prepared_data_set(tmp_path, name, count):
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["dark", "light"])}
    prepare_tfds(tmp_path, "tiny", features, {"train": [{"image": encode(photo(4, 3), "PNG"), "label": 1}]})
    path = tmp_path / "tiny" / "1.0.0" / name
    data = path.read_bytes()
    assert len(open_source("tiny", "train", data_dir=tmp_path)) == 1
    refused = read_all(lambda _: open_source("tiny", "train", data_dir=tmp_path)[0], path, data, range(count))
    assert refused or name == "label.labels.txt"  # any text is the name of a class
    for broken in (b"", b"{", b"[" * 100_000, b"\xff\xfe{\0}\0", b"null", b'{"name": 5}'):
        path.write_bytes(broken)
        if name != "label.labels.txt":
            with pytest.raises(InputError, match="tiny"):
                open_source("tiny", "train", data_dir=tmp_path)


def test_utf_16_is_named(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("filename,xmin,ymin,xmax,ymax\na.jpg,1,2,3,4\n", encoding="utf-16")
    for read in (read_box_csv, list_lines, read_blacklist):
        with pytest.raises(InputError, match=r"boxes\.csv is UTF-16.*Save the file as UTF-8"):
            read(path)


def test_a_tar_archive_with_a_huge_header_is_refused_unread(tmp_path):
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 3 * 2**30
    path = tmp_path / "boxes.tar"
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(header.size + 2048)  # takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"(?s)boxes\.tar is not an archive, or damaged .*3,221,225,472 bytes"):
            read_box_files(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
