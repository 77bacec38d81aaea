"""The contract over HTTP, in the binary form and as JSON; what is sent, and how connections are kept."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic
from typing import Any, Protocol

import numpy as np
import pytest

from shared.adapters.backends.http_connections import HttpConnections, Origin
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.domain.endpoint.config import BackendChoice
from shared.domain.errors import BackendError, BackendRejected, BackendTimeout, BackendUnavailable, PayloadTooLarge
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors, bytes_tensor
from tests.adapters.backends.conftest import Serving
from tests.adapters.backends.contract import (
    CONTEXT,
    SUMMANDS,
    BackendContract,
    FaultContract,
    answer_of,
    check,
    published,
)
from tests.adapters.backends.faults import Fault
from tests.adapters.backends.faulty import Faulty
from tests.adapters.sagemaker_server import Answer, Call, SageMakerServer

X: Tensors = {"x": np.array([[1, 2]], dtype=np.float32)}


class Made(Protocol):
    """Makes a backend as a configuration does; it is closed when the test ends."""

    def __call__(self, url: str, **options: Any) -> Any: ...


@pytest.fixture
def made() -> Iterator[Made]:
    backends: list[Any] = []

    def make(url: str, **options: Any) -> Any:
        choice = BackendChoice("open-inference-http", {"url": url, **options})
        backends.append(Registry(Resources(allow_loopback=True)).build(choice))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()


class TestBinary(BackendContract, FaultContract):
    @pytest.fixture
    def backend(self, container: Serving, made: Made) -> Any:
        return made(container.url)

    @pytest.fixture
    def troubled(self, faulty: Faulty, made: Made) -> Any:
        return made(faulty.url)

    @pytest.fixture
    def unreachable(self, free_port: int, made: Made) -> Any:
        return made(f"http://127.0.0.1:{free_port}")


class TestJson(BackendContract):
    @pytest.fixture
    def backend(self, container: Serving, made: Made) -> Any:
        return made(container.url, binary=False)


@pytest.fixture
def server() -> Iterator[SageMakerServer]:
    """Answers for the model and version of its path, `y` as JSON; remembers what came."""
    server = SageMakerServer()
    server.script = lambda call: Answer(200, y_of(call), {"Content-Type": "application/json"})
    yield server
    server.close()


def y_of(call: Call, **members: Any) -> bytes:
    parts = call.path.split("/")
    number = parts[parts.index("versions") + 1] if "versions" in parts else "12"
    outputs = [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]
    name = parts[parts.index("models") + 1]
    return json.dumps({"model_name": name, "model_version": number, "outputs": outputs, **members}).encode()


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "/v2/models/same-fp32/versions/1/infer"),
        ({"version": "none"}, "/v2/models/same-fp32/infer"),
        ({"version": "7", "model": "other"}, "/v2/models/other/versions/7/infer"),
        ({"version": "v1.2-b"}, "/v2/models/same-fp32/versions/v1.2-b/infer"),
    ],
)
def test_models_and_versions_are_those_of_the_server(
    made: Made, server: SageMakerServer, options: Any, path: str
) -> None:
    check(made(f"{server.url}/ingress/", **options).infer(published("same-fp32"), X, CONTEXT), {"y": X["x"]})
    assert [call.path for call in server.calls] == [f"/ingress{path}"]


def test_what_travels_beside_the_tensors(made: Made, server: SageMakerServer) -> None:
    parent = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
    backend = made(server.url, headers={"Host": "model.example.com", "x-team": "blue"}, send_timeout=True)
    backend.infer(published("same-fp32"), X, replace(CONTEXT, traceparent=parent, priority=200))
    (call,) = server.calls
    headers = dict(call.headers)
    assert 0 < int(headers.pop("x-sluice-deadline-ms")) <= CONTEXT.deadline_ms
    length = int(headers.pop("inference-header-content-length"))
    document = json.loads(call.body[:length])
    assert document["id"] == "request-1"
    assert document["parameters"] == {"binary_data_output": True, "timeout": CONTEXT.deadline_ms * 1000}
    assert headers == {
        "host": "model.example.com",
        "x-team": "blue",
        "accept": "application/octet-stream, application/json",
        "accept-encoding": "identity",
        "content-type": "application/octet-stream",
        "content-length": str(len(call.body)),
        "x-request-id": "request-1",
        "x-sluice-tenant": "tenant-1",
        "x-sluice-priority": "200",
        "traceparent": parent,
    }


def test_json_is_json_to_the_last_byte(made: Made, server: SageMakerServer) -> None:
    made(server.url, binary=False).infer(published("same-fp32"), X, CONTEXT)
    (call,) = server.calls
    assert "inference-header-content-length" not in call.headers
    assert (call.headers["content-type"], call.headers["accept"]) == ("application/json", "application/json")
    document = json.loads(call.body)
    assert document["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]
    assert document["parameters"] == {}


@pytest.mark.parametrize("tenant", ["a\r\nX-Evil: 1", "ü", "a b", "%0d%0aX-Evil: 1", "ü" * 5000])
def test_no_name_can_add_a_header(made: Made, server: SageMakerServer, tenant: str) -> None:
    backend = made(server.url)
    for name in (tenant, tenant + "x"):
        backend.infer(published("same-fp32"), X, InferenceContext(name, name, 20_000))
    one, other = ({**call.headers, "x-sluice-deadline-ms": ""} for call in server.calls)
    assert one.keys() == other.keys()
    assert "x-evil" not in one
    assert one["x-sluice-tenant"] != other["x-sluice-tenant"]


@pytest.mark.parametrize(
    ("model", "value"), [("same-fp32", [[np.nan, 1]]), ("same-fp32", [[np.inf, 1]]), ("same-bytes", None)]
)
def test_what_json_cannot_hold_is_not_sent_as_json(made: Made, server: SageMakerServer, model: str, value: Any) -> None:
    inputs = {"x": bytes_tensor([b"\xff", b""]).reshape(1, 2) if value is None else np.array(value, dtype=np.float32)}
    with pytest.raises(BackendRejected, match="is sent JSON"):
        made(server.url, binary=False).infer(published(model), inputs, CONTEXT)
    assert server.calls == []


def test_a_request_over_the_limit_is_not_sent(made: Made, server: SageMakerServer) -> None:
    with pytest.raises(PayloadTooLarge):
        made(server.url, max_request_bytes=50).infer(published("same-fp32"), X, CONTEXT)
    assert server.calls == []


def test_without_an_asked_version_any_may_answer_and_with_one_it_must_be_said(
    made: Made, server: SageMakerServer
) -> None:
    server.script = lambda call: Answer(200, y_of(call, model_version=""), {"Content-Type": "application/json"})
    check(made(server.url, version="none").infer(published("same-fp32"), X, CONTEXT), {"y": X["x"]})
    with pytest.raises(BackendError, match="not for 'same-fp32' version 1"):
        made(server.url).infer(published("same-fp32"), X, CONTEXT)


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_server_that_does_not_let_us_in_is_no_fault_of_the_request(
    made: Made, server: SageMakerServer, status: int
) -> None:
    server.script = lambda _call: Answer(status, b'{"error": "who are you"}')
    with pytest.raises(BackendError, match="does not let us in") as caught:
        made(server.url).infer(published("same-fp32"), X, CONTEXT)
    assert type(caught.value) is BackendError


def test_the_servers_own_words_are_cut_and_only_from_json(made: Made, server: SageMakerServer) -> None:
    long = json.dumps({"error": "e" * 10_000}).encode()
    for body, media_type, words in ((long, "application/json", "e" * 500), (b"secrets", "text/html", "")):
        answer = Answer(400, body, {"Content-Type": media_type})
        server.script = lambda _call, answer=answer: answer  # type: ignore[misc]
        with pytest.raises(BackendRejected) as caught:
            made(server.url).infer(published("same-fp32"), X, CONTEXT)
        assert caught.value.detail == f"The model server refused the request (status 400): {words}"


def test_retry_after_may_be_a_date(made: Made, server: SageMakerServer) -> None:
    for moment, least, most in ((timedelta(minutes=5), 200.0, 300.0), (-timedelta(days=1), 0.0, 0.0)):
        at = format_datetime(datetime.now(UTC) + moment, usegmt=True)
        server.script = lambda _call, at=at: Answer(503, b"", {"Retry-After": at})  # type: ignore[misc]
        with pytest.raises(BackendUnavailable) as caught:
            made(server.url).infer(published("same-fp32"), X, CONTEXT)
        assert caught.value.retry_after_s is not None
        assert least <= caught.value.retry_after_s <= most


class RawServer:
    """Serves each connection with `script`; counts them."""

    def __init__(self, script: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._script = script
        self.connections = 0
        self._open: socket.socket | None = None
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open = connection
            with connection, contextlib.suppress(OSError):
                self._script(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def received(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ConnectionError
    return data


def request_from(connection: socket.socket) -> bytes:
    """One request's bytes, to the last."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(
        next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")).split(b":")[1]
    )
    while len(body) < length:
        body += received(connection)
    return body


def wait(event: threading.Event) -> None:
    event.wait(60)


def ok(body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b%b" % (
        len(body),
        body,
        extra,
    )


ANSWER = json.dumps(
    {
        "model_name": "same-fp32",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}],
    }
).encode()


def test_a_connection_is_kept_and_what_came_unasked_is_not_read(made: Made) -> None:
    turns = []

    def script(connection: socket.socket) -> None:
        for _ in range(3):
            request_from(connection)
            turns.append(1)
            # After its second answer it says something that nobody asked for.
            connection.sendall(ok(ANSWER))
            if len(turns) == 2:
                connection.sendall(ok(ANSWER.replace(b"1.0", b"666")))
                return

    server = RawServer(script)
    backend = made(server.url)
    for _ in range(2):
        check(backend.infer(published("same-fp32"), X, CONTEXT), {"y": X["x"]})
    assert server.connections == 1
    check(backend.infer(published("same-fp32"), X, CONTEXT), {"y": X["x"]})
    assert server.connections == 2
    server.close()


def test_what_comes_with_an_answer_and_is_none_of_it_ends_the_connection(made: Made) -> None:
    turns: list[int] = []
    foreign = ok(ANSWER.replace(b"1.0", b"666"))

    def script(connection: socket.socket) -> None:
        request_from(connection)
        turns.append(1)
        if len(turns) == 1:
            # The rest of the foreign answer comes once the next request is there.
            connection.sendall(ok(ANSWER) + foreign[:-40])
            request_from(connection)
            connection.sendall(foreign[-40:])
        else:
            connection.sendall(ok(ANSWER))

    server = RawServer(script)
    backend = made(server.url)
    check(backend.infer(published("same-fp32"), X, CONTEXT), {"y": X["x"]})
    check(backend.infer(published("same-fp32"), X, CONTEXT), {"y": X["x"]})
    assert server.connections == 2
    server.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "169.254.169.254"])
def test_a_name_is_checked_when_it_is_resolved(host: str, free_port: int) -> None:
    allow = host.startswith("169.")
    origin = Origin(host, free_port, tls=False)
    connections = HttpConnections(origin, connect_timeout_s=1, max_answer_bytes=1, allow_loopback=allow)
    with pytest.raises(BackendUnavailable, match="The address of") as caught:
        connections.call(b"", monotonic() + 5)
    assert not caught.value.retryable


def test_what_is_no_name_cannot_be_reached(made: Made) -> None:
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        made(f"http://{'a' * 64}.example").infer(published("same-fp32"), X, CONTEXT)


def test_an_answer_that_comes_before_the_request_was_read_counts(made: Made) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):  # a reset would destroy the answer
            pass

    server = RawServer(script)
    large = {"x": np.zeros((500_000, 2), dtype=np.float32)}
    with pytest.raises(BackendUnavailable) as caught:
        made(server.url).infer(published("same-fp32"), large, CONTEXT)
    assert caught.value.retry_after_s == 3
    server.close()


def test_a_server_that_reads_nothing_is_given_up_at_the_deadline(made: Made) -> None:
    release = threading.Event()
    server = RawServer(lambda _connection: wait(release))
    large = {"x": np.zeros((2_000_000, 2), dtype=np.float32)}
    with pytest.raises(BackendTimeout):
        made(server.url).infer(published("same-fp32"), large, replace(CONTEXT, deadline_ms=500))
    release.set()
    server.close()


def test_a_dead_kept_connection_does_not_hide_a_dead_server(made: Made, faulty: Faulty) -> None:
    backend = made(faulty.url)
    check(backend.infer(published("sum"), SUMMANDS, CONTEXT), answer_of("sum", SUMMANDS))
    faulty.switch.set(Fault("closed"))
    with pytest.raises(BackendUnavailable):
        backend.infer(published("sum"), SUMMANDS, CONTEXT)
    assert faulty.switch.calls["closed"] == 2  # once on the kept connection, once on a new one
