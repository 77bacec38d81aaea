"""Which format a request has and which its answer gets: `Content-Type` and `Accept`, for /invocations and V2.

Without `Accept`, or with a wildcard, an answer comes in its request's own format. Sources: RFC 9110, sections 8.3 and
12.5.1; Triton Inference Server, "Binary Tensor Data Extension" and its SageMaker front.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from shared.codecs.content.answers import AnswerFormat, BinaryAnswer, JsonAnswer, ProtobufAnswer
from shared.codecs.content.media import (
    ALIASES,
    BINARY,
    CSV,
    JSON,
    JSON_LINES,
    KNOWN,
    NPY,
    NPZ,
    PROTOBUF,
    SAGEMAKER_BINARY,
)
from shared.codecs.content.requests import JsonFormat, ProtobufFormat, RequestFormat, V2Format
from shared.codecs.media_types import choose_media_type, media_quality, parse_item, parse_list
from shared.domain.errors import InvalidRequest, NotAcceptable, UnsupportedMediaType

__all__ = ["AnswerFormat", "RequestFormat", "answer_format", "request_format", "v2_format"]

HEADER_LENGTH = "inference-header-content-length"
_HEADER_SIZE = "json-header-size"
_HEADER_ROW = {"present": True, "absent": False}
_MAX_HEADER = 1024


def request_format(content_type: str, headers: Mapping[str, str]) -> RequestFormat:
    """The format of a body on /invocations; no content type at all means JSON. `headers` has names in lower case.

    Raises UnsupportedMediaType with the list of what is read, InvalidRequest for a header length that is no number.
    """
    if len(content_type) > _MAX_HEADER:
        raise _unsupported(content_type)
    return _request_format(content_type, headers.get(HEADER_LENGTH))


def v2_format(content_type: str, headers: Mapping[str, str]) -> RequestFormat:
    """The format of a body on V2's own routes: JSON, or binary where the header length is given, whatever its type.

    Raises UnsupportedMediaType for a type that is neither JSON nor that of binary tensors.
    """
    if len(content_type) > _MAX_HEADER:
        raise _unsupported(content_type)
    return _v2_format(content_type, headers.get(HEADER_LENGTH))


@lru_cache(maxsize=256)
def _request_format(content_type: str, header_length: str | None) -> RequestFormat:
    kind, parameters = parse_item(content_type)
    kind = ALIASES.get(kind, kind) or JSON
    if kind == SAGEMAKER_BINARY:
        return V2Format(_header_size(parameters), binary=SAGEMAKER_BINARY)
    if kind == BINARY or (kind == JSON and header_length is not None):
        return V2Format(_header_length(header_length), binary=BINARY)
    if kind == JSON:
        return JsonFormat()
    if kind == PROTOBUF:
        return ProtobufFormat()
    if kind in (CSV, JSON_LINES):
        from shared.codecs.content import tables

        header = _HEADER_ROW.get(parameters.get("header", "").lower())
        return tables.CsvFormat(parameters.get("charset", ""), header) if kind == CSV else tables.JsonLinesFormat()
    if kind in (NPY, NPZ):
        from shared.codecs.content import arrays

        return arrays.NpyFormat() if kind == NPY else arrays.NpzFormat()
    raise _unsupported(kind)


@lru_cache(maxsize=256)
def _v2_format(content_type: str, header_length: str | None) -> RequestFormat:
    kind, parameters = parse_item(content_type)
    if kind == SAGEMAKER_BINARY:
        return V2Format(_header_size(parameters), binary=SAGEMAKER_BINARY)
    if header_length is not None:
        return V2Format(_header_length(header_length), binary=BINARY)
    # Python's own client and curl name a form's type for whatever they are given.
    if kind in ("", JSON, BINARY, "application/x-www-form-urlencoded"):
        return V2Format(None, binary=BINARY)
    raise UnsupportedMediaType(
        f"{kind[:100]!r} is not read here; send {JSON}, or {BINARY} with the header Inference-Header-Content-Length."
    )


def answer_format(accept: str, request: RequestFormat) -> AnswerFormat:
    """The format of the answer to a request of this format; raises NotAcceptable with the list of what is written."""
    if len(accept) > _MAX_HEADER:
        accept = accept[:_MAX_HEADER].rpartition(",")[0]
    return _answer_format(accept, request.own)


@lru_cache(maxsize=256)
def _answer_format(accept: str, own: tuple[str, ...]) -> AnswerFormat:
    for alias, name in ALIASES.items():
        accept = re.sub(rf"{re.escape(alias)}(?![\w.+-])", name, accept, flags=re.IGNORECASE)
    order = tuple(dict.fromkeys((*own, *KNOWN)))
    chosen = choose_media_type(accept, order)
    if chosen is None:
        raise NotAcceptable(f"None of the types in Accept is written here; there are {', '.join(KNOWN)}.")
    ranges = parse_list(accept)

    def takes(media_type: str) -> bool:
        return not ranges or media_quality(media_type, ranges)[0] > 0

    if chosen == JSON:
        binary = [media_type for media_type in own[1:] if media_type in (BINARY, SAGEMAKER_BINARY)]
        return JsonAnswer(binary[0] if binary and takes(binary[0]) else None)
    if chosen in (BINARY, SAGEMAKER_BINARY):
        return BinaryAnswer(chosen)
    if chosen == PROTOBUF:
        return ProtobufAnswer()
    if chosen in (CSV, JSON_LINES):
        from shared.codecs.content import tables

        headers = [_HEADER_ROW.get(items.get("header", "").lower()) for value, items, _ in ranges if value == CSV]
        return tables.CsvAnswer(headers[0] if headers else None) if chosen == CSV else tables.JsonLinesAnswer()
    from shared.codecs.content import arrays

    return arrays.NpyAnswer(takes(NPZ)) if chosen == NPY else arrays.NpzAnswer()


def _header_size(parameters: Mapping[str, str]) -> int:
    size = parameters.get(_HEADER_SIZE, "")
    if not re.fullmatch(r"[0-9]{1,9}", size):
        raise InvalidRequest(f"The content type {SAGEMAKER_BINARY} needs {_HEADER_SIZE}, the bytes of its JSON header.")
    return int(size)


def _header_length(text: str | None) -> int:
    if text is None or not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise InvalidRequest(
            f"The content type {BINARY} needs the header Inference-Header-Content-Length, the bytes of its JSON header."
        )
    return int(text)


def _unsupported(content_type: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(f"{content_type[:100]!r} is not read here; send one of {', '.join(KNOWN)}.")
