"""Calls of the commands to the API and to the Lambda service, with every failure as one sentence."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from infra.cli.local import running_stack
from infra.cli.output import UNREACHABLE, USAGE, Failure
from infra.cli.problems import said

CONNECT_TIMEOUT_S: Final = 3.0
# An HTTP API answers within 30 s, if only with a 503.
API_TIMEOUT_S: Final = 35.0
# Lambda takes and gives 6 MB; the rest is for headers of the gateway's own format.
MAX_BODY_BYTES: Final = 6 * 1024 * 1024
_MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names are in lower case, `elapsed_ms` is the whole call."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: float

    def document(self) -> Any:
        """The body's JSON; ValueError if it is none."""
        return json.loads(self.body)


def call(
    method: str,
    url: str,
    *,
    what: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = API_TIMEOUT_S,
) -> Answer:
    """One HTTP call, not repeated; Failure with exit code 3 if `what` cannot be reached or does not answer in time."""
    import urllib3

    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s))
    start = time.perf_counter()
    try:
        response = pool.request(
            method, url, headers=dict(headers or {}), body=body, redirect=False, preload_content=False
        )
        content = response.read(_MAX_ANSWER_BYTES + 1)
    except urllib3.exceptions.LocationValueError:
        raise Failure(f"{url!r} is not an address.", exit_code=USAGE) from None
    except urllib3.exceptions.ReadTimeoutError:
        raise Failure(f"{what} at {url} did not answer within {timeout_s:.0f} s.", exit_code=UNREACHABLE) from None
    except urllib3.exceptions.HTTPError as error:
        raise Failure(
            f"{what} at {url} cannot be reached: {_reason(error)}. "
            "Is it up? `sluice status` tells for the local stack, and `sluice up` starts it.",
            exit_code=UNREACHABLE,
        ) from None
    finally:
        pool.clear()
    if len(content) > _MAX_ANSWER_BYTES:
        raise Failure(f"{what} answered with more than {_MAX_ANSWER_BYTES} bytes.")
    elapsed_ms = (time.perf_counter() - start) * 1e3
    return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, content, elapsed_ms)


@dataclass(frozen=True, slots=True)
class Api:
    """The HTTP API, with the key that opens it."""

    url: str
    key: str

    @classmethod
    def find(cls, url: str | None, key: str | None) -> "Api":
        """The API that the options name, else the local stack's.

        The local stack's key goes to the local stack only: another address needs its own key.
        """
        if url is not None:
            if not url.startswith(("http://", "https://")):
                raise Failure(f"--url takes an address with http:// or https://, not {url!r}.", exit_code=USAGE)
            if not key:
                raise Failure("--url needs the key of that API: --key, or SLUICE_API_KEY.", exit_code=USAGE)
            return cls(url.rstrip("/"), key)
        local = running_stack()
        return cls(local.api_url, key or local.api_key)

    def get(self, *path: str, query: Mapping[str, str] | None = None) -> Answer:
        """GET the path of these segments; Failure unless the answer is a 2xx with JSON, RefusedError for a problem."""
        return self.request("GET", path, query=query)

    def post(self, *path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """POST JSON, or what `headers` say, to the path of these segments; raises as `get`."""
        return self.request("POST", path, body=body, headers=headers)

    def delete(self, *path: str) -> Answer:
        """DELETE the path of these segments; raises as `get`."""
        return self.request("DELETE", path)

    def request(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any request for a document; raises as `get`."""
        sent = {**self.headers, "Accept": "application/json"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        url = "/".join((self.url, *(quote(segment, safe="") for segment in path)))
        if query:
            url += f"?{urlencode(query)}"
        answer = call(method, url, what="The API", headers={**sent, **(headers or {})}, body=body)
        try:
            document = answer.document()
        except ValueError:
            raise Failure(f"{url} answered {answer.status} without JSON. Is this the API's address?") from None
        if not 200 <= answer.status < 300:
            raise _refusal(answer.status, document)
        return answer

    @property
    def headers(self) -> Mapping[str, str]:
        """What opens the API."""
        return {"Authorization": f"Bearer {self.key}"}


class RefusedError(Failure):
    """The API said no, with this `status`."""

    def __init__(self, status: int, message: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(message, details=details)
        self.status = status


def _refusal(status: int, document: Any) -> RefusedError:
    """The failure for an answer of a function (problem+json) or of the gateway (`{"message": …}`)."""
    if not isinstance(document, dict) or "title" not in document:
        reason = document.get("message") if isinstance(document, dict) else None
        hint = " Check the key: --key, SLUICE_API_KEY." if status in (401, 403) else ""
        return RefusedError(status, f"The API answered {status}: {reason or 'no reason given'}.{hint}")
    places = [(each["pointer"], each.get("detail", "")) for each in document.get("errors") or [] if each.get("pointer")]
    message, details = said(str(document["title"]), str(document.get("detail", "")), places)
    request_id = document.get("request_id")
    by = f"{document.get('code', 'problem')} ({status})" + (f", request {request_id}" if request_id else "")
    cause = ("The cause is in the log: `sluice logs` shows it for the local stack.",) if status >= 500 else ()
    return RefusedError(status, message, (*details, by, *cause))


def _reason(error: Exception) -> str:
    text = str(error).rpartition(": ")[2] or type(error).__name__
    return text.rstrip(".")
