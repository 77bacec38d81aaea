"""Which format a request of a function has: what the container reads as well, and forms.

Source: RFC 9110, section 8.3; RFC 7578 (multipart/form-data).
"""

from collections.abc import Mapping
from typing import Final

from shared.codecs.content.formats import RequestFormat
from shared.codecs.content.formats import request_format as codec_format
from shared.codecs.content.media import JSON, KNOWN, MULTIPART, SAGEMAKER_BINARY
from shared.codecs.media_types import parse_item
from shared.domain.errors import UnsupportedMediaType

READ: Final = (*KNOWN, MULTIPART)
_MAX_HEADER = 1024


def request_format(content_type: str, headers: Mapping[str, str]) -> RequestFormat:
    """The format of a body; none at all means JSON. `headers` has names in lower case.

    Any `…+json` is read as JSON. Raises UnsupportedMediaType with the list of what is read, InvalidRequest for a header
    length that is no number and a form without a boundary.
    """
    if content_type == JSON:
        return codec_format(content_type, headers)
    if len(content_type) > _MAX_HEADER:
        raise _unsupported(content_type)
    kind, parameters = parse_item(content_type)
    if kind == MULTIPART:
        from shared.web.multipart import MultipartFormat  # what gets no form need not load it

        return MultipartFormat(parameters.get("boundary", ""))
    if kind == JSON or (kind.endswith("+json") and kind != SAGEMAKER_BINARY):
        charset = parameters.get("charset", "utf-8")
        if charset.lower() != "utf-8":
            raise UnsupportedMediaType(f"JSON is read in UTF-8, not in {charset[:100]!r}.")
        return codec_format(JSON, headers)
    try:
        return codec_format(content_type, headers)
    except UnsupportedMediaType:
        raise _unsupported(kind) from None


def _unsupported(content_type: str) -> UnsupportedMediaType:
    hint = " With curl: -H 'Content-Type: application/json'." if "urlencoded" in content_type else ""
    return UnsupportedMediaType(f"{content_type[:100]!r} is not read here; send one of {', '.join(READ)}.{hint}")
