"""Header blocks of HTTP/2: a decoder with its dynamic table, and the few literals that are sent.

What we send uses neither the dynamic table nor the Huffman code: each block stands for itself.
Source: RFC 7541.
"""

from collections.abc import Iterable

from gpu_service.grpc import huffman

Header = tuple[bytes, bytes]

TABLE_SIZE = 4096
ENTRY_OVERHEAD = 32
_MAX_INTEGER = 2**28

_STATIC: tuple[Header, ...] = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)


class BadBlock(Exception):
    """The block breaks the format, so that the tables of both sides may differ: the connection must end."""


_FAR_TOO_LARGE = 4


class Decoder:
    """One direction of one connection. `changes` counts the changes of the dynamic table.

    As long as that stays the same, equal blocks have equal headers.
    """

    __slots__ = ("_limit", "_max_list", "_size", "_table", "changes")

    def __init__(self, max_list_bytes: int) -> None:
        self.changes = 0
        self._max_list = max_list_bytes
        self._table: list[Header] = []  # the youngest first
        self._size = 0
        self._limit = TABLE_SIZE

    def decode(self, block: bytes) -> list[Header] | None:
        """The headers in order; None if they are larger than allowed, which leaves the tables in step.

        Raises BadBlock. The size of a list counts 32 bytes for each header beside its name and value.
        """
        headers: list[Header] = []
        size = position = 0
        try:
            while position < len(block):
                first = block[position]
                if first & 0xE0 == 0x20:
                    if headers or size:
                        raise BadBlock("the table's size changes after the first header")
                    limit, position = _integer(block, position, 5)
                    self._resize(limit)
                    continue
                if first & 0x80:
                    index, position = _integer(block, position, 7)
                    header = self._entry(index)
                else:
                    header, position = self._literal(block, position)
                size += len(header[0]) + len(header[1]) + ENTRY_OVERHEAD
                if size <= self._max_list:
                    headers.append(header)
                elif size > _FAR_TOO_LARGE * self._max_list:
                    # A byte of a block can stand for kilobytes: to read on would be the sender's work done by us.
                    raise BadBlock("the headers are many times larger than allowed")
        except (IndexError, ValueError) as error:
            raise BadBlock(str(error)) from None
        return headers if size <= self._max_list else None

    def _literal(self, block: bytes, position: int) -> tuple[Header, int]:
        kept = block[position] & 0x40
        index, position = _integer(block, position, 6 if kept else 4)
        if index:
            name = self._entry(index)[0]
        else:
            name, position = _string(block, position)
        value, position = _string(block, position)
        if kept:
            self._keep((name, value))
        return (name, value), position

    def _entry(self, index: int) -> Header:
        if not index:
            raise BadBlock("index 0 is no header")
        return _STATIC[index - 1] if index <= len(_STATIC) else self._table[index - len(_STATIC) - 1]

    def _keep(self, header: Header) -> None:
        self.changes += 1
        self._table.insert(0, header)
        self._size += len(header[0]) + len(header[1]) + ENTRY_OVERHEAD
        self._evict()

    def _resize(self, limit: int) -> None:
        if limit > TABLE_SIZE:
            raise BadBlock(f"a table of {limit} bytes is larger than allowed")
        if limit != self._limit:
            self.changes += 1
            self._limit = limit
            self._evict()

    def _evict(self) -> None:
        while self._size > self._limit:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + ENTRY_OVERHEAD


def literals(headers: Iterable[Header]) -> bytes:
    """A block of literals without indexing, names in lower case."""
    parts: list[bytes] = []
    for name, value in headers:
        parts += (b"\0", _length(len(name)), name, _length(len(value)), value)
    return b"".join(parts)


def _length(size: int) -> bytes:
    if size < 0x7F:
        return bytes((size,))
    parts = bytearray((0x7F,))
    size -= 0x7F
    while size >= 0x80:
        parts.append(size & 0x7F | 0x80)
        size >>= 7
    parts.append(size)
    return bytes(parts)


def _integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value = block[position] & most
    position += 1
    if value < most:
        return value, position
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if value > _MAX_INTEGER or shift > 35:
            raise BadBlock("an integer is too large")
        if not byte & 0x80:
            return value, position


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    coded = block[position] & 0x80
    size, position = _integer(block, position, 7)
    end = position + size
    if end > len(block):
        raise BadBlock("a string is longer than its block")
    text = block[position:end]
    return (huffman.decode(text) if coded else text), end
