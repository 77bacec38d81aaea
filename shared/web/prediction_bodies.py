"""Bodies of predictions, the same whether an answer is waited for or comes later."""

from collections.abc import Mapping

from shared.codecs.compression import decompress
from shared.codecs.content.answers import Members
from shared.codecs.content.decoded import Decoded
from shared.codecs.content.formats import AnswerFormat, RequestFormat, answer_format
from shared.codecs.json_documents import JsonLimits
from shared.domain import errors
from shared.domain.endpoint.config import EndpointLimits
from shared.domain.signature import Signature
from shared.usecases.prediction import Prediction
from shared.web.cache_status import cache_control
from shared.web.negotiation import request_format
from shared.web.origin import origin_headers

_NO_LIMITS = EndpointLimits()


class _Version:
    """A version as answers name it."""

    __slots__ = ("name", "version")

    def __init__(self, name: str, version: int) -> None:
        self.name = name
        self.version = version


def decode(
    form: RequestFormat,
    headers: Mapping[str, str],
    body: bytes,
    signature: Signature,
    limits: JsonLimits,
    endpoint: EndpointLimits,
) -> Decoded:
    """A request's body within the limits of the stack and the endpoint; `headers` have names in lower case.

    Raises PayloadTooLarge and what the format raises.
    """
    most = min(limits.max_bytes, endpoint.max_bytes or limits.max_bytes)
    if len(body) > most:
        raise errors.PayloadTooLarge(f"The body has {len(body)} bytes; the limit is {most}.")
    if coding := headers.get("content-encoding", ""):
        body = decompress(body, coding, most)
    return form.decode(body, signature, limits)


def encode(form: AnswerFormat, made: Prediction) -> tuple[bytes, str, list[tuple[str, str]]]:
    """The body of an answer, its media type, and its other headers: not yet compressed, however large."""
    version = made.version
    members = Members(
        {"variant": made.variant, "backend": made.backend},
        {"prediction_id": made.prediction_id},
    )
    body, media_type, more = form.encode(
        _Version(version.model, version.version), made.signature, made.outputs, made.decoded, members
    )
    return body, media_type, [*more, ("X-Prediction-Id", made.prediction_id), *origin_headers(made)]


class PredictionForm:
    """How a job's request and its answer are written, by the headers of the request; within `limits` alone.

    An endpoint's own bound of bytes is for answers that somebody waits for. The answer is never compressed: it is kept,
    and whoever gives it does so by what its reader accepts. Raises UnsupportedMediaType, NotAcceptable, InvalidRequest.
    """

    def __init__(self, headers: Mapping[str, str], limits: JsonLimits) -> None:
        self._headers = headers
        self._limits = limits
        self._request = request_format(headers.get("content-type", ""), headers)
        self._answer = answer_format(headers.get("accept", ""), self._request)
        self.no_cache, self.no_store = cache_control(headers.get("cache-control", ""))

    def decode(self, body: bytes, signature: Signature, _endpoint: EndpointLimits, /) -> Decoded:
        """The request; raises PayloadTooLarge and what the format raises."""
        return decode(self._request, self._headers, body, signature, self._limits, _NO_LIMITS)

    def encode(self, made: Prediction, /) -> tuple[bytes, str, list[tuple[str, str]]]:
        """The body, its media type, and further headers."""
        return encode(self._answer, made)
