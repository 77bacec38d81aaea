"""The keys that a token issuer signs with: its JSON Web Key Set (RFC 7517), fetched over HTTPS and kept."""

import json
import logging
import ssl
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from botocore.httpsession import get_cert_path
from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError

from shared.adapters.jwk import SigningKey, signing_key
from shared.domain.errors import BackendUnavailable
from shared.domain.issuer_address import is_trusted_url

_log = logging.getLogger(__name__)
_WHAT = "The token issuer"
_DISCOVERY = "/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0, 4
_MAX_BYTES = 256 * 1024
_CHUNK = 16 * 1024
_MAX_KEYS = 100
_MAX_KID = 256
_FRESH_S = 3600.0
_USABLE_S = 24 * 3600.0
_PAUSE_S = 30.0
_PAUSE_WITHOUT_KEYS_S = 5.0


class _Unusable(Exception):
    """A document that cannot be had or read; the message is for the log."""


class Jwks:
    """The issuer's keys by `kid`, for several threads; `now` gives seconds.

    Keys are fetched by the first call, again after an hour, and for a `kid` that is not among them at most once in 30
    seconds, however many calls ask for one. While the issuer fails, the last keys stay good for a day, and it is asked
    no more than once in 30 seconds (in 5 while there are no keys). `jwks_url` empty takes the address from the
    issuer's discovery document; `timeout_s` is for both documents together.
    """

    def __init__(self, issuer: str, jwks_url: str, *, timeout_s: float, now: Callable[[], float]) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._timeout_s = timeout_s
        self._now = now
        self._lock = Lock()
        self._http: PoolManager | None = None
        self._keys: dict[str, SigningKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._failed = False

    def find(self, kid: str) -> SigningKey | None:
        """The key of this id, None if the issuer has none; BackendUnavailable if that cannot be told now."""
        with self._lock:
            if self._age() >= _FRESH_S or kid not in self._keys:
                self._refresh()
            if self._age() >= _USABLE_S:
                raise BackendUnavailable(f"{_WHAT} gives no keys now.")
            key = self._keys.get(kid)
            # The key may be one that the issuer has made since: not known is not the same as refused.
            if key is None and self._failed:
                raise BackendUnavailable(f"{_WHAT} gives no keys now.")
            return key

    def _age(self) -> float:
        # The wall clock may be set back: what then lies in the future is no younger than what was just fetched.
        return float("inf") if self._fetched_at is None else max(0.0, self._now() - self._fetched_at)

    def _refresh(self) -> None:
        now = self._now()
        pause = _PAUSE_S if self._age() < _USABLE_S else _PAUSE_WITHOUT_KEYS_S
        if self._tried_at is not None and 0 <= now - self._tried_at < pause:
            return
        self._tried_at = now
        try:
            self._keys = self._fetch()
        except _Unusable as error:
            self._failed = True
            fields = {"reason": str(error), "keys": len(self._keys) if self._age() < _USABLE_S else 0}
            _log.warning("signing keys not refreshed", extra={"fields": fields})
        else:
            self._failed, self._fetched_at = False, now

    def _fetch(self) -> dict[str, SigningKey]:
        url, deadline = self._jwks_url, monotonic() + self._timeout_s
        if not url:
            discovered = self._get(self._issuer.rstrip("/") + _DISCOVERY, deadline)
            if discovered.get("issuer") != self._issuer:
                raise _Unusable("the discovery document is another issuer's")
            url = str(discovered.get("jwks_uri"))
        keys = self._get(url, deadline).get("keys")
        if not isinstance(keys, list) or len(keys) > _MAX_KEYS:
            raise _Unusable(f"not a set of at most {_MAX_KEYS} keys")
        found: dict[str, SigningKey] = {}
        for jwk in keys:
            kid = jwk.get("kid") if isinstance(jwk, dict) else None
            if isinstance(kid, str) and 0 < len(kid) <= _MAX_KID and kid not in found:
                key = signing_key(jwk)
                if key is not None:
                    found[kid] = key
        if not found:
            raise _Unusable("no key in the set can verify RS256 or ES256")
        return found

    def _get(self, url: str, deadline: float) -> dict[str, Any]:
        """A JSON object over HTTP, without redirects: another address is for the configuration to name."""
        if not is_trusted_url(url):
            raise _Unusable("an address that is not HTTPS")
        try:
            answer = self._pool().request(
                "GET",
                url,
                headers={"Accept": "application/json, application/jwk-set+json", "Accept-Encoding": "identity"},
                timeout=Timeout(total=max(deadline - monotonic(), 0.001)),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                content = _read(answer, deadline) if answer.status == 200 else b""
            finally:
                answer.close()
        except (HTTPError, OSError, ValueError) as error:
            raise _Unusable(f"{type(error).__name__} at {urlsplit(url).hostname}") from error
        if answer.status != 200:
            raise _Unusable(f"status {answer.status} from {urlsplit(url).hostname}")
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _Unusable(f"{urlsplit(url).hostname} does not answer with JSON") from error
        if not isinstance(document, dict):
            raise _Unusable(f"{urlsplit(url).hostname} does not answer with a JSON object")
        return document

    def _pool(self) -> PoolManager:
        if self._http is None:
            # The authorities of the system (SSL_CERT_FILE may name others) and, since Lambda's may be few, botocore's.
            context = ssl.create_default_context()
            if bundle := get_cert_path(verify=True):
                context.load_verify_locations(bundle)
            self._http = PoolManager(num_pools=2, maxsize=1, ssl_context=context)
        return self._http


def _read(answer: BaseHTTPResponse, deadline: float) -> bytes:
    """The body; `read1` returns with what is there, so a server that drips cannot hold the call past the deadline."""
    content = bytearray()
    while chunk := answer.read1(_CHUNK):
        content += chunk
        if len(content) > _MAX_BYTES:
            raise ValueError("too many bytes")
        if monotonic() > deadline:
            raise TimeoutError("too slow")
    return bytes(content)
