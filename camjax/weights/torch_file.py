"""Reads the tensors of a file by `torch.save`, without PyTorch and without running anything that the file names.

It reads both formats of `torch/serialization.py`: the zip archive that PyTorch writes since 1.6, and the legacy format
before it (five pickles in a row, then the raw data). In either, a pickle describes the tensors, and the data are stored
beside it. The restricted unpickler of `torch_pickle.py` reads the pickle; the tensors are views of the file's bytes.
The file is read and not mapped: whoever cut a mapped file short would end this process by a signal (SIGBUS).
"""

import io
import math
import pickle
import struct
import zipfile
from os import PathLike
from typing import Any

import numpy as np

from camjax.errors import reading
from camjax.weights.errors import WeightsError, check_weights_file, describe_start
from camjax.weights.torch_pickle import ADVICE, ByteReader, Storage, _Tensor, is_index, unpickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

_MAX_RANK = 32

# How deep in dicts of dicts tensors are looked for, and the longest prefix that their keys make. They bound the time
# and memory that a file of dicts can take.
_MAX_DEPTH = 4
_MAX_PREFIX = 200


def read_torch_file(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the named tensors of a `.pth` or `.pt` file.

    The file holds a state dict, or a training checkpoint with one or several of them. The names of their tensors begin
    with the keys that lead to them: "state_dict.fc.weight". Anything else, such as an epoch, is skipped, and so is what
    has a number for a key, such as the state of an optimizer.

    The arrays are read-only views of the file's bytes, with the strides that the tensors were saved with. Tensors that
    share a storage share it here too.

    Args:
      path: a file by `torch.save`, of any PyTorch since 0.4.

    Returns:
      The arrays by name, in the file's order. bfloat16 becomes `ml_dtypes.bfloat16`.

    Raises:
      FileNotFoundError: the file does not exist.
      WeightsError: the file is damaged or cut short, big-endian, not a file by `torch.save`, asks for any callable
        other than those that build tensors (nothing is run), or holds no named tensors.
    """
    path = check_weights_file(path)
    data = path.read_bytes()
    try:
        with reading("it", "a whole file by torch.save", "Download or copy it again.", error=WeightsError):
            content, starts = (_read_zip if data[:4] == b"PK\x03\x04" else _read_legacy)(data)
            return {name: _array(data, name, tensor, starts) for name, tensor in _named_tensors(content).items()}
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _read_legacy(data: bytes) -> tuple[Any, dict[str, int]]:
    """Returns the pickled object, and the place in the file where each storage's data begin."""
    reader = ByteReader(data, 0, len(data))
    try:
        magic, _ = unpickle(reader)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"not a file by torch.save: it {describe_start(data[:32])}.") from error
    if type(magic) is not int or magic != _MAGIC:
        raise WeightsError(f"not a file by torch.save: it {describe_start(data[:32])}.")
    version, _ = unpickle(reader)
    if type(version) is not int or version != _PROTOCOL:
        raise WeightsError(f"the file has a format other than {_PROTOCOL}, the one known. {ADVICE}")
    if unpickle(reader)[0]["little_endian"] is not True:
        raise WeightsError(
            "the file was written on a big-endian machine. Load and save it again on a little-endian one."
        )
    content, storages = unpickle(reader)
    keys, _ = unpickle(reader)

    starts: dict[str, int] = {}
    position = reader.position
    for key in keys:
        storage = storages[key] if type(key) is str else None
        if storage is None or key in starts:
            raise pickle.UnpicklingError("a list of storages that does not fit the tensors")
        (count,) = struct.unpack_from("<q", data, position)
        starts[key] = position + 8
        position += 8 + storage.count * storage.dtype.itemsize
        if count != storage.count or position > len(data):
            raise WeightsError(
                f"storage {key[:80]!r} should hold {storage.count} elements and the file has {count} there, "
                f"up to byte {position} of {len(data)}: it is damaged or cut short. Download or copy it again."
            )
    if len(starts) != len(storages):
        raise pickle.UnpicklingError("tensors whose data are not in the file")
    return content, starts


def _read_zip(data: bytes) -> tuple[Any, dict[str, int]]:
    """Returns the pickled object, and the place in the file where each storage's data begin."""
    members = zipfile.ZipFile(io.BytesIO(data)).infolist()
    by_name = {member.filename: member for member in members}
    if len(by_name) != len(members):
        raise WeightsError("the archive has two members of one name. Download or copy it again.")
    if any(name.endswith("/constants.pkl") for name in by_name):
        raise WeightsError(f"this is a TorchScript archive, which is a program. Open it by torch.jit.load. {ADVICE}")
    roots = [name[: -len("data.pkl")] for name in by_name if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise WeightsError(f"not a file by torch.save: a zip archive of {len(by_name)} files with no single data.pkl.")
    root = roots[0]
    if f"{root}byteorder" in by_name:
        start, size = _stored(data, by_name[f"{root}byteorder"])
        if data[start : start + size] != b"little":
            raise WeightsError(
                "the file was not written on a little-endian machine. Load and save it again on one, in PyTorch."
            )
    start, size = _stored(data, by_name[f"{root}data.pkl"])
    content, storages = unpickle(ByteReader(data, start, start + size))

    starts: dict[str, int] = {}
    for key, storage in storages.items():
        starts[key], size = _stored(data, by_name[f"{root}data/{key}"])
        if size != storage.count * storage.dtype.itemsize:
            raise WeightsError(
                f"storage {key[:80]!r} should hold {storage.count} elements of {storage.dtype}, and has {size} bytes. "
                "Download or copy the file again."
            )
    return content, starts


def _stored(data: bytes, member: zipfile.ZipInfo) -> tuple[int, int]:
    """Returns where the data of an archive's member begin, and their number of bytes."""
    name, size = member.filename[:80], member.file_size
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.compress_size != size:
        raise WeightsError(f"member {name!r} is compressed or encrypted, which torch.save never does. {ADVICE}")
    signature, name_length, extra_length = struct.unpack_from("<4s22xHH", data, member.header_offset)
    start = member.header_offset + 30 + name_length + extra_length
    if signature != b"PK\x03\x04" or start + size > len(data):
        raise WeightsError(f"member {name!r} of {size} bytes does not lie within the file. Download or copy it again.")
    return start, size


def _named_tensors(content: object) -> dict[str, _Tensor]:
    if type(content) is not dict:
        found = "a single tensor" if type(content) is _Tensor else f"a value of type {type(content).__name__}"
        raise WeightsError(f"the file holds {found}, not tensors by name. {ADVICE}")
    tensors: dict[str, _Tensor] = {}
    # A dict that the pickle has in two places counts once.
    dicts, seen = [("", 0, content)], {id(content)}
    for prefix, depth, of_prefix in dicts:
        for key, value in of_prefix.items():
            if type(key) is not str:
                continue
            name = f"{prefix}{key}"
            if type(value) is _Tensor:
                if name in tensors:
                    raise WeightsError(f"two tensors of the file have the name {name[:80]!r}. {ADVICE}")
                tensors[name] = value
            elif type(value) is dict and id(value) not in seen and depth < _MAX_DEPTH and len(name) < _MAX_PREFIX:
                seen.add(id(value))
                dicts.append((f"{name}.", depth + 1, value))
    if not tensors:
        found = ", ".join(f"{str(key)[:40]!r}: {type(value).__name__}" for key, value in list(content.items())[:8])
        raise WeightsError(f"the file holds no tensors by name: {{{found}}} ({len(content)} entries). {ADVICE}")
    return tensors


def _array(data: bytes, name: str, tensor: _Tensor, starts: dict[str, int]) -> np.ndarray:
    """Returns a view of the file's bytes, after checking that the tensor lies within its storage."""
    storage, offset, size, stride = tensor.storage, tensor.offset, tensor.size, tensor.stride
    if (
        type(storage) is not Storage
        or type(size) is not tuple
        or type(stride) is not tuple
        or not len(size) == len(stride) <= _MAX_RANK
        or not all(is_index(number) for number in (offset, *size, *stride))
    ):
        raise WeightsError(f"tensor {name[:80]!r} is not described by a storage, an offset, a size and strides.")
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if count else offset - 1
    # At most as many elements as the storage has: with stride 0, a few bytes could stand for any number of them.
    if count > storage.count or last >= storage.count:
        raise WeightsError(
            f"tensor {name[:80]!r} of size {size}, strides {stride}, offset {offset} does not fit in its storage of "
            f"{storage.count} elements. The file is damaged, or the tensor was expanded: save a contiguous copy."
        )
    if not count:
        stride = (0,) * len(size)
    itemsize = storage.dtype.itemsize
    return np.ndarray(
        size,
        storage.dtype,
        buffer=data,
        offset=starts[storage.key] + offset * itemsize,
        strides=tuple(step * itemsize for step in stride),
    )
