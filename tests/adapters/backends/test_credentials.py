"""Bearer tokens from Secrets Manager, and certificates."""

import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from botocore.session import Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.adapters.aws import client
from shared.adapters.backends.bearer import BearerToken
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.domain.endpoint.config import BackendChoice
from shared.domain.errors import BackendError
from shared.domain.tensors import Tensors
from tests.adapters.backends.contract import CONTEXT, published
from tests.conftest import LocalAws

X: Tensors = {"x": np.array([[1, 2]], dtype=np.float32)}
OUTPUT = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
ANSWER = json.dumps({"model_name": "same-fp32", "model_version": "1", "outputs": [OUTPUT]}).encode()


class Guarded(ThreadingHTTPServer):
    """Lets in who has `token`; remembers what was shown to it."""

    def __init__(self) -> None:
        self.token = ""
        self.shown: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.shown.append(self.headers["Authorization"] or "")
                fine = outer.shown[-1] == (f"Bearer {outer.token}" if outer.token else "")
                body = ANSWER if fine else b"{}"
                self.send_response(200 if fine else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True


@pytest.fixture
def server() -> Iterator[Guarded]:
    guarded = Guarded()
    thread = threading.Thread(target=lambda: guarded.serve_forever(poll_interval=0.02))
    thread.start()
    yield guarded
    guarded.shutdown()
    thread.join()
    guarded.server_close()


def test_a_token_is_read_once_and_again_when_it_is_refused(
    server: Guarded, local_aws: LocalAws, aws_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = client("secretsmanager", session=aws_session, endpoint_url=local_aws.url)
    arn = secrets.create_secret(Name=f"token-{uuid4().hex}", SecretString="one\n")["ARN"]
    urls = {"secretsmanager": local_aws.url}
    resources = Resources(session=aws_session, endpoint_urls=urls, allow_loopback=True)
    options = {"url": f"http://127.0.0.1:{server.server_port}", "bearer_secret": arn}
    backend: Any = Registry(resources).build(BackendChoice("open-inference-http", options))
    server.token = "one"
    for _ in range(2):
        np.testing.assert_array_equal(backend.infer(published("same-fp32"), X, CONTEXT)["y"], X["x"])
    secrets.put_secret_value(SecretId=arn, SecretString="two")
    server.token = "two"
    with pytest.raises(BackendError, match="does not let us in"):  # it was read a moment ago
        backend.infer(published("same-fp32"), X, CONTEXT)
    monkeypatch.setattr("shared.adapters.backends.bearer._READ_AGAIN_S", 0.0)
    for _ in range(2):
        np.testing.assert_array_equal(backend.infer(published("same-fp32"), X, CONTEXT)["y"], X["x"])
    backend.close()
    assert server.shown == [*["Bearer one"] * 4, *["Bearer two"] * 2]


@pytest.mark.parametrize("secret", [b" ", b"two words", b"a\r\nX-Evil: 1", "ü".encode(), b"\xff"])
def test_a_secret_that_is_no_token_is_not_sent(secret: bytes) -> None:
    with pytest.raises(BackendError, match="holds no bearer token"):
        BearerToken(lambda: lambda: secret)()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, secret


def test_certificates_are_checked(server: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    choice = BackendChoice("open-inference-http", {"url": f"https://127.0.0.1:{server.server_port}"})
    stranger: Any = Registry(Resources(allow_loopback=True)).build(choice)
    with pytest.raises(BackendError, match="certificate does not hold") as caught:
        stranger.infer(published("same-fp32"), X, CONTEXT)
    assert not caught.value.retryable
    assert server.shown == []
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    trusting: Any = Registry(Resources(allow_loopback=True)).build(choice)
    for _ in range(2):
        np.testing.assert_array_equal(trusting.infer(published("same-fp32"), X, CONTEXT)["y"], X["x"])
    trusting.close()
