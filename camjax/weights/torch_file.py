"""Reads the tensors of a file by `torch.save`, without PyTorch and without running anything that the file names.

Both formats are read: the zip archive that PyTorch writes since 1.6, and the legacy one before it (five pickles in a
row, then the raw data). In either, a pickle describes the tensors and the data lie beside it. The pickle is read
by an unpickler that knows tensors, their storages and plain values; the data are mapped, not copied. The formats
are those of `torch/serialization.py`.
"""

import math
import mmap
import pickle
import struct
import zipfile
from dataclasses import dataclass
from os import PathLike

import ml_dtypes
import numpy as np

from camjax.weights.errors import WeightsError, check_weights_file, describe_start

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

# Where training scripts keep the weights, in the order of preference.
_CHECKPOINT_KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema")

# About 70 reads describe a tensor, so this is 14,000 tensors. It bounds the time and memory that a file of
# one-byte instructions can take.
_MAX_READS = 1_000_000

_MAX_RANK = 32
_MAX_INT = 2**61

_DTYPES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}

_ADVICE = "In PyTorch, torch.save(model.state_dict(), path) writes a file of tensors alone."


def read_torch_file(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Read the named tensors of a `.pth` or `.pt` file.

    The file holds a state dict, or a training checkpoint with one under "state_dict", "model", "model_state_dict" or
    "state_dict_ema" (the first of these that holds tensors is taken). What else is there, such as an epoch or an
    optimizer, is passed over. A leading "module." that all names share (DataParallel) is taken off.

    The arrays are read-only views of the mapped file, with the strides that the tensors were saved with. They
    cost no memory until read, and the file must not be overwritten in place while they live; `np.array(view)`
    makes a copy. Tensors that share a storage share it here too.

    Args:
        path: a file by `torch.save`, of any PyTorch since 0.4.

    Returns:
        The arrays by name, in the file's order. bfloat16 becomes `ml_dtypes.bfloat16`.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is damaged or cut short, big-endian, no file by `torch.save`, asks for any callable other
            than those that build tensors (nothing is run), or holds no named tensors.
    """
    path = check_weights_file(path)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        read = _read_zip if mapped[:4] == b"PK\x03\x04" else _read_legacy
        content, starts = read(mapped)
        tensors = _named_tensors(content)
        return {name: _array(mapped, name, tensor, starts) for name, tensor in tensors.items()}
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    # Whatever else a damaged pickle or archive sets off in the standard library is the file's fault.
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise WeightsError(
            f"{path}: the file is damaged or cut short ({reason}). Download or copy it again."
        ) from error


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that a pickle asks for. It cannot be called, so that no instruction can run it by accident."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor as the pickle describes it; nothing of it is checked before `_array`."""

    storage: object
    offset: object
    size: object
    stride: object


class _Reader:
    """Hands out the bytes from `position` to `end`, never more, and counts what it is asked for."""

    def __init__(self, mapped: mmap.mmap, position: int, end: int):
        self._mapped = mapped
        self.position = position
        self._end = end
        self._reads = 0

    def spend(self, reads: int) -> None:
        self._reads += reads
        if self._reads > _MAX_READS:
            raise WeightsError(f"the description of the tensors is too long (over {_MAX_READS:,} steps). {_ADVICE}")

    def read(self, count: int) -> bytes:
        self.spend(1)
        if not 0 <= count <= self._end - self.position:
            raise EOFError(f"{count} bytes wanted at byte {self.position}, where {self._end - self.position} are left")
        start = self.position
        self.position += count
        return self._mapped[start : self.position]

    def readline(self) -> bytes:
        newline = self._mapped.find(b"\n", self.position, self._end)
        if newline < 0:
            raise EOFError(f"a line that begins at byte {self.position} does not end")
        return self.read(newline + 1 - self.position)


class _Instructions(dict):
    def __missing__(self, code: int) -> None:
        raise pickle.UnpicklingError(f"pickle instruction {code:#04x}, which no file of tensors has")


# Left out are those that a file of tensors never has: sets, buffers (one allocates what the file says), the extension
# registry, the other ways to make objects, and protocol 0's memo.
_KEPT_INSTRUCTIONS = (
    "PROTO STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 "
    "FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS "
    "EMPTY_DICT BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL INST PERSID BINPERSID"
)


class _TensorUnpickler(pickle._Unpickler):
    """Builds plain values and descriptions of tensors.

    It derives from the unpickler in Python: the one in C allocates its memo by numbers in the file. Names resolve to
    inert `_Global`s, and every instruction that would call, or set attributes or items, is replaced.
    """

    dispatch = _Instructions(
        (getattr(pickle, name)[0], pickle._Unpickler.dispatch[getattr(pickle, name)[0]])
        for name in _KEPT_INSTRUCTIONS.split()
    )

    def __init__(self, reader: _Reader):
        # Python 2's str is read as text, as torch.load does.
        super().__init__(reader, encoding="utf-8")
        self._reader = reader
        self.storages: dict[str, _Storage] = {}
        self._constructors = {
            "collections.OrderedDict": self._ordered_dict,
            "torch.Size": self._size,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
        }

    def find_class(self, module: str, name: str) -> _Global:
        full_name = f"{module}.{name}"
        if full_name in self._constructors or full_name in _DTYPES:
            return _Global(full_name)
        if not all(part.isidentifier() for part in full_name.split(".")):
            raise pickle.UnpicklingError(f"a name that is none: {full_name[:80]!r}")
        raise _refusal(full_name[:200])

    def persistent_load(self, pid: object) -> _Storage:
        # The sixth item, in the legacy format only, is about views of storages, which ended with PyTorch 0.3.
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise pickle.UnpicklingError("a persistent id that is no storage")
        kind, key, count = pid[1], pid[2], pid[4]
        if type(kind) is not _Global or kind.name not in _DTYPES or type(key) is not str or not _is_index(count):
            raise pickle.UnpicklingError("a storage without a proper type, key or size")
        storage = _Storage(key, _DTYPES[kind.name], count)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError(f"two descriptions of storage {key[:80]!r}")
        return storage

    def _call(self, function: object, args: object) -> object:
        if type(function) is not _Global or type(args) is not tuple:
            raise pickle.UnpicklingError("a call of something that is no function")
        if function.name not in self._constructors:
            raise _refusal(function.name)
        return self._constructors[function.name](*args)

    def _ordered_dict(self, pairs: object = ()) -> dict:
        # Python 2 pickles an OrderedDict as a call with its items; each such call copies them.
        if type(pairs) not in (list, tuple):
            raise pickle.UnpicklingError("an OrderedDict of no list")
        self._reader.spend(len(pairs))
        result: dict = {}
        for key, value in pairs:
            result[_checked_key(key)] = value
        return result

    def _size(self, size: object = ()) -> object:
        return size

    def _tensor(
        self,
        storage: object,
        offset: object,
        size: object,
        stride: object,
        requires_grad: object = False,
        hooks: object = None,
        metadata: object = None,
    ) -> _Tensor:
        if metadata:
            raise WeightsError(f"a tensor has metadata, such as a lazy negation, that is not read here. {_ADVICE}")
        return _Tensor(storage, offset, size, stride)

    def _parameter(self, data: object, requires_grad: object, hooks: object) -> _Tensor:
        if type(data) is not _Tensor:
            raise pickle.UnpicklingError("a parameter of no tensor")
        return data

    def _instantiate(self, klass: object, args: list) -> None:
        # What INST calls with a class and its arguments.
        self.append(self._call(klass, tuple(args)))

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_build(self) -> None:
        # state_dict() hangs a table of versions on its OrderedDict as an attribute. Nothing here needs it.
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise pickle.UnpicklingError("attributes for something that is no OrderedDict")

    dispatch[pickle.BUILD[0]] = load_build

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    dispatch[pickle.DICT[0]] = load_dict

    def load_setitem(self) -> None:
        value = self.stack.pop()
        self._set_items([self.stack.pop(), value])

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def _set_items(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise pickle.UnpicklingError("items for something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked_key(key)] = value

    def load_frame(self) -> None:
        # A frame only says how much to buffer, and everything is in memory.
        self.read(8)

    dispatch[pickle.FRAME[0]] = load_frame


def _refusal(name: str) -> WeightsError:
    return WeightsError(f"the file asks to call {name}; only tensors are read, and nothing was run. {_ADVICE}")


def _is_index(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX_INT


def _checked_key(key: object) -> str | int:
    """Keep to keys that hash at once: a nest of tuples may take forever, or overflow the C stack."""
    if type(key) is str or (type(key) is int and abs(key) < _MAX_INT):
        return key
    raise WeightsError(
        f"a dict in the file has a key of type {type(key).__name__}; names and numbers are read. {_ADVICE}"
    )


def _read_legacy(mapped: mmap.mmap) -> tuple[object, dict[str, int]]:
    """Return the pickled object, and where in the file each storage's data begin."""
    reader = _Reader(mapped, 0, len(mapped))
    try:
        magic = _TensorUnpickler(reader).load()
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"no file by torch.save: it {describe_start(mapped[:32])}.") from error
    if type(magic) is not int or magic != _MAGIC:
        raise WeightsError(f"no file by torch.save: it {describe_start(mapped[:32])}.")
    version = _TensorUnpickler(reader).load()
    if type(version) is not int or version != _PROTOCOL:
        raise WeightsError(f"the file has a format other than {_PROTOCOL}, the one known. {_ADVICE}")
    if _TensorUnpickler(reader).load()["little_endian"] is not True:
        raise WeightsError(
            "the file was written on a big-endian machine. Load and save it again on a little-endian one."
        )
    unpickler = _TensorUnpickler(reader)
    content = unpickler.load()
    keys = _TensorUnpickler(reader).load()

    starts: dict[str, int] = {}
    position = reader.position
    for key in keys:
        storage = unpickler.storages[key] if type(key) is str else None
        if storage is None or key in starts:
            raise pickle.UnpicklingError("a list of storages that does not fit the tensors")
        (count,) = struct.unpack_from("<q", mapped, position)
        starts[key] = position + 8
        position += 8 + storage.count * storage.dtype.itemsize
        if count != storage.count or position > len(mapped):
            raise WeightsError(
                f"storage {key[:80]!r} should hold {storage.count} elements and the file has {count} there, "
                f"up to byte {position} of {len(mapped)}: it is damaged or cut short. Download or copy it again."
            )
    if len(starts) != len(unpickler.storages):
        raise pickle.UnpicklingError("tensors whose data are not in the file")
    return content, starts


def _read_zip(mapped: mmap.mmap) -> tuple[object, dict[str, int]]:
    """Return the pickled object, and where in the file each storage's data begin."""
    members = zipfile.ZipFile(mapped).infolist()
    by_name = {member.filename: member for member in members}
    if len(by_name) != len(members):
        raise WeightsError("the archive has two members of one name. Download or copy it again.")
    if any(name.endswith("/constants.pkl") for name in by_name):
        raise WeightsError(f"this is a TorchScript archive, which is a program. Open it by torch.jit.load. {_ADVICE}")
    roots = [name[: -len("data.pkl")] for name in by_name if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise WeightsError(f"no file by torch.save: a zip archive of {len(by_name)} files with no single data.pkl.")
    root = roots[0]
    if f"{root}byteorder" in by_name:
        start, size = _stored(mapped, by_name[f"{root}byteorder"])
        if mapped[start : start + size] != b"little":
            raise WeightsError(
                "the file was not written on a little-endian machine. Load and save it again on one, in PyTorch."
            )
    start, size = _stored(mapped, by_name[f"{root}data.pkl"])
    unpickler = _TensorUnpickler(_Reader(mapped, start, start + size))
    content = unpickler.load()

    starts: dict[str, int] = {}
    for key, storage in unpickler.storages.items():
        starts[key], size = _stored(mapped, by_name[f"{root}data/{key}"])
        if size != storage.count * storage.dtype.itemsize:
            raise WeightsError(
                f"storage {key[:80]!r} should hold {storage.count} elements of {storage.dtype}, and has {size} bytes. "
                "Download or copy the file again."
            )
    return content, starts


def _stored(mapped: mmap.mmap, member: zipfile.ZipInfo) -> tuple[int, int]:
    """Return where the data of an archive's member begin, and how many bytes they are."""
    name, size = member.filename[:80], member.file_size
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.compress_size != size:
        raise WeightsError(f"member {name!r} is compressed or encrypted, which torch.save never does. {_ADVICE}")
    signature, name_length, extra_length = struct.unpack_from("<4s22xHH", mapped, member.header_offset)
    start = member.header_offset + 30 + name_length + extra_length
    if signature != b"PK\x03\x04" or start + size > len(mapped):
        raise WeightsError(f"member {name!r} of {size} bytes does not lie in the file. Download or copy it again.")
    return start, size


def _named_tensors(content: object) -> dict[str, _Tensor]:
    if type(content) is not dict:
        found = "a single tensor" if type(content) is _Tensor else f"a value of type {type(content).__name__}"
        raise WeightsError(f"the file holds {found}, not tensors by name. {_ADVICE}")
    for candidate in (*(content.get(key) for key in _CHECKPOINT_KEYS), content):
        if type(candidate) is not dict:
            continue
        tensors = {name: value for name, value in candidate.items() if type(name) is str and type(value) is _Tensor}
        if tensors:
            break
    else:
        found = ", ".join(f"{str(key)[:40]!r}: {type(value).__name__}" for key, value in list(content.items())[:8])
        raise WeightsError(
            f"the file holds no tensors by name, neither at its top nor under {', '.join(_CHECKPOINT_KEYS)}. "
            f"Found: {{{found}}} ({len(content)} entries). {_ADVICE}"
        )
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _array(mapped: mmap.mmap, name: str, tensor: _Tensor, starts: dict[str, int]) -> np.ndarray:
    """Return a view of the mapped file, after checking that the tensor lies within its storage."""
    storage, offset, size, stride = tensor.storage, tensor.offset, tensor.size, tensor.stride
    if (
        type(storage) is not _Storage
        or type(size) is not tuple
        or type(stride) is not tuple
        or not len(size) == len(stride) <= _MAX_RANK
        or not all(_is_index(number) for number in (offset, *size, *stride))
    ):
        raise WeightsError(f"tensor {name[:80]!r} is not described by a storage, an offset, a size and strides.")
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if count else offset - 1
    # As many elements as the storage has at most: with stride 0, a few bytes could pose as any number of them.
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
        buffer=mapped,
        offset=starts[storage.key] + offset * itemsize,
        strides=tuple(step * itemsize for step in stride),
    )
