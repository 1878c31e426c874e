"""A cache that holds a bounded number of bytes."""

import collections
import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """The values used last, up to a number of bytes; several threads may use it at once.

    Args:
      limit: how many bytes all values together may take. A value that alone takes more is still kept, as the only one.
    """

    def __init__(self, limit: int):
        self._limit, self._bytes = limit, 0
        self._kept: collections.OrderedDict[Hashable, tuple[Value, int]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """The value, which now is the one used last; None if it is not kept."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keeps a value of that many bytes, in place of one with the same key, and drops those not used for longest."""
        with self._lock:
            self._bytes += size - self._kept.pop(key, (None, 0))[1]
            self._kept[key] = value, size
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][1]
