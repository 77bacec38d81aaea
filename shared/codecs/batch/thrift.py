"""Thrift's compact protocol, as far as the metadata of Parquet files needs a look before Arrow trusts it.

Source: Apache Thrift, "Thrift compact protocol encoding".
"""

from collections.abc import Callable
from typing import Final

_DEPTH: Final = 16
_VARINT: Final = 10  # bytes that one has at most
_DOUBLE: Final = 8
_BOOLS: Final = frozenset({1, 2})
_I32: Final = 5
_STRUCT: Final = 12
# What an element of a list takes in memory once it is read, about: the largest structure is a column chunk's, by far.
_STRUCT_BYTES: Final = 700
_OTHER_BYTES: Final = 32

Fields = dict[int, "int | Fields | None"]
Seen = Callable[[tuple[int, ...], Fields], None]


class Wide(int):
    """A number of 64 bits."""


class Malformed(Exception):
    """These are no such bytes, or they stand for more than is allowed."""


class CutOff(Malformed):
    """The bytes end before the structure does."""


class CompactReader:
    """Reads structures from `data`; `at` is the next byte. Lists may stand for `budget` bytes of memory in all.

    `seen` is called with each structure of a list, behind the ids of the fields that lead to it.
    """

    def __init__(self, data: bytes, *, budget: int = 1 << 20, seen: Seen | None = None) -> None:
        self._data = data
        self._budget = budget
        self._seen = seen
        self._path: list[int] = []
        self.at = 0

    def struct(self, depth: int = 0) -> Fields:
        """The fields that are numbers (`Wide` ones of 64 bits) or structures, by their ids; others are there as None.

        A field that comes twice is malformed: readers differ in which of them they take.
        """
        if depth > _DEPTH:
            raise Malformed("structures are nested too deeply")
        found: Fields = {}
        field = 0
        while True:
            head = self._byte()
            kind = head & 15
            if kind == 0:
                return found
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            if field in found:
                raise Malformed("a field comes twice")
            self._path.append(field)
            found[field] = None if kind in _BOOLS else self._value(kind, depth)
            self._path.pop()

    def _value(self, kind: int, depth: int) -> "int | Fields | None":
        if kind == _I32:
            return self._zigzag()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == 6:
            value = self._varint()
            return Wide(value >> 1 ^ -(value & 1))
        if kind == 4:  # of 16 bits
            self._varint()
        elif kind in _BOOLS or kind == 3:  # in lists a boolean is a byte
            self._skip(1)
        elif kind == 7:
            self._skip(_DOUBLE)
        elif kind == 8:
            self._skip(self._varint())
        elif kind in (9, 10):
            self._list(depth)
        elif kind == 11:
            self._map(depth)
        else:
            raise Malformed("a field has no known type")
        return None

    def _list(self, depth: int) -> None:
        head = self._byte()
        count = head >> 4
        self._elements(self._varint() if count == 15 else count, (head & 15,), depth)

    def _map(self, depth: int) -> None:
        count = self._varint()
        if count:
            kinds = self._byte()
            self._elements(count, (kinds >> 4, kinds & 15), depth)

    def _elements(self, count: int, kinds: tuple[int, ...], depth: int) -> None:
        if depth >= _DEPTH:
            raise Malformed("structures are nested too deeply")
        self._budget -= count * sum(_STRUCT_BYTES if kind == _STRUCT else _OTHER_BYTES for kind in kinds)
        if self._budget < 0:
            raise Malformed("it stands for too much")
        for _ in range(count):
            for kind in kinds:
                value = self._value(kind, depth + 1)
                if self._seen is not None and isinstance(value, dict):
                    self._seen(tuple(self._path), value)

    def _byte(self) -> int:
        if self.at >= len(self._data):
            raise CutOff("it ends early")
        self.at += 1
        return self._data[self.at - 1]

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._data):
            raise CutOff("it ends early")

    def _varint(self) -> int:
        value = self._byte()
        if value < 128:
            return value
        value &= 127
        for shift in range(7, 7 * _VARINT, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise Malformed("a number is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        if value >> 32:
            raise Malformed("a number is too large")
        return value >> 1 ^ -(value & 1)
