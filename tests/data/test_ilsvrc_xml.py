import gzip
import io
import tarfile
import tracemalloc

import numpy as np
import pytest

from camjax.data import tar_files
from camjax.data.annotations._blacklist import read_blacklist
from camjax.data.annotations.ilsvrc_xml import read_box_files

XML = """<annotation>
	<folder>val</folder>
	<filename>{stem}</filename>
	<size>
		<width>500</width>
		<height>375</height>
		<depth>3</depth>
	</size>
	<object>
		<name>n01751748</name>
		<bndbox>
			<xmin>{xmin}</xmin>
			<ymin>108</ymin>
			<xmax>441</xmax>
			<ymax>193</ymax>
		</bndbox>
	</object>
</annotation>
"""
STEMS = [f"ILSVRC2012_val_{number:08d}" for number in (1, 2, 50_000)]


def xml(stem, xmin=111):
    return XML.format(stem=stem, xmin=xmin).encode()


def write_archive(path, files):
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            if data is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data or b""))
    return path


@pytest.fixture
def archive(tmp_path):
    """In the layout of ILSVRC2012_bbox_val_v3.tgz; with one of the files that macOS adds."""
    files = {"val": None, "val/._ILSVRC2012_val_00000001.xml": b"\0\5\26\7"}
    files |= {f"val/{stem}.xml": xml(stem, xmin) for xmin, stem in enumerate(STEMS)}
    return write_archive(tmp_path / "ILSVRC2012_bbox_val_v3.tgz", files)


def test_an_archive_and_its_unpacked_folder_hold_the_same(archive, tmp_path):
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    with tarfile.open(archive) as packed:
        members = {member.name: packed.extractfile(member).read() for member in packed if member.isfile()}
    plain = write_archive(tmp_path / "boxes.tar", members)
    for path in (archive, plain, tmp_path / "unpacked", str(tmp_path / "unpacked" / "val")):
        found = read_box_files(path)
        assert list(found) == STEMS
        for xmin, (stem, listed) in enumerate(found.items()):
            assert listed.classes == ("n01751748",) and listed.where.endswith(f"val/{stem}.xml")
            expected = np.array([[108 / 375, xmin / 500, 194 / 375, 442 / 500]], np.float32)
            np.testing.assert_array_equal(listed.boxes((375, 500)), expected)


def test_a_bad_file_in_an_archive_is_named(tmp_path):
    path = write_archive(tmp_path / "boxes.tgz", {f"val/{STEMS[0]}.xml": xml(STEMS[0], 442)})
    with pytest.raises(ValueError, match=f"boxes.tgz: val/{STEMS[0]}.xml: object 1: the box xmin=442.*xmin <= xmax"):
        read_box_files(path)


def test_two_files_for_one_image(tmp_path):
    path = write_archive(tmp_path / "boxes.tgz", {f"{place}/{STEMS[0]}.xml": xml(STEMS[0]) for place in "ab"})
    with pytest.raises(ValueError, match=f"b/{STEMS[0]}.xml and .*a/{STEMS[0]}.xml are both about"):
        read_box_files(path)


def test_a_damaged_archive(archive):
    whole = archive.read_bytes()
    other_check_sum = whole[:-8] + bytes(4) + whole[-4:]
    for part in (whole[:-20], whole[: len(whole) // 2], other_check_sum, b"<html>not found</html>", b""):
        archive.write_bytes(part)
        with pytest.raises(ValueError, match=r"bbox_val_v3\.tgz is not an archive, or damaged"):
            read_box_files(archive)


def test_a_file_of_the_archive_beyond_the_largest_size(tmp_path):
    path = write_archive(tmp_path / "boxes.tgz", {f"val/{STEMS[0]}.xml": b" " * 2**24})
    with pytest.raises(ValueError, match="larger than 1048576 bytes"):
        read_box_files(path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected ILSVRC2012_bbox_val_v3\.tgz"):
        read_box_files(tmp_path / "none.tgz")
    with pytest.raises(ValueError, match="has no XML files"):
        read_box_files(tmp_path)
    with pytest.raises(ValueError, match="has no XML files"):
        read_box_files(write_archive(tmp_path / "images.tgz", {"val/1.JPEG": b"\xff\xd8"}))


def test_the_blacklist_numbers_from_one(tmp_path):
    path = tmp_path / "ILSVRC2014_clsloc_validation_blacklist.txt"
    path.write_text("36\n50\n50000\n\n1\n")
    expected = {f"ILSVRC2012_val_{number:08d}" for number in (1, 36, 50, 50_000)}
    assert read_blacklist(path) == expected


@pytest.mark.parametrize("line", ["0", "50001", "-3", "3.5", "ILSVRC2012_val_00000001", "²", "1 2"])
def test_a_line_that_is_no_image_number(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"36\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"list\.txt, line 2: .*expected the number of a validation image, 1\.\.50000"):
        read_blacklist(tmp_path / "list.txt")


def test_a_number_listed_twice(tmp_path):
    (tmp_path / "list.txt").write_text("36\n50\n36\n")
    with pytest.raises(ValueError, match=r"list\.txt, line 3: 36 is listed already, in .*line 1"):
        read_blacklist(tmp_path / "list.txt")


@pytest.mark.parametrize("kind", ["GNUTYPE_LONGNAME", "GNUTYPE_LONGLINK", "XHDTYPE", "XGLTYPE", "SOLARIS_XHDTYPE"])
@pytest.mark.parametrize(("size", "count"), [(20_000_000, 1), (50_000, 21)])
def test_headers_that_claim_memory(tmp_path, monkeypatch, kind, size, count):
    """Python's reader would keep all that they say in memory, of a file of a few kilobytes."""
    monkeypatch.setattr(tar_files, "_MAX_HEADERS", 1_000_000)
    header = tarfile.TarInfo("header")
    header.type, header.size = getattr(tarfile, kind), size
    record = f"{size} comment=".encode()
    content = record + b"a" * (size - len(record) - 1) + b"\n" + bytes(-size % 512)
    path = tmp_path / "boxes.tgz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(count):
            file.write(header.tobuf(tarfile.USTAR_FORMAT) + content)
            if count > 1:
                file.write(tarfile.TarInfo("a").tobuf())
        file.write(bytes(1024))
    del content
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"boxes\.tgz is not an archive.*a header of .* bytes"):
            read_box_files(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_chain_of_headers_is_no_archive(tmp_path):
    """Python's reader calls itself for each of them."""
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2
    path = tmp_path / "boxes.tar"
    path.write_bytes((header.tobuf(tarfile.USTAR_FORMAT) + b"a\0" + bytes(510)) * 2_000)
    with pytest.raises(ValueError, match=r"boxes\.tar is not an archive, or damaged \(RecursionError"):
        read_box_files(path)
