"""The restricted unpickler: reads a pickle by `torch.save`, and can build plain values and descriptions of tensors.

A pickle is a program. Here its names resolve to inert values, functions of this file answer the few calls that rebuild
tensors, and anything else that it asks for is an error before anything is run.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from camjax.weights.errors import WeightsError

# About 70 reads describe a tensor, so this is enough for 14,000 tensors. It bounds the time and memory that a file of
# one-byte instructions can take.
_MAX_READS = 1_000_000

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

ADVICE = "In PyTorch, torch.save(model.state_dict(), path) writes a file of tensors alone."


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of numbers of one type; tensors are views of it.

    Attributes:
      key: its name in the file.
      dtype: of the numbers, little-endian.
      count: number of elements, by the file's description.
    """

    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor as the pickle describes it; nothing is checked yet.

    Attributes:
      storage: should be the `Storage` that it is a view of.
      offset: should be the index of its first element in the storage.
      size: should be the tuple of its lengths.
      stride: should be the tuple of its steps, in elements.
    """

    storage: Any
    offset: Any
    size: Any
    stride: Any


class ByteReader:
    """Reads the bytes from `position` to `end`, never more, and counts the reads.

    Args:
      data: the file.
      position: of the first byte.
      end: position after the last byte.
    """

    def __init__(self, data: bytes, position: int, end: int):
        self._data = data
        self.position = position
        self._end = end
        self._reads = 0

    def spend(self, reads: int) -> None:
        """Counts steps; raises WeightsError if they become too many."""
        self._reads += reads
        if self._reads > _MAX_READS:
            raise WeightsError(f"the description of the tensors is too long (over {_MAX_READS:,} steps). {ADVICE}")

    def read(self, count: int) -> bytes:
        """Returns the next `count` bytes; raises EOFError if fewer are left."""
        self.spend(1)
        if not 0 <= count <= self._end - self.position:
            raise EOFError(f"{count} bytes wanted at byte {self.position}, where {self._end - self.position} are left")
        start = self.position
        self.position += count
        return self._data[start : self.position]

    def readline(self) -> bytes:
        """Returns the bytes up to and including the next newline; raises EOFError if none follows."""
        newline = self._data.find(b"\n", self.position, self._end)
        if newline < 0:
            raise EOFError(f"a line that begins at byte {self.position} does not end")
        return self.read(newline + 1 - self.position)


def unpickle(reader: ByteReader) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle, and leaves the reader after it.

    Args:
      reader: at the pickle's first byte. Several pickles may follow each other; they share the limit on reads.

    Returns:
      The pickled object, made of plain values and `_Tensor`s; and the storages that it mentions, by key.

    Raises:
      WeightsError: it asks for any callable other than those that build tensors, or takes too many steps.
      Exception: any error of the standard library over a damaged pickle.
    """
    unpickler = _TensorUnpickler(reader)
    return unpickler.load(), unpickler.storages


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that a pickle asks for. It cannot be called, so no instruction can run it by accident."""

    name: str


class _Instructions(dict):
    def __missing__(self, code: int) -> None:
        raise pickle.UnpicklingError(f"pickle instruction {code:#04x}, which no file of tensors has")


# Not among them are instructions that a file of tensors never has: sets, buffers (one allocates what the file says),
# the extension registry, the other ways to make objects, and protocol 0's memo.
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

    # What the class in Python has, and its type stub does not say.
    stack: list[Any]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, reader: ByteReader):
        # Python 2's str is read as text, as torch.load does.
        super().__init__(reader, encoding="utf-8")
        self._reader = reader
        self.storages: dict[str, Storage] = {}
        self._constructors: dict[str, Callable[..., object]] = {
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
            raise pickle.UnpicklingError(f"invalid name: {full_name[:80]!r}")
        raise _refusal(full_name[:200])

    def persistent_load(self, pid: object) -> Storage:
        # The sixth item, in the legacy format only, is about views of storages, which ended with PyTorch 0.3.
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise pickle.UnpicklingError("a persistent id that is not a storage")
        kind, key, count = pid[1], pid[2], pid[4]
        if type(kind) is not _Global or kind.name not in _DTYPES or type(key) is not str or not is_index(count):
            raise pickle.UnpicklingError("a storage without a proper type, key or size")
        storage = Storage(key, _DTYPES[kind.name], count)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError(f"two descriptions of storage {key[:80]!r}")
        return storage

    def _call(self, function: object, args: object) -> object:
        if type(function) is not _Global or type(args) is not tuple:
            raise pickle.UnpicklingError("a call of something that is not a function")
        if function.name not in self._constructors:
            raise _refusal(function.name)
        return self._constructors[function.name](*args)

    def _ordered_dict(self, pairs: Any = ()) -> dict:
        # Python 2 pickles an OrderedDict as a call with its items; each such call copies them.
        if type(pairs) not in (list, tuple):
            raise pickle.UnpicklingError("an OrderedDict of something that is not a list")
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
            raise WeightsError(f"a tensor has metadata, such as a lazy negation, that is not read here. {ADVICE}")
        return _Tensor(storage, offset, size, stride)

    def _parameter(self, data: object, requires_grad: object, hooks: object) -> _Tensor:
        if type(data) is not _Tensor:
            raise pickle.UnpicklingError("a parameter of something that is not a tensor")
        return data

    def _instantiate(self, klass: object, args: list) -> None:
        # What INST calls with a class and its arguments.
        self.append(self._call(klass, tuple(args)))

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_build(self) -> None:
        # state_dict() sets a table of versions as an attribute of its OrderedDict. Nothing here needs it.
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise pickle.UnpicklingError("attributes for something that is not an OrderedDict")

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
            raise pickle.UnpicklingError("items for something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked_key(key)] = value

    def load_frame(self) -> None:
        # A frame only says how much to buffer, and everything is in memory.
        self.read(8)

    dispatch[pickle.FRAME[0]] = load_frame


def _refusal(name: str) -> WeightsError:
    return WeightsError(f"the file asks to call {name}; only tensors are read, and nothing was run. {ADVICE}")


def is_index(value: object) -> bool:
    """Whether a value from a file can be an index, a length or a stride: an int from 0 to below 2**61."""
    return type(value) is int and 0 <= value < _MAX_INT


def _checked_key(key: object) -> str | int:
    """Allow only keys that hash at once: nested tuples may take forever, or overflow the C stack."""
    if type(key) is str or (type(key) is int and abs(key) < _MAX_INT):
        return key
    raise WeightsError(
        f"a dict in the file has a key of type {type(key).__name__}; names and numbers are read. {ADVICE}"
    )
