"""A token issuer on loopback: keys made here, tokens signed with them, and a real HTTP server for its documents."""

import json
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "sluice"
JWKS, DISCOVERY = "/jwks", "/.well-known/openid-configuration"


@dataclass(frozen=True)
class Key:
    """A key pair of the issuer."""

    kid: str
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    algorithm: str

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public key as the issuer publishes it; a member that is None is left out."""
        make = jwt.algorithms.RSAAlgorithm if self.algorithm.startswith("RS") else jwt.algorithms.ECAlgorithm
        public: Any = self.private.public_key()
        members = {**make.to_jwk(public, as_dict=True), "kid": self.kid, "alg": self.algorithm, "use": "sig"}
        members.pop("key_ops", None)
        return {name: value for name, value in {**members, **changes}.items() if value is not None}

    def pem(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        headers = {"kid": self.kid, **header}
        return jwt.encode(dict(claims), self.private, algorithm=self.algorithm, headers=headers)


def rsa_key(kid: str = "rsa", bits: int = 2048) -> Key:
    return Key(kid, rsa.generate_private_key(65537, bits), "RS256")


def ec_key(kid: str = "ec", curve: ec.EllipticCurve | None = None, algorithm: str = "ES256") -> Key:
    return Key(kid, ec.generate_private_key(curve or ec.SECP256R1()), algorithm)


def claims(issuer: str, now: float, **changes: Any) -> dict[str, Any]:
    """The claims of a token that holds at `now`; a claim that is None is left out."""
    made: dict[str, Any] = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": "user-1",
        "iat": int(now),
        "exp": int(now) + 300,
        "tenant": "acme",
        "scope": "predict jobs",
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def b64(content: Any) -> str:
    """A part of a token that is made by hand; what is not bytes is written as JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class Issuer:
    """The server: `documents` maps paths to (status, body, headers), `hits` counts requests by path.

    A body that is None is never sent: the connection stays silent until the server ends.
    """

    documents: dict[str, tuple[int, bytes | None, Mapping[str, str]]] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)
    url: str = ""

    def publish(self, *jwks: Mapping[str, Any]) -> None:
        """Answer with a set of these keys, and a discovery document that leads there."""
        self.answer(JWKS, {"keys": list(jwks)})
        self.answer(DISCOVERY, {"issuer": self.url, "jwks_uri": self.url + JWKS})

    def answer(self, path: str, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self.documents[path] = (status, raw, headers or {})

    def __enter__(self) -> Self:
        issuer, self._ended = self, Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if issuer._ended.is_set():  # a connection that was kept
                    self.close_connection = True
                    return
                issuer.hits[self.path] += 1
                status, body, headers = issuer.documents.get(self.path, (404, b"", {}))
                if body is None:
                    issuer._ended.wait(30)
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if headers.get("X-Drip"):
                    for byte in body:
                        if issuer._ended.wait(0.05):
                            return
                        try:
                            self.wfile.write(bytes([byte]))
                        except OSError:
                            self.close_connection = True
                            return
                else:
                    self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server: from now on, connections are refused."""
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
