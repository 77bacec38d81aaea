"""Presigned requests of the local S3, held against their signature as S3 does: moto itself takes any.

Verified is what came, with the credentials of the local stack: the signature over exactly the signed headers, the time,
that no `x-amz-` header came without being signed, and the SHA-256 of the body where the request names one. Requests
that are signed in a header, or not at all, pass as they are. Signatures of version 2 are refused, as S3 refuses them
for new buckets. Not known here: SigV4A, and who a session token belongs to.
Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html, and "Error responses" there.
"""

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import quote, unquote_to_bytes
from xml.sax.saxutils import escape

from infra.local.aws_client import ACCESS_KEY, SECRET_KEY
from infra.local.stack import REGION

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_PARAMETERS: Final = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
_NEEDED: Final = tuple(f"X-Amz-{name}" for name in _PARAMETERS)
_UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_TIME: Final = "%Y%m%dT%H%M%SZ"
_WEEK_S: Final = 604_800
_MAX_SKEW: Final = timedelta(minutes=15)
_CHUNK: Final = 1 << 20
_CHECKSUM: Final = "x-amz-checksum-sha256"

Headers = Mapping[str, str]
Query = Mapping[str, str]


class _RefusedError(Exception):
    """What S3 answers: a status, a code and a message."""

    def __init__(self, status: str, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Presigned:
    """WSGI middleware; `now` gives the time, with its zone."""

    def __init__(self, app: "WSGIApplication", now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._app = app
        self._now = now

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """WSGI."""
        try:
            _check(environ, self._now())
        except _RefusedError as error:
            return _refusal(environ, start_response, error)
        return self._app(environ, start_response)


def _check(environ: "WSGIEnvironment", now: datetime) -> None:
    path, _, text = str(environ.get("REQUEST_URI") or "").partition("?")
    query = dict(_pairs(text))
    if {"AWSAccessKeyId", "Signature"} <= query.keys():
        message = f"The authorization mechanism you have provided is not supported. Please use {_ALGORITHM}."
        raise _RefusedError("400 Bad Request", "InvalidRequest", message)
    if not {"X-Amz-Algorithm", "X-Amz-Signature"} & query.keys():
        return
    headers = dict(_headers(environ))
    _verify(environ["REQUEST_METHOD"], path, query, headers, now)
    _check_body(environ["wsgi.input"], query, headers)
    if _CHECKSUM in headers:
        # S3 keeps the checksum that came; moto does so only where the algorithm is named once more.
        environ["HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM"] = "SHA256"


def _verify(method: str, path: str, query: Query, headers: Headers, now: datetime) -> None:
    if "authorization" in headers:
        message = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
        raise _RefusedError("400 Bad Request", "InvalidArgument", message + "parameter or the Authorization header.")
    if not all(query.get(name) for name in _NEEDED):
        raise _malformed(f"Query-string authentication version 4 requires the {', '.join(_NEEDED)} parameters.")
    scope = _scope(query)
    _check_time(query, now)
    names = query["X-Amz-SignedHeaders"].split(";")
    canonical = "\n".join(
        (
            method,
            quote(unquote_to_bytes(path), safe="/-_.~") or "/",
            _canonical_query(query),
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in names),
            "",
            ";".join(names),
            _payload(query, headers),
        )
    )
    signature = _signature(scope, query["X-Amz-Date"], canonical)
    if not hmac.compare_digest(signature.encode(), query["X-Amz-Signature"].encode()):
        message = "The request signature we calculated does not match the signature you provided."
        raise _forbidden("SignatureDoesNotMatch", f"{message} Check your key and signing method.")
    unsigned = {name for name in headers if name == "host" or name.startswith("x-amz-")} - set(names)
    if unsigned:
        message = "There were headers present in the request which were not signed"
        raise _forbidden("AccessDenied", f"{message}: {', '.join(sorted(unsigned))}")


def _scope(query: Query) -> str:
    """The credential's scope, once it is that of the local stack's key."""
    if query["X-Amz-Algorithm"] != _ALGORITHM:
        raise _malformed(f'X-Amz-Algorithm only supports "{_ALGORITHM}"')
    access_key, _, scope = query["X-Amz-Credential"].partition("/")
    if scope != f"{query['X-Amz-Date'][:8]}/{REGION}/s3/aws4_request":
        message = f"it should be <access key>/<date>/{REGION}/s3/aws4_request, with the date of X-Amz-Date."
        raise _malformed(f"Error parsing the X-Amz-Credential parameter; {message}")
    if not hmac.compare_digest(access_key.encode(), ACCESS_KEY.encode()):
        message = "The AWS Access Key Id you provided does not exist in our records."
        raise _forbidden("InvalidAccessKeyId", message)
    return scope


def _check_time(query: Query, now: datetime) -> None:
    expires = query["X-Amz-Expires"]
    if not re.fullmatch(r"[0-9]{1,6}", expires) or int(expires) > _WEEK_S:
        raise _malformed(f"X-Amz-Expires must be a number of seconds, of less than a week ({_WEEK_S})")
    try:
        signed_at = datetime.strptime(query["X-Amz-Date"], _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise _malformed("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"") from None
    if now > signed_at + timedelta(seconds=int(expires)):
        raise _forbidden("AccessDenied", "Request has expired")
    if signed_at > now + _MAX_SKEW:
        raise _forbidden("AccessDenied", "Request is not yet valid")


def _canonical_query(query: Query) -> str:
    pairs = sorted((_encoded(name), _encoded(value)) for name, value in query.items() if name != "X-Amz-Signature")
    return "&".join(f"{name}={value}" for name, value in pairs)


def _payload(query: Query, headers: Headers) -> str:
    """The hash of the body that was signed: for presigned requests it is seldom known."""
    return headers.get("x-amz-content-sha256") or query.get("X-Amz-Content-Sha256") or _UNSIGNED


def _signature(scope: str, timestamp: str, canonical: str) -> str:
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    key = f"AWS4{SECRET_KEY}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, "\n".join((_ALGORITHM, timestamp, scope, digest)).encode(), "sha256").hex()


def _check_body(body: IO[bytes], query: Query, headers: Headers) -> None:
    """Hold the body against the hashes that the request has of it; it is read in chunks, and left at its begin."""
    checksum, payload = headers.get(_CHECKSUM), _payload(query, headers)
    if checksum is None and payload == _UNSIGNED:
        return
    if checksum is not None and not _is_sha256(checksum):
        raise _RefusedError("400 Bad Request", "InvalidRequest", f"Value for {_CHECKSUM} header is invalid.")
    start = body.tell()
    digest = hashlib.sha256()
    while chunk := body.read(_CHUNK):
        digest.update(chunk)
    body.seek(start)
    if checksum is not None and not hmac.compare_digest(checksum.encode(), b64encode(digest.digest())):
        message = "The SHA256 you specified did not match the calculated checksum."
        raise _RefusedError("400 Bad Request", "BadDigest", message)
    if payload not in {_UNSIGNED, digest.hexdigest()}:
        message = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise _RefusedError("400 Bad Request", "XAmzContentSHA256Mismatch", message)


def _is_sha256(checksum: str) -> bool:
    with suppress(NotBase64, ValueError):
        return len(b64decode(checksum, validate=True)) == hashlib.sha256().digest_size
    return False


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    """Names and values, decoded; one that came twice counts once, so its signature holds for no other meaning."""
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        yield _decoded(name), _decoded(value)


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode("latin-1")


def _encoded(text: str) -> str:
    return quote(text.encode("latin-1"), safe="-_.~")


def _headers(environ: "WSGIEnvironment") -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if name.startswith("HTTP_") or (name in {"CONTENT_TYPE", "CONTENT_LENGTH"} and value):
            yield name.removeprefix("HTTP_").replace("_", "-").lower(), str(value)


def _malformed(message: str) -> _RefusedError:
    return _RefusedError("400 Bad Request", "AuthorizationQueryParametersError", message)


def _forbidden(code: str, message: str) -> _RefusedError:
    return _RefusedError("403 Forbidden", code, message)


def _refusal(environ: "WSGIEnvironment", start_response: "StartResponse", error: _RefusedError) -> list[bytes]:
    code, message = escape(error.code), escape(str(error))
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else text.encode("latin-1", "xmlcharrefreplace")
    start_response(error.status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
