"""Rows as text: CSV and JSON Lines, in and out. A module of its own: what gets JSON only need not load it."""

from shared.codecs.content.answers import Answer, Members, Version, requested
from shared.codecs.content.decoded import CsvDecoded, Decoded, PlainDecoded
from shared.codecs.content.media import CSV, JSON_LINES
from shared.codecs.csv_tensors import decode_csv, encode_csv
from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_lines import decode_lines, encode_lines
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors


class CsvFormat:
    """CSV."""

    __slots__ = ("charset", "header", "own")

    def __init__(self, charset: str, header: bool | None) -> None:
        self.charset = charset
        self.header = header
        self.own = (CSV,)

    def decode(self, body: bytes, signature: Signature, limits: JsonLimits) -> Decoded:
        """See `RequestFormat`."""
        rows = decode_csv(body, signature, limits, charset=self.charset, header=self.header)
        return CsvDecoded(rows.inputs, header=rows.header)


class CsvAnswer:
    """CSV, with a header row if `header` says so, or None and the request had one."""

    __slots__ = ("header",)

    def __init__(self, header: bool | None) -> None:
        self.header = header

    def encode(
        self, _key: Version, signature: Signature, outputs: Tensors, decoded: Decoded, _more: Members | None = None, /
    ) -> Answer:
        """See `AnswerFormat`."""
        header = self.header
        if header is None:
            header = isinstance(decoded, CsvDecoded) and decoded.header
        body = encode_csv(requested(outputs, decoded), signature, header=header)
        return body, f"{CSV}; charset=utf-8; header={'present' if header else 'absent'}", ()


class JsonLinesFormat:
    """JSON Lines."""

    __slots__ = ()
    own = (JSON_LINES,)

    def decode(self, body: bytes, signature: Signature, limits: JsonLimits) -> Decoded:
        """See `RequestFormat`."""
        return PlainDecoded(decode_lines(body, signature, limits))


class JsonLinesAnswer:
    """JSON Lines."""

    __slots__ = ()

    def encode(
        self, _key: Version, signature: Signature, outputs: Tensors, decoded: Decoded, _more: Members | None = None, /
    ) -> Answer:
        """See `AnswerFormat`."""
        if decoded.outputs:
            specs = tuple(spec for spec in signature.outputs if spec.name in decoded.outputs)
            signature = Signature(signature.inputs, specs, signature.batched, signature.max_batch)
        return encode_lines(outputs, signature), JSON_LINES, ()
