"""Forms (`multipart/form-data`) as parts, by python-multipart, which Starlette reads forms with as well.

The body is in memory already and bounded; here the number of parts and what stands before each are. Source: RFC 7578.
"""

import logging
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shared.codecs.content.decoded import PlainDecoded
from shared.codecs.content.media import JSON
from shared.codecs.content.parts import Part, decode_parts
from shared.codecs.json_documents import JsonLimits
from shared.domain.errors import InvalidRequest, MissingField, PayloadTooLarge, UnsupportedMediaType
from shared.domain.signature import Signature

_MAX_BOUNDARY: Final = 70  # RFC 2046, 5.1.1
_AS_IT_IS = frozenset({b"", b"7bit", b"8bit", b"binary"})


@dataclass(frozen=True, slots=True)
class PartLimits:
    """Bounds of a form: how many parts, bytes of one, headers of one, bytes of a header line, characters of a name."""

    max_parts: int = 1024
    max_part_bytes: int = 6 * 1024 * 1024
    max_headers: int = 8
    max_header_bytes: int = 1024
    max_name: int = 256


class MultipartFormat:
    """A form; its answer is JSON unless `Accept` names another type."""

    __slots__ = ("_boundary", "_limits")
    own = (JSON,)

    def __init__(self, boundary: str, limits: PartLimits | None = None) -> None:
        if not 0 < len(boundary) <= _MAX_BOUNDARY or not boundary.isascii():
            raise InvalidRequest(f"A form's content type names its boundary, 1 to {_MAX_BOUNDARY} ASCII characters.")
        self._boundary = boundary
        self._limits = limits or PartLimits()

    def decode(self, body: bytes, signature: Signature, limits: JsonLimits) -> PlainDecoded:
        """See `shared.codecs.content.requests.RequestFormat`."""
        if len(body) > limits.max_bytes:
            raise PayloadTooLarge(f"The body has {len(body)} bytes; the limit is {limits.max_bytes}.")
        return decode_parts(read_parts(body, self._boundary, self._limits), signature, limits)


def read_parts(body: bytes, boundary: str, limits: PartLimits) -> list[Part]:
    """The parts in their order; raises InvalidRequest for what is no whole form, PayloadTooLarge over the limits."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it would tell of every odd form
    reader = _Reader(limits)
    try:
        parser = MultipartParser(
            boundary.encode("ascii"),
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.name,
                "on_header_value": reader.value,
                "on_header_end": reader.header,
                "on_part_data": reader.data,
                "on_part_end": reader.end,
                "on_end": reader.finish,
            },
            max_header_count=limits.max_headers,
            max_header_size=limits.max_header_bytes,
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest(f"The body is not a form with the boundary of its content type: {error}.") from None
    if not reader.is_whole:
        raise InvalidRequest("The form is cut off, or its boundary is not the one that its content type names.")
    return reader.parts


class _Reader:
    """Gathers parts from the parser's calls, which give pieces of one buffer."""

    def __init__(self, limits: PartLimits) -> None:
        self.parts: list[Part] = []
        self.is_whole = False
        self._limits = limits
        self._headers: dict[bytes, bytes] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._pieces: list[bytes] = []
        self._size = 0

    def begin(self) -> None:
        if len(self.parts) >= self._limits.max_parts:
            raise PayloadTooLarge(f"The form has more than {self._limits.max_parts} parts.")
        self._headers, self._pieces, self._size = {}, [], 0

    def name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header(self) -> None:
        self._headers.setdefault(bytes(self._name).strip().lower(), bytes(self._value).strip())
        self._name, self._value = bytearray(), bytearray()

    def data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self._limits.max_part_bytes:
            raise PayloadTooLarge(f"Part {len(self.parts)} has more than {self._limits.max_part_bytes} bytes.")
        self._pieces.append(data[start:end])

    def end(self) -> None:
        place = f"/{len(self.parts)}"
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise MissingField.at(place, "this part of the form has no Content-Disposition with a name")
        if self._headers.get(b"content-transfer-encoding", b"").lower() not in _AS_IT_IS:
            raise UnsupportedMediaType(f"Part {len(self.parts)} has a transfer encoding; send its bytes as they are.")
        name = options[b"name"].decode("utf-8", "replace")
        if len(name) > self._limits.max_name:
            raise PayloadTooLarge(f"Part {len(self.parts)} has a name of more than {self._limits.max_name} characters.")
        media_type = parse_options_header(self._headers.get(b"content-type"))[0].decode("latin-1")
        data = b"".join(self._pieces)
        self.parts.append(Part(name, data, media_type=media_type, is_file=b"filename" in options))

    def finish(self) -> None:
        self.is_whole = True
