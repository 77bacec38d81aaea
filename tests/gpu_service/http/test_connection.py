"""The HTTP server on raw sockets: what a client may send in any pieces, and what it may not."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import orjson
import pytest
import uvloop

from gpu_service.http.exchange import Exchange
from gpu_service.http.router import Router
from gpu_service.http.server import HttpLimits, HttpServer, Timeouts
from gpu_service.telemetry.stats import ServerStats

BODY_LIMIT = 300_000
LARGE = 30_000_000


def echo(exchange: Exchange) -> None:
    exchange.answer(200, exchange.head.method.encode() + b":" + exchange.body, "text/plain")


def later(exchange: Exchange) -> None:
    async def answer() -> None:
        await asyncio.sleep(0.05)
        exchange.answer(200, b"late:" + exchange.body, "text/plain")

    exchange.connection.server.spawn(answer())


def stream(exchange: Exchange) -> None:
    async def answer() -> None:
        exchange.start_stream(200, "text/plain")
        for part in (b"a", b"bc", b"d" * 1000):
            await exchange.send(part)
        exchange.end_stream()

    exchange.connection.server.spawn(answer())


unanswered: list[Exchange] = []


def router() -> Router:
    routes = Router()
    routes.add("GET", "/large", lambda exchange: exchange.answer(200, b"x" * LARGE, "text/plain"))
    routes.add("GET", "/echo", echo)
    routes.add("POST", "/echo", echo)
    routes.add("POST", "/later", later)
    routes.add("POST", "/never", unanswered.append)
    routes.add("GET", "/stream", stream)
    routes.add("GET", "/things/{name}", lambda exchange: exchange.answer(200, exchange.head.params["name"].encode()))
    return routes


class Running:
    def __init__(self, port: int, server: HttpServer, stats: ServerStats) -> None:
        self.port = port
        self.server = server
        self.stats = stats

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def on_loop(self, work: Callable[[], object]) -> None:
        self.server.loop.call_soon_threadsafe(work)


@contextmanager
def running(limits: HttpLimits | None = None, timeouts: Timeouts | None = None) -> Iterator[Running]:
    begun = threading.Event()
    found: list[Running] = []

    async def serve() -> None:
        stats = ServerStats()
        server = HttpServer(router(), limits or HttpLimits(BODY_LIMIT), stats, timeouts)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        await server.listen("127.0.0.1", port)
        stop = asyncio.Event()
        found.append(Running(port, server, stats))
        server.end = stop.set  # type: ignore[attr-defined]
        begun.set()
        await stop.wait()
        await server.stop(3)

    def main() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=main)
    thread.start()
    assert begun.wait(20)
    try:
        yield found[0]
    finally:
        with suppress(RuntimeError):  # a test may have ended it already
            found[0].on_loop(found[0].server.end)  # type: ignore[attr-defined]
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_answer(connection: socket.socket, rest: bytes = b"", *, head_only: bool = False) -> tuple[Answer, bytes]:
    """The next answer and what came after it."""
    data = rest
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        assert more, f"the connection ended after {data!r}"
        data += more
    head, _, data = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .+", lines[0])
    assert match, lines[0]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    status = int(match[1])
    length = 0 if head_only or status == 100 else int(headers["content-length"])
    while len(data) < length:
        more = connection.recv(65536)
        assert more, "the connection ended within a body"
        data += more
    return Answer(status, headers, data[:length]), data[length:]


def final_answer(connection: socket.socket, rest: bytes = b"") -> tuple[Answer, bytes]:
    """The next answer that is no 100: those may come at any time to a client that has said all."""
    while True:
        answer, rest = read_answer(connection, rest)
        if answer.status != 100:
            return answer, rest


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(65536) == b""
    except ConnectionResetError:
        return True


def test_an_answer_has_its_length_and_the_date(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post("/echo", b"hello"))
        answer, rest = read_answer(connection)
        assert (answer.status, answer.body, rest) == (200, b"POST:hello", b"")
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["date"].endswith("GMT")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_a_request_may_come_in_any_pieces(server: Running, size: int) -> None:
    request = post("/echo", b"0123456789" * 5)
    with server.connect() as connection:
        for _ in range(2):  # the second time its head is known
            for start in range(0, len(request), size):
                connection.sendall(request[start : start + size])
            assert read_answer(connection)[0].body == b"POST:" + b"0123456789" * 5


def test_a_known_head_answers_with_the_body_of_its_own_request(server: Running) -> None:
    with server.connect() as connection:
        for number in range(50):
            body = b"%03d" % number
            connection.sendall(post("/echo", body))
            assert read_answer(connection)[0].body == b"POST:" + body


def test_requests_sent_ahead_are_answered_in_order(server: Running) -> None:
    bodies = [b"%d" % number for number in range(40)]
    paths = ["/later" if number % 7 == 0 else "/echo" for number in range(40)]
    with server.connect() as connection:
        connection.sendall(b"".join(post(path, body) for path, body in zip(paths, bodies, strict=True)))
        rest = b""
        for path, body in zip(paths, bodies, strict=True):
            answer, rest = read_answer(connection, rest)
            assert answer.body == (b"late:" if path == "/later" else b"POST:") + body


def test_much_sent_ahead_of_a_slow_answer_is_all_answered(server: Running) -> None:
    requests = post("/later", b"x") + b"".join(post("/echo", b"y" * 1000) for _ in range(300))
    with server.connect() as connection:
        sender = threading.Thread(target=connection.sendall, args=(requests,))
        sender.start()
        answer, rest = read_answer(connection)
        assert answer.body == b"late:x"
        for _ in range(300):
            answer, rest = read_answer(connection, rest)
            assert answer.body == b"POST:" + b"y" * 1000
        sender.join()


def test_a_chunked_body_is_put_together(server: Running) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(head + b"3\r\nabc\r\n5\r\ndefgh\r\n0\r\nTrailer: x\r\n\r\n")
            assert read_answer(connection)[0].body == b"POST:abcdefgh"


def test_an_empty_line_in_a_body_is_no_end_of_a_head(server: Running) -> None:
    with server.connect() as connection:
        for body in (b"a\r\n\r\nb", b"a\r\n\r\nGET /echo HTTP/1.1\r\n\r\n"):
            for _ in range(2):
                connection.sendall(post("/echo", body))
                assert read_answer(connection)[0].body == b"POST:" + body


def test_a_head_with_bare_line_feeds_is_not_remembered_with_its_body(server: Running) -> None:
    request = b"POST /echo HTTP/1.1\nHost: x\nContent-Length: 6\n\nab\r\n\r\n"
    for _ in range(2):
        with server.connect() as connection:
            connection.sendall(request)
            answer, _ = read_answer(connection)
            assert answer.status == 400 or answer.body == b"POST:ab\r\n\r\n"


def test_expect_gets_its_leave_first(server: Running) -> None:
    with server.connect() as connection:
        head, _, body = post("/echo", b"abc", "Expect: 100-continue").partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        answer, rest = read_answer(connection)
        assert answer.status == 100
        connection.sendall(body)
        assert read_answer(connection, rest)[0].body == b"POST:abc"


def test_head_gets_no_body(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        answer, rest = read_answer(connection, head_only=True)
        assert (answer.status, answer.headers["content-length"], rest) == (200, "5", b"")
        connection.sendall(post("/echo", b"1"))
        assert read_answer(connection)[0].body == b"POST:1"


def test_a_named_segment_is_decoded_once(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /things/a%2Fb%2525 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(connection)[0].body == b"a/b%25"


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("http://x/echo", 200, b"GET:"),
        ("HTTP://x:8080/things/a%2Fb?c=d", 200, b"a/b"),
        ("https://user@[::1]:1/things/http://y", 404, None),
        ("https://user@[::1]:1/things/z", 200, b"z"),
        ("http://x/http://x/echo", 404, None),
        ("http://x", 404, None),
        ("http://x?/echo", 404, None),
    ],
)
def test_a_target_in_absolute_form_is_routed_by_its_path(
    server: Running, target: str, status: int, body: bytes | None
) -> None:
    with server.connect() as connection:
        for _ in range(2):  # the second one's head is remembered
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer, _ = read_answer(connection)
            assert (answer.status, body if body is None else answer.body) == (status, body)


HOSTS = ["", "x", "x:8080", "127.0.0.1:80", "[::1]", "[::1]:8080", "a-b.c_d.example:", "%C3%A4.example"]


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_is_served(server: Running, host: str) -> None:
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(f"GET /echo HTTP/1.1\r\nHost:{host}\r\n\r\n".encode())
            assert read_answer(connection)[0].body == b"GET:"


@pytest.mark.parametrize(
    "head",
    [
        "GET /echo HTTP/1.1\r\n",
        "GET http://x/echo HTTP/1.1\r\n",
        "GET /echo HTTP/1.1\r\nHost: x\r\nHost: x\r\n",
        "GET /echo HTTP/1.1\r\nhost: x\r\nX: y\r\nHOST: y\r\n",
        "GET /echo HTTP/1.0\r\nHost: x\r\nHost: y\r\n",
        *(
            f"GET /echo HTTP/1.1\r\nHost: {host}\r\n"
            for host in ("x y", "x/y", "x:y", "x@y", "[x", "a:1:2", "%", "\xe4")
        ),
    ],
)
def test_a_request_must_have_one_host(server: Running, head: str) -> None:
    for body in ("", "Content-Length: 3\r\n"):
        with server.connect() as connection:
            connection.sendall(f"{head}{body}X-Request-Id: mine\r\n\r\n".encode("latin-1"))
            answer, _ = read_answer(connection)
            problem = orjson.loads(answer.body)
            assert (answer.status, problem["code"], problem["request_id"]) == (400, "malformed_http", "mine")
            assert "Host" in problem["detail"]
            assert ended(connection)


@pytest.mark.parametrize(
    ("request_line", "status", "code"),
    [("GET /nowhere", 404, "no_such_route"), ("DELETE /echo", 405, "method_not_allowed")],
)
def test_what_is_not_served(server: Running, request_line: str, status: int, code: str) -> None:
    with server.connect() as connection:
        connection.sendall(f"{request_line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer, _ = read_answer(connection)
        assert (answer.status, orjson.loads(answer.body)["code"]) == (status, code)
        connection.sendall(post("/echo", b"1"))
        assert read_answer(connection)[0].body == b"POST:1"


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed_http"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "malformed_http"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "malformed_http"),
        (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "malformed_http",
        ),
        (post("/echo", b"")[:-2] + b"X: " + b"y" * 40_000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\n\r\n", 431, "head_too_large"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 300001\r\n\r\n", 413, "payload_too_large"),
        (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"10000\r\n"
            + b"z" * 65536
            + b"\r\n",
            413,
            "payload_too_large",
        ),
    ],
)
def test_what_is_refused_is_answered_and_ends_the_connection(
    server: Running, request_bytes: bytes, status: int, code: str
) -> None:
    if status == 413 and b"chunked" in request_bytes:
        head, _, chunk = request_bytes.partition(b"\r\n\r\n")
        request_bytes = head + b"\r\n\r\n" + chunk * 5
    with server.connect() as connection:
        connection.sendall(request_bytes)
        answer, _ = read_answer(connection)
        assert (answer.status, orjson.loads(answer.body)["code"]) == (status, code)
        assert answer.headers["connection"] == "close"
        assert ended(connection)


def test_the_largest_body_is_taken(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post("/echo", b"z" * BODY_LIMIT))
        assert len(read_answer(connection)[0].body) == BODY_LIMIT + len(b"POST:")


def test_an_answer_in_chunks(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while more := connection.recv(65536):
            data += more
        assert data.partition(b"\r\n\r\n")[2] == b"1\r\na\r\n2\r\nbc\r\n3e8\r\n" + b"d" * 1000 + b"\r\n0\r\n\r\n"


def test_an_offer_of_another_protocol_is_passed_over(server: Running) -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(post("/echo", b"abc", *offer))
            assert read_answer(connection)[0].body == b"POST:abc"


def test_empty_lines_before_a_request_are_no_head_to_remember(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"\r\n\r\nGET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(connection)[0].body == b"GET:"
    with server.connect() as connection:
        connection.sendall(b"\r\n\r\n")
        connection.sendall(post("/echo", b"1"))
        answer, rest = read_answer(connection)
        assert (answer.body, rest) == (b"POST:1", b"")


def test_a_body_that_is_announced_and_does_not_come_holds_nothing() -> None:
    limits = HttpLimits(BODY_LIMIT, max_held_bytes=BODY_LIMIT)
    with running(limits) as found, found.connect() as first, found.connect() as second:
        first.sendall(post("/echo", b"z" * BODY_LIMIT)[:100])
        second.sendall(post("/echo", b"z" * 1000))
        assert read_answer(second)[0].status == 200


def test_a_large_answer_is_sent_for_as_long_as_it_is_read() -> None:
    with running(timeouts=Timeouts(write_s=2)) as found, found.connect() as slow:
        slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        size = 0
        for pause in range(12):  # longer in all than the time without any progress
            while size < (pause + 1) * 2_000_000:
                size += len(slow.recv(1 << 18))
            time.sleep(0.3)
        while more := slow.recv(1 << 18):
            size += len(more)
        assert size > LARGE


def test_close_is_kept(server: Running) -> None:
    for request in (post("/echo", b"1", "Connection: close"), b"GET /echo HTTP/1.0\r\n\r\n"):
        with server.connect() as connection:
            connection.sendall(request)
            assert read_answer(connection)[0].headers["connection"] == "close"
            assert ended(connection)


def test_a_client_that_has_said_all_still_gets_its_answer(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post("/later", b"1"))
        connection.shutdown(socket.SHUT_WR)
        assert final_answer(connection)[0].body == b"late:1"
        assert ended(connection)


def test_all_that_was_sent_ahead_is_answered_to_a_client_that_has_said_all(server: Running) -> None:
    with server.connect() as connection:
        bodies = [b"%d" % count for count in range(5)]
        connection.sendall(b"".join(post("/later", body) for body in bodies) + post("/later", b"cut")[:-1])
        connection.shutdown(socket.SHUT_WR)
        rest = b""
        for body in bodies:
            answer, rest = final_answer(connection, rest)
            assert answer.body == b"late:" + body
        assert rest == b""
        assert ended(connection)


@pytest.mark.parametrize(
    "rest", [b"no request\r\n\r\n", b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n"]
)
def test_what_came_before_nonsense_is_answered_first(server: Running, rest: bytes) -> None:
    """Found by fuzzing: the refusal was sent at once and the answer could not be, nor those of others in its batch."""
    with server.connect() as connection:
        connection.sendall(post("/later", b"1") + post("/later", b"2") + rest)
        first, data = read_answer(connection)
        second, data = read_answer(connection, data)
        third, data = read_answer(connection, data)
        assert (first.body, second.body) == (b"late:1", b"late:2")
        assert third.status in (400, 413)
        assert ended(connection)


def test_answers_keep_the_order_of_requests_whenever_they_arrive(server: Running) -> None:
    with server.connect() as connection:
        total = 300
        for number in range(0, total, 3):
            connection.sendall(b"".join(post("/echo", b"%d" % (number + more)) for more in range(3)))
        rest = b""
        for number in range(total):
            answer, rest = read_answer(connection, rest)
            assert answer.body == b"POST:%d" % number


def test_a_client_that_has_gone_is_told_from_one_that_has_said_all() -> None:
    with running() as found, found.connect() as patient:
        with found.connect() as gone:
            for connection in (patient, gone):
                connection.sendall(post("/never", b""))
            patient.shutdown(socket.SHUT_WR)
            until(lambda: len(unanswered) == 2)
        until(lambda: any(exchange.gone for exchange in unanswered))
        for exchange in unanswered:
            found.on_loop(lambda exchange=exchange: exchange.answer(200, b"at last"))  # type: ignore[misc]
        answer, rest = read_answer(patient)
        while answer.status == 100:
            answer, rest = read_answer(patient, rest)
        assert (answer.body, rest) == (b"at last", b"")
        assert ended(patient)


def test_a_client_that_vanishes_harms_nobody(server: Running) -> None:
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(post("/later", b"1")[:-1])
        with server.connect() as connection:
            connection.sendall(post("/later", b"1"))
    with server.connect() as connection:
        connection.sendall(post("/echo", b"1"))
        assert read_answer(connection)[0].body == b"POST:1"


def test_a_request_that_does_not_get_on_is_ended() -> None:
    with running(timeouts=Timeouts(read_s=1)) as found, found.connect() as connection:
        connection.sendall(post("/echo", b"abc")[:-1])
        answer, _ = read_answer(connection)
        assert (answer.status, orjson.loads(answer.body)["code"]) == (408, "request_timeout")
        assert ended(connection)


def test_an_idle_connection_is_ended() -> None:
    with running(timeouts=Timeouts(idle_s=1)) as found, found.connect() as connection:
        connection.sendall(post("/echo", b"abc"))
        assert read_answer(connection)[0].status == 200
        assert ended(connection)


def test_connections_over_the_limit_are_refused() -> None:
    limits = HttpLimits(BODY_LIMIT, max_connections=2)
    with running(limits) as found, found.connect() as first, found.connect() as second:
        for connection in (first, second):
            connection.sendall(post("/echo", b"1"))
            assert read_answer(connection)[0].status == 200
        with found.connect() as third:
            answer, _ = read_answer(third)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        first.sendall(post("/echo", b"2"))
        assert read_answer(first)[0].body == b"POST:2"


def test_all_bodies_together_have_a_bound() -> None:
    with running(HttpLimits(BODY_LIMIT, max_held_bytes=BODY_LIMIT)) as found:
        with found.connect() as first, found.connect() as second:
            request = post("/echo", b"z" * BODY_LIMIT)
            first.sendall(request[:-1])
            wait_for(lambda: found.server.held_bytes >= BODY_LIMIT - 1)
            second.sendall(request[:-1])
            answer, _ = read_answer(second)
            assert (answer.status, orjson.loads(answer.body)["code"]) == (503, "too_many_bytes")
            first.sendall(request[-1:])
            assert len(read_answer(first)[0].body) == BODY_LIMIT + 5
        with found.connect() as third:
            third.sendall(request)
            assert len(read_answer(third)[0].body) == BODY_LIMIT + 5
        assert found.stats.sheds == {"too_many_bytes": 1}


def test_stopping_answers_what_was_accepted_and_says_that_it_ends() -> None:
    with running() as found:
        first, second = found.connect(), found.connect()
        first.sendall(post("/echo", b"1"))
        assert read_answer(first)[0].status == 200
        second.sendall(post("/later", b"2"))
        found.on_loop(found.server.end)  # type: ignore[attr-defined]
        assert read_answer(second)[0].body == b"late:2"
        assert ended(first)
        assert ended(second)
        first.close()
        second.close()
