import json
import os
import struct
import time
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from mutations import SOON, fuzz
from safetensors import safe_open
from safetensors.numpy import save_file

from camjax.weights import safetensors_file
from camjax.weights.errors import WeightsError
from camjax.weights.safetensors_file import read_safetensors

ARRAYS = {
    "float64": np.array([[0, 0.25], [0.5, np.pi]]),
    "float32": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "float16": np.array([0.5, -65504], np.float16),
    "bfloat16": np.array([[1, -2, 3.140625]], ml_dtypes.bfloat16),
    "int64": np.array([-(2**63), 2**63 - 1]),
    "int32": np.array([-(2**31)], np.int32),
    "int16": np.array([-32768, 32767], np.int16),
    "int8": np.array([-128, 127], np.int8),
    "uint8": np.array([0, 255], np.uint8),
    "bool": np.array([True, False]),
    "scalar": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
}


def with_header(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.fixture
def refused(tmp_path):
    """The message of the WeightsError, after seeing that it came soon and cost little memory."""

    def refuse(data: bytes) -> str:
        path = tmp_path / "weights.safetensors"
        path.write_bytes(data)
        tracemalloc.start()
        start = time.thread_time()
        try:
            with pytest.raises(WeightsError, match=r"weights\.safetensors") as error:
                read_safetensors(path)
            assert time.thread_time() - start < SOON
            assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + 1_000_000
        finally:
            tracemalloc.stop()
        return str(error.value)

    return refuse


def test_every_dtype(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(ARRAYS, path, metadata={"format": "pt"})
    found = read_safetensors(str(path))
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def test_arrays_outlive_the_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": ARRAYS["float32"]}, path)
    found = read_safetensors(path)
    path.write_bytes(b"")
    np.testing.assert_array_equal(found["a"], ARRAYS["float32"])


def test_a_file_that_is_cut_while_it_is_read(tmp_path, monkeypatch):
    """Reading a mapped file beyond its new end would end the whole process (SIGBUS)."""
    path = tmp_path / "weights.safetensors"
    save_file({"a": np.zeros(1_000_000, np.float32)}, path)

    def open_and_cut(*arguments, **options):
        file = safe_open(*arguments, **options)
        os.truncate(path, 1_000)
        return file

    monkeypatch.setattr(safetensors_file, "safe_open", open_and_cut)
    with pytest.raises(WeightsError, match=r"weights\.safetensors is not a whole safetensors file"):
        read_safetensors(path)


def test_hand_made_file(tmp_path):
    # By the format's description: eight bytes of length, a JSON header, then the data; little-endian, row by row.
    path = tmp_path / "weights.safetensors"
    header = {"__metadata__": {"made": "by hand"}, "b": entry("BF16", [2], 8, 12), "a": entry("F32", [1, 2], 0, 8)}
    path.write_bytes(with_header(header, struct.pack("<ff", 1.5, -2) + b"\x80\x3f\x00\xc0"))
    found = read_safetensors(path)
    np.testing.assert_array_equal(found["a"], np.array([[1.5, -2]], np.float32), strict=True)
    np.testing.assert_array_equal(found["b"], np.array([1, -2], ml_dtypes.bfloat16), strict=True)
    assert set(found) == {"a", "b"}


@pytest.mark.parametrize(
    "data",
    [
        with_header({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8)}, bytes(8)),
        with_header({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, bytes(12)),
        with_header({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 12, 20)}, bytes(20)),
        with_header({"a": entry("F32", [2], 0, 8)}, bytes(12)),
        with_header({"a": entry("F32", [2], 0, 8)}, bytes(4)),
        with_header({"a": entry("F32", [3], 0, 8)}, bytes(8)),
        with_header({"a": entry("F32", [2], 8, 0)}, bytes(8)),
        with_header({"a": entry("F32", [-2], 0, 8)}, bytes(8)),
        with_header({"a": entry("F32", [2**62, 4], 0, 0)}),
        with_header({"a": entry("F32", [0, 2**62], 0, 0)}),
        with_header({"a": entry("F32", [2**40], 0, 2**42)}),
        with_header({"a": entry("F32", [1] * 70, 0, 4)}, bytes(4)),
        with_header({"a": entry("Q7", [1], 0, 1)}, bytes(1)),
        with_header({"a": entry("F32", [1.5], 0, 4)}, bytes(4)),
        with_header({"a": 1}),
        with_header(b"[" * 100_000),
        with_header(b"{", length=2**62),
        with_header(b"{", length=2**64 - 1),
        with_header(b'{"a": "\xff"}'),
        with_header(b"not JSON"),
    ],
)
def test_damaged_file_is_an_error(refused, data):
    assert "download or copy it again" in refused(data)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_dtype_without_a_numpy_name_is_an_error(refused, dtype):
    header = {"a": entry("F32", [1], 0, 4), "scaled": entry(dtype, [2], 4, 6)}
    message = refused(with_header(header, bytes(6)))
    assert f"'scaled' has dtype {dtype}" in message
    assert "Convert" in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "torch.save"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch.save"),
        (b"hello", "looks like text"),
        (b"", "empty"),
        (bytes(8), "not a whole safetensors file"),
    ],
)
def test_other_files(refused, data, words):
    assert words in refused(data)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        read_safetensors(tmp_path / "nowhere.safetensors")
    with pytest.raises(WeightsError, match="a directory"):
        read_safetensors(tmp_path)


def test_every_truncation_is_an_error(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file(ARRAYS, whole)
    data = whole.read_bytes()
    for length in range(1, len(data), 5):
        path = tmp_path / f"{length}.safetensors"
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError):
            read_safetensors(path)


def fuzz_whole_file(folder: Path, seeds: range) -> None:
    path = folder / "whole.safetensors"
    save_file(ARRAYS, path)
    fuzz(read_safetensors, path, path.read_bytes(), seeds, large=b"9")


def test_mutated_files(tmp_path):
    fuzz_whole_file(tmp_path, range(150))


@pytest.mark.long
def test_many_mutated_files(tmp_path):
    fuzz_whole_file(tmp_path, range(1000, 3000))


@pytest.mark.parity
def test_as_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch_file

    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    dtypes += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    saved = {str(dtype): torch.arange(-60, 60).reshape(4, 5, 6).to(dtype) for dtype in dtypes}
    path = tmp_path / "weights.safetensors"
    save_torch_file(saved, path)
    found = read_safetensors(path)
    assert set(found) == set(saved)
    for name, expected in saved.items():
        assert name == f"torch.{found[name].dtype.name}"
        assert found[name].shape == tuple(expected.shape)
        # float64 holds every value exactly, and NumPy has no bfloat16 to ask PyTorch for.
        np.testing.assert_array_equal(found[name].astype(np.float64), expected.double().numpy(), err_msg=name)
