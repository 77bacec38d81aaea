"""The client of webhooks: real receivers on loopback, and names that stand for what they should not."""

import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.adapters import webhook_client
from shared.adapters.name_lookups import NameLookups
from shared.adapters.webhook_client import WebhookClient
from tests.receivers import Receiver, receiving

HEADERS = {"Content-Type": "application/json", "webhook-id": "msg_1"}
BODY = b'{"type":"webhook.test"}'
PUBLIC = "93.184.215.14"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def local() -> WebhookClient:
    return WebhookClient(allow_loopback=True, timeout_s=5)


def test_a_receiver_gets_the_request_as_it_was_signed(receiver: Receiver, local: WebhookClient) -> None:
    posted = local(f"{receiver.url}?token=a%20b", HEADERS, BODY)
    assert (posted.status, posted.error, posted.said) == (204, None, "")
    (got,) = receiver.got
    assert (got.path, got.body) == ("/hook?token=a%20b", BODY)
    assert got.headers == {
        "host": receiver.url.split("/")[2],
        "content-type": "application/json",
        "webhook-id": "msg_1",
        "content-length": str(len(BODY)),
        "connection": "close",
    }


def test_what_a_receiver_says_is_read_up_to_a_bound(receiver: Receiver, local: WebhookClient) -> None:
    receiver.answers = [
        (503, {"Retry-After": "120"}, b"busy\r\n\x1b[31m now\x00"),
        (500, {"Retry-After": "Fri, 31 Dec 2027 23:59:59 GMT"}, b"x" * 10_000_000),
        (418, {"Content-Length": "nonsense"}, b"\xff\xfe"),
    ]
    first, second, third = (local(receiver.url, HEADERS, BODY) for _ in range(3))
    assert (first.status, first.said, first.retry_after_s) == (503, "busy [31m now", 120.0)
    assert (second.status, second.said, second.retry_after_s) == (500, "x" * 200, None)
    assert third.status == 418


def test_a_redirect_is_not_followed(receiver: Receiver, local: WebhookClient) -> None:
    with receiving() as elsewhere:
        receiver.answers = [(307, {"Location": elsewhere.url}, b"")]
        assert local(receiver.url, HEADERS, BODY).status == 307
        assert elsewhere.got == []


def test_no_proxy_of_the_environment_is_used(
    receiver: Receiver, local: WebhookClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert local(receiver.url, HEADERS, BODY).status == 204
        assert proxy.got == []


@contextmanager
def raw(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that takes one connection; `serve` gets it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    serve(connection)
                except OSError:
                    return  # the client is gone

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        thread.join()


def drips(first: bytes, again: bytes) -> Callable[[socket.socket], None]:
    """Sends some bytes every 20 ms until the client has gone."""

    def serve(connection: socket.socket) -> None:
        connection.settimeout(20)
        connection.recv(65_536)
        connection.sendall(first)
        connection.settimeout(0.02)
        while True:
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                connection.sendall(again)

    return serve


@pytest.mark.parametrize(
    "serve",
    [
        drips(b"", b"H"),
        drips(b"HTTP/1.1 ", b"2"),
        drips(b"HTTP/1.1 200 OK\r\n", b"X-A: 1\r\n"[:1]),
        drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        drips(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    ],
    ids=["status", "reason", "headers", "continue", "header"],
)
def test_a_slow_drip_gets_no_more_time_than_silence(serve: Callable[[socket.socket], None]) -> None:
    client = WebhookClient(allow_loopback=True, timeout_s=0.3)
    with raw(serve) as url:
        posted = client(url, HEADERS, BODY)
    # http.client gives up by itself on too many lines; whichever comes first, it comes.
    assert posted.status is None
    assert posted.error in {"timeout", "bad_answer"}


def test_a_dripping_body_does_not_hold_up_what_its_status_said() -> None:
    client = WebhookClient(allow_loopback=True, timeout_s=1)
    with raw(drips(b"HTTP/1.1 500 No\r\nContent-Length: 4000\r\n\r\noops", b"!")) as url:
        posted = client(url, HEADERS, BODY)
    assert posted.status == 500


def test_a_receiver_that_never_answers(receiver: Receiver) -> None:
    receiver.hold = True
    assert WebhookClient(allow_loopback=True, timeout_s=0.2)(receiver.url, HEADERS, BODY).error == "timeout"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "bad_answer"),
        (b"HTTP/1.1 two hundred\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 200 + b"\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000, "bad_answer"),
        (b"", "bad_answer"),
    ],
    ids=["ssh", "status", "headers", "header", "nothing"],
)
def test_what_is_no_http(answer: bytes, error: str, local: WebhookClient) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    with raw(serve) as url:
        assert local(url, HEADERS, BODY).error == error


def test_nothing_listens(local: WebhookClient, free_port: int) -> None:
    posted = local(f"http://127.0.0.1:{free_port}/", HEADERS, BODY)
    assert (posted.status, posted.error) == (None, "connect_failed")


class Resolver:
    """Gives its answers in turn, the last one from then on."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers[min(len(self.asked), len(self._answers)) - 1]


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """What is dialled; nothing is."""
    asked: list[Sequence[str]] = []

    def dial(addresses: Sequence[str], port: int, end: float) -> socket.socket:
        asked.append(addresses)
        raise ConnectionRefusedError

    monkeypatch.setattr(webhook_client, "_dial", dial)
    return asked


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "::1", "fd00:ec2::254", "fe80::1%2", "64:ff9b::a00:1",
     "::ffff:10.0.0.1", "2002:a00:1::", "224.0.0.1"],
)  # fmt: skip
@pytest.mark.parametrize("loopback", [False, True])
def test_a_name_that_stands_for_a_forbidden_address(address: str, loopback: bool, dialled: list[Sequence[str]]) -> None:
    """Among others, too, and where loopback is allowed: names never stand for it."""
    for addresses in ([address], [PUBLIC, address], [address, PUBLIC]):
        client = WebhookClient(resolve=Resolver(addresses), allow_loopback=loopback)
        posted = client("https://hooks.example.com/", HEADERS, BODY)
        assert (posted.status, posted.error) == (None, "forbidden_address")
        assert address.partition("%")[0] not in posted.said
    assert dialled == []


def test_a_name_is_resolved_once_and_the_checked_address_is_dialled(dialled: list[Sequence[str]]) -> None:
    resolver = Resolver([PUBLIC, "2606:2800::1"], ["127.0.0.1"])
    WebhookClient(resolve=resolver)("https://hooks.example.com/", HEADERS, BODY)
    assert resolver.asked == ["hooks.example.com"]
    assert dialled == [[PUBLIC, "2606:2800::1"]]


def test_the_peer_of_the_connection_is_checked_too(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies between the address that was checked and the connection that came of it."""
    port = int(receiver.url.split(":")[2].split("/")[0])
    dial = webhook_client._dial
    monkeypatch.setattr(webhook_client, "_dial", lambda _addresses, _port, end: dial(["127.0.0.1"], port, end))
    posted = WebhookClient(resolve=Resolver([PUBLIC]))("https://hooks.example.com/", HEADERS, BODY)
    assert posted.error == "forbidden_address"
    assert receiver.got == []


def test_forbidden_literals_are_not_dialled(dialled: list[Sequence[str]]) -> None:
    client = WebhookClient()
    for url in ("https://127.0.0.1/", "http://example.com/", "https://[::1]/", "https://169.254.169.254/"):
        assert client(url, HEADERS, BODY).error == "forbidden_address"
    assert dialled == []


def test_names_that_are_not_resolved(dialled: list[Sequence[str]]) -> None:
    def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    assert WebhookClient(resolve=unknown)("https://nowhere.example.com/", HEADERS, BODY).error == "dns_failed"
    assert WebhookClient(resolve=Resolver([]))("https://nowhere.example.com/", HEADERS, BODY).error == "dns_failed"
    assert dialled == []


def test_a_resolver_that_hangs_does_not_hold_up_the_sender() -> None:
    release = threading.Event()

    def hangs(host: str, port: int) -> Sequence[str]:
        release.wait(30)
        return [PUBLIC]

    client = WebhookClient(resolve=hangs, timeout_s=0.1)
    try:
        assert client("https://slow.example.com/", HEADERS, BODY).error == "dns_timeout"
    finally:
        release.set()


class Hanging:
    """Hangs for the names of one domain until it is let go; how many it was asked for, and `asked` tells of each."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.asked: queue.Queue[str] = queue.Queue()

    def __call__(self, host: str, port: int) -> Sequence[str]:
        if host.endswith("slow.example"):
            self.asked.put(host)
            self.release.wait(30)
        return [PUBLIC]


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    made = Hanging()
    yield made
    made.release.set()


def test_a_tenant_whose_names_hang_holds_up_no_other(hanging: Hanging) -> None:
    lookups = NameLookups(hanging, threads=4, of_a_tenant=3)
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(lookups, "acme", f"{number}.slow.example", 443, 30) for number in range(3)]
        for _ in found:
            hanging.asked.get(timeout=30)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                lookups("acme", "hooks.example", 443, 0.01)
            assert lookups("other", "hooks.example", 443, 30) == [PUBLIC]
        assert hanging.asked.empty()
        hanging.release.set()
        assert [each.result(30) for each in found] == [[PUBLIC]] * 3
    assert lookups("acme", "hooks.example", 443, 30) == [PUBLIC]


def test_a_lookup_that_nobody_waits_for_any_more_keeps_its_place_while_it_hangs(hanging: Hanging) -> None:
    lookups = NameLookups(hanging, threads=2, of_a_tenant=1)
    assert lookups("acme", "hooks.example", 443, 30) == [PUBLIC]  # there is a thread now
    with pytest.raises(TimeoutError):
        lookups("acme", "slow.example", 443, 0.5)
    with pytest.raises(TimeoutError):
        lookups("acme", "hooks.example", 443, 0.01)
    hanging.release.set()
    assert lookups("acme", "hooks.example", 443, 30) == [PUBLIC]


def test_more_names_than_a_tenant_may_look_up_at_once_wait_for_each_other(hanging: Hanging) -> None:
    lookups = NameLookups(hanging, of_a_tenant=2)
    with ThreadPoolExecutor(5) as pool:
        found = [pool.submit(lookups, "acme", f"{number}.slow.example", 443, 30) for number in range(5)]
        for _ in range(2):
            hanging.asked.get(timeout=30)
        assert hanging.asked.empty()
        hanging.release.set()
        assert [each.result(30) for each in found] == [[PUBLIC]] * 5
    assert hanging.asked.qsize() == 3


def test_a_lookup_that_fails_frees_its_place() -> None:
    def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    lookups = NameLookups(unknown, threads=1, of_a_tenant=1)
    for _ in range(3):
        with pytest.raises(socket.gaierror):
            lookups("acme", "nowhere.example", 443, 30)
    assert not lookups._running


def test_names_are_looked_up_for_the_tenant_whose_receiver_it_is(
    hanging: Hanging, dialled: list[Sequence[str]]
) -> None:
    client, hasty = WebhookClient(resolve=hanging), WebhookClient(timeout_s=0.05)
    hasty._lookups = client._lookups = NameLookups(hanging, of_a_tenant=1)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client, "https://slow.example/", HEADERS, BODY, tenant="acme")
        hanging.asked.get(timeout=30)
        assert hasty("https://hooks.example/", HEADERS, BODY, tenant="acme").error == "dns_timeout"
        assert client("https://hooks.example/", HEADERS, BODY, tenant="other").error == "connection_lost"
        assert dialled == [[PUBLIC]]
        hanging.release.set()
        assert slow.result(30).status is None


Tls = Callable[[str], Callable[[socket.socket], socket.socket]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Tls]:
    """A file with a certificate authority, and what makes servers with certificates of it for an address."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    root = _certificate(name, name, key.public_key(), key, ca=True)
    (folder / "ca.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))

    def server(address: str) -> Callable[[socket.socket], socket.socket]:
        own = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, x509.Name([]), own.public_key(), key, address=address)
        file = folder / f"{address}.pem"
        secret = own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return lambda listening: context.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)

    return str(folder / "ca.pem"), server


def _certificate(
    issuer: x509.Name,
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = False,
    address: str = "",
) -> x509.Certificate:
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if address:
        san = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        made = made.add_extension(san, critical=True)
    return made.sign(signer, hashes.SHA256())


def test_a_certificate_is_verified_and_so_is_whose_it_is(authority: tuple[str, Tls]) -> None:
    cafile, server = authority
    with receiving(server("127.0.0.1")) as good, receiving(server("127.0.0.2")) as other:
        trusting = WebhookClient(allow_loopback=True, cafile=cafile, timeout_s=5)
        posted = trusting(good.url, HEADERS, BODY)
        assert (posted.status, posted.said) == (204, "")
        assert good.got[0].body == BODY
        wrong = trusting(other.url, HEADERS, BODY)
        assert (wrong.status, wrong.error) == (None, "tls_failed")
        assert "not trusted" in wrong.said
        unknown = WebhookClient(allow_loopback=True, timeout_s=5)(good.url, HEADERS, BODY)
        assert (unknown.status, unknown.error) == (None, "tls_failed")
        assert other.got == []


def test_a_tls_server_that_hangs_or_drips() -> None:
    client = WebhookClient(allow_loopback=True, timeout_s=0.3)
    for serve in (drips(b"", b""), drips(b"\x16\x03\x03", b"\x00")):
        with raw(serve) as url:
            posted = client(url.replace("http:", "https:"), HEADERS, BODY)
        assert posted.error in {"timeout", "tls_failed"}
    with raw(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")) as url:
        assert client(url.replace("http:", "https:"), HEADERS, BODY).error == "tls_failed"
