import io
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from mutations import fuzz, refusal

from camjax.weights.errors import WeightsError
from camjax.weights.npz_file import read_npz
from camjax.weights.readers import read_tensors

ARRAYS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "transposed": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "float16": np.array([0.5, -65504], np.float16),
    "big_endian": np.array([1, -2], ">f4"),
    "complex": np.array([1 + 2j]),
    "int64": np.array([-(2**63), 2**63 - 1]),
    "uint8": np.array([0, 255], np.uint8),
    "bool": np.array([True, False]),
    "scalar": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
    "long header": np.zeros((2, 1) * 16, np.int8),
    "deep/name.npy": np.array([3.5], np.float32),
}


def npy(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def header(text: str, data: bytes = b"", version: int = 1) -> bytes:
    """A `.npy` file with this header, whatever it says."""
    raw = text.encode() + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(raw))
    return b"\x93NUMPY" + bytes([version, 0]) + length + raw + data


def described(descr: str, shape: str, data: bytes = b"", version: int = 1) -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}", data, version)


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as zip_file:
        for name, data in members:
            zip_file.writestr(name, data)
    return buffer.getvalue()


def declaring(data: bytes, size: int) -> bytes:
    """An archive of one member, which says in both of its places that the member unpacks to so many bytes."""
    result = bytearray(data)
    central = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", result, 22, size)
    struct.pack_into("<I", result, central + 24, size)
    return bytes(result)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves(path, save):
    save(path, **ARRAYS)
    found = read_npz(str(path))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def test_arrays_by_hand(path):
    # By the format's description: magic, version, length of the header, header, numbers row by row.
    numbers = struct.pack("<3f", 1, 2.5, -3)
    members = [("a.npy", described("'<f4'", "(1, 3)", numbers)), ("a.npy.npy", described("'<f4'", "(3,)", numbers, 2))]
    path.write_bytes(archive(*members))
    found = read_npz(path)
    assert list(found) == ["a", "a.npy"]
    np.testing.assert_array_equal(found["a"], np.array([[1, 2.5, -3]], np.float32), strict=True)
    np.testing.assert_array_equal(found["a.npy"], np.array([1, 2.5, -3], np.float32), strict=True)


def test_small_files_may_be_zeros(path):
    np.savez_compressed(path, a=np.zeros(200_000, np.float32))
    assert path.stat().st_size < 2_000
    np.testing.assert_array_equal(read_npz(path)["a"], np.zeros(200_000, np.float32), strict=True)


FOUR = np.arange(4, dtype=np.float32)
ONE = archive(("a.npy", npy(FOUR)))


class Evil:
    """Unpickling it would fail the test."""

    def __reduce__(self):
        return pytest.fail, ("code in the file was run",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        # Ten megabytes of zeros in ten kilobytes, and members that only say that they are large.
        (archive(("a.npy", npy(np.zeros(10_000_000, np.uint8))), compression=zipfile.ZIP_DEFLATED), "do not compress"),
        (
            archive(*((f"{i}.npy", npy(np.zeros(900_000, np.uint8))) for i in range(9)), compression=8),
            "do not compress",
        ),
        (declaring(ONE, 2**32 - 2), "4,294,967,294 bytes of arrays are declared"),
        (declaring(ONE, 900_000), "damaged"),
        (archive(("a.npy", described("'<f4'", "(1000000000000,)", bytes(16)))), "16 bytes of numbers"),
        (archive(("a.npy", described("'<f4'", "(4611686018427387904, 4)", bytes(16)))), "16 bytes of numbers"),
        (archive(("a.npy", described("'<f4'", "(0, 4611686018427387904, 4)"))), "damaged"),
        (archive(("a.npy", described("'<f4'", "(-2, -2)", bytes(16)))), "impossible shape"),
        (archive(("a.npy", described("'<f4'", "(5,)", bytes(16)))), "16 bytes of numbers"),
        (archive(("a.npy", described("'<f4'", f"({'1,' * 40})", bytes(4)))), "impossible shape"),
        (archive(("a.npy", described("'<f4'", "(1.5,)", bytes(4)))), "damaged"),
        (archive(("a.npy", described("'<f4'", "__import__('os')"))), "damaged"),
        (archive(("a.npy", header("(" * 900))), "damaged"),
        (archive(("a.npy", header("(" * 9_000))), "Header info length"),
        (archive(("a.npy", b"\x93NUMPY\x02\x00" + b"\xff" * 4 + b"{}")), "damaged"),
        (archive(("a.npy", described("'<f4'", "(4,)", bytes(16), version=3))), "header of version (3, 0)"),
        (archive(("a.npy", b"no array")), "damaged"),
        (archive(("a.npy", npy(np.array([Evil()], object), allow_pickle=True))), "dtype object"),
        (archive(("a.npy", npy(np.array(["text"])))), "dtype <U4"),
        (archive(("a.npy", npy(np.zeros(2, [("x", "f4")])))), "Save numbers"),
        (archive(("a.npy", npy(np.zeros(2, ml_dtypes.bfloat16)))), "Save numbers, such as float32"),
        (archive(("a.txt", b"text")), "'a.txt' is not an array"),
        (archive(("a.npy", npy(FOUR)), compression=zipfile.ZIP_LZMA), "is not an array by numpy.savez"),
        (archive(), "not an .npz file"),
        (ONE[:-1], "damaged"),
        (ONE[: len(ONE) // 2], "damaged"),
        (ONE.replace(FOUR.tobytes(), FOUR[::-1].tobytes()), "Bad CRC-32"),
        (npy(FOUR), "numpy.savez(path, **arrays)"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\x80\x04.", "a Python pickle"),
        (b"hello", "looks like text"),
        (b"", "empty"),
    ],
)
def test_damaged_and_other_files(path, data, words):
    assert words in refusal(read_npz, path, data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(path):
    data = archive(("a.npy", npy(FOUR)), ("a.npy", npy(FOUR[:2])))
    assert "same name" in refusal(read_npz, path, data)


def test_a_file_by_torch_says_so(path):
    # torch.save writes a zip archive as well.
    data = archive(("archive/data.pkl", b"\x80\x02}."), ("archive/version", b"3"))
    assert "'archive/data.pkl' is not an array" in refusal(read_npz, path, data)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        read_npz(tmp_path / "nowhere.npz")
    with pytest.raises(WeightsError, match="a directory"):
        read_npz(tmp_path)


def test_read_by_its_suffix(path):
    np.savez(path, a=FOUR)
    np.testing.assert_array_equal(read_tensors(path)["a"], FOUR, strict=True)


def fuzz_both(path, seeds: range) -> None:
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, a=FOUR, b=np.ones((2, 3)))
        fuzz(read_npz, path, buffer.getvalue(), seeds)


def test_mutated_files(path):
    fuzz_both(path, range(150))


@pytest.mark.long
def test_many_mutated_files(path):
    fuzz_both(path, range(1000, 3000))
