"""POST to a webhook's receiver: to a public address that was checked, within one deadline, and nowhere else.

name → addresses, each checked → connection to one of these → its peer checked → TLS for the name → one request

A name is resolved once, so it cannot stand for another address when the connection is made. There are no redirects and
no proxies, an answer is read up to 4 KB, and the deadline holds for all of it: a receiver that sends a byte now and
then gets no more time than one that is silent.
"""

import socket
import ssl
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_address
from time import monotonic
from typing import Any, Final

from shared.adapters.name_lookups import NameLookups, Resolve
from shared.domain.webhook_address import ForbiddenAddress, Target, problem_with, target_of
from shared.domain.webhook_ports import Posted
from shared.domain.webhooks import MAX_SAID

TOTAL_TIMEOUT_S: Final = 10.0
_CONNECT_TIMEOUT_S: Final = 4.0
_RESOLVE_TIMEOUT_S: Final = 4.0
_MAX_ANSWER_BYTES: Final = 4096
_MAX_ADDRESSES: Final = 8
_MAX_RETRY_AFTER_S: Final = 86_400


class _FailedAttempt(Exception):
    """Why there is no answer: a code, and a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class _Bounded:
    """What makes a socket's every wait end at one time, where its timeout alone would begin anew with each byte.

    `recv_into` is what answers are read with, `sendall` and, of TLS, `send` what requests are sent with.
    """

    end = 0.0

    def bound(self) -> None:
        left_s = self.end - monotonic()
        if left_s <= 0:
            raise TimeoutError("the time is over")
        self.settimeout(left_s)  # type: ignore[attr-defined]

    def recv_into(self, *args: Any, **options: Any) -> int:
        self.bound()
        return super().recv_into(*args, **options)  # type: ignore[misc, no-any-return]

    def sendall(self, *args: Any, **options: Any) -> None:
        self.bound()
        super().sendall(*args, **options)  # type: ignore[misc]

    def send(self, *args: Any, **options: Any) -> int:
        self.bound()
        return super().send(*args, **options)  # type: ignore[misc, no-any-return]


class _PlainSocket(_Bounded, socket.socket):
    pass


class _TlsSocket(_Bounded, ssl.SSLSocket):
    pass


class WebhookClient:
    """Implements `shared.domain.webhook_ports.WebhookPost`; threads may share one.

    `resolve` stands in for the system's resolver, `cafile` for its certificate authorities. `allow_loopback` is for the
    local runtime alone: receivers on 127.0.0.1 and ::1, written so, are allowed then.
    """

    def __init__(
        self,
        *,
        allow_loopback: bool = False,
        timeout_s: float = TOTAL_TIMEOUT_S,
        resolve: Resolve | None = None,
        cafile: str | None = None,
    ) -> None:
        self._allow_loopback = allow_loopback
        self._timeout_s = timeout_s
        self._lookups = NameLookups(resolve or system_addresses)
        self._tls = _tls_context(cafile)

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes, *, tenant: str = "") -> Posted:
        """One POST in `timeout_s` seconds; what goes wrong is in the answer."""
        start = monotonic()
        end = start + self._timeout_s
        try:
            target = target_of(url, allow_loopback=self._allow_loopback)
            with self._connected(target, tenant, end) as connection:
                status, said, retry_after_s = _exchange(connection, target, headers, body)
        except ForbiddenAddress as error:
            return Posted(_ms(start), error="forbidden_address", said=f"The address {error}.")
        except _FailedAttempt as error:
            return Posted(_ms(start), error=error.code, said=str(error))
        except TimeoutError:
            return Posted(_ms(start), error="timeout", said=f"No answer within {self._timeout_s:g} s.")
        except (HTTPException, ValueError):  # ValueError: a length or a chunk size that is no number
            return Posted(_ms(start), error="bad_answer", said="The answer is not one of HTTP/1.1.")
        except OSError:
            return Posted(_ms(start), error="connection_lost", said="The connection ended before the answer.")
        return Posted(_ms(start), status=status, said=said, retry_after_s=retry_after_s)

    def _connected(self, target: Target, tenant: str, end: float) -> socket.socket:
        """A connection, with TLS if the address says so, to one of the addresses that the host stands for."""
        addresses = self._addresses(target, tenant, end)
        if not addresses:
            raise _FailedAttempt("dns_failed", "The name has no address.")
        for text in addresses:
            self._check(text, target)
        connection = _dial(addresses[:_MAX_ADDRESSES], target.port, end)
        try:
            self._check(str(connection.getpeername()[0]), target)
            return self._secured(connection, target, end) if target.tls else connection
        except BaseException:
            connection.close()
            raise

    def _addresses(self, target: Target, tenant: str, end: float) -> Sequence[str]:
        if target.literal is not None:
            return [str(target.literal)]
        seconds = min(_RESOLVE_TIMEOUT_S, max(0.0, end - monotonic()))
        try:
            return self._lookups(tenant, target.host, target.port, seconds)
        except TimeoutError:
            raise _FailedAttempt("dns_timeout", "The name was not resolved in time.") from None
        except (OSError, UnicodeError):
            raise _FailedAttempt("dns_failed", "The name cannot be resolved.") from None

    def _check(self, text: str, target: Target) -> None:
        """ForbiddenAddress for what is no public address; a name never stands for a loopback one."""
        own = self._allow_loopback and target.literal is not None
        if problem := problem_with(ip_address(text), allow_loopback=own):
            raise ForbiddenAddress(problem)

    def _secured(self, connection: socket.socket, target: Target, end: float) -> socket.socket:
        try:
            wrapped = self._tls.wrap_socket(connection, server_hostname=target.host, do_handshake_on_connect=False)
            assert isinstance(wrapped, _TlsSocket)  # noqa: S101 - the context's own class
            wrapped.end = end
            try:
                wrapped.bound()
                wrapped.do_handshake()
            except BaseException:
                wrapped.close()
                raise
        except ssl.SSLCertVerificationError as error:
            raise _FailedAttempt("tls_failed", f"The certificate is not trusted: {error.verify_message}.") from None
        except (ssl.SSLError, ConnectionError):
            raise _FailedAttempt("tls_failed", "TLS could not be set up.") from None
        return wrapped


def system_addresses(host: str, port: int) -> Sequence[str]:
    """What the system's resolver has for a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _tls_context(cafile: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cafile)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = _TlsSocket
    return context


def _dial(addresses: Sequence[str], port: int, end: float) -> _PlainSocket:
    """A connection to the first address that takes one; one that is silent leaves time for the others."""
    end_of_dialling = min(end, monotonic() + _CONNECT_TIMEOUT_S)
    for number, text in enumerate(addresses):
        family = socket.AF_INET6 if ":" in text else socket.AF_INET
        left_s = end_of_dialling - monotonic()
        if left_s <= 0:
            break
        connection = _PlainSocket(family, socket.SOCK_STREAM)
        connection.settimeout(left_s / (len(addresses) - number))
        try:
            connection.connect((text, port))
        except OSError:
            connection.close()
            continue
        connection.end = end
        return connection
    raise _FailedAttempt("connect_failed", "Nothing takes connections there.")


def _exchange(
    connection: socket.socket, target: Target, headers: Mapping[str, str], body: bytes
) -> tuple[int, str, float | None]:
    """Send the request and read the beginning of its answer: status, text of what is none of 2xx, Retry-After."""
    http = HTTPConnection(target.host, target.port)
    http.auto_open = 0  # never a connection of its own
    http.sock = connection
    sent = {"Host": target.authority, **headers, "Content-Length": str(len(body)), "Connection": "close"}
    http.putrequest("POST", target.path, skip_host=True, skip_accept_encoding=True)
    for name, value in sent.items():
        http.putheader(name, value)
    http.endheaders(body)
    with http.getresponse() as answer:
        if 200 <= answer.status < 300:  # what it says does not matter, and is not waited for
            return answer.status, "", None
        return answer.status, _said(answer), _retry_after_s(answer.headers.get("Retry-After"))


def _said(answer: HTTPResponse) -> str:
    """The beginning of an answer's text in one line; what cannot be read of it does not change that it answered."""
    try:
        content = answer.read(_MAX_ANSWER_BYTES)
    except (OSError, HTTPException, ValueError):
        return ""
    text = " ".join(content.decode("utf-8", "replace").split())
    return "".join(char for char in text if char.isprintable())[:MAX_SAID]


def _retry_after_s(text: str | None) -> float | None:
    """Seconds that a receiver asks to wait for; a date is not looked at. Source: RFC 9110, 10.2.3."""
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= 9):
        return None
    return float(min(int(text), _MAX_RETRY_AFTER_S))


def _ms(start: float) -> int:
    return round((monotonic() - start) * 1e3)
