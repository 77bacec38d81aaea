"""HTTP/2 as clients break it, and as they should."""

import gzip
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_service.grpc import frames as h2
from gpu_service.grpc.frames import ErrorCode, Setting, frame, reset, window_update
from gpu_service.grpc.hpack import Header, literals
from gpu_service.grpc.server import Timeouts
from gpu_service.grpc.status import Status
from gpu_service.grpc.stream import RECEIVE_WINDOW
from tests.gpu_service.grpc.client import Client, headers, message
from tests.gpu_service.grpc.echo import Echo, echo_server

END = h2.END_STREAM | h2.END_HEADERS


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with echo_server(max_streams=8, max_held_bytes=3 * 1024 * 1024) as server:
        yield server


@pytest.fixture
def client(echo: Echo) -> Iterator[Client]:
    with Client(echo.port) as connected:
        yield connected


def test_a_unary_call(client: Client) -> None:
    status, body, fields = client.call(1, b"hello")
    assert (status, body) == (0, message(b"hello"))
    assert fields[":status"] == "200"
    assert fields["content-type"] == "application/grpc"


def test_calls_of_a_connection_one_after_another(client: Client) -> None:
    for stream in range(1, 400, 2):
        assert client.call(stream, b"%d" % stream)[:2] == (0, message(b"%d" % stream))


def test_frames_in_pieces_of_any_size(client: Client) -> None:
    call = frame(h2.HEADERS, h2.END_HEADERS, 1, literals(headers()))
    call += frame(h2.DATA, 0, 1, message(b"hello")[:3]) + frame(h2.DATA, h2.END_STREAM, 1, message(b"hello")[3:])
    for byte in call:
        client.send(bytes((byte,)))
    assert client.answer(1)[:2] == (0, message(b"hello"))


def test_padding_priority_and_continuation(client: Client) -> None:
    block = literals(headers())
    padded = b"\x04" + b"\0\0\0\0\x10" + block[:10] + b"pad!"
    client.send(frame(h2.HEADERS, h2.PADDED | h2.WITH_PRIORITY, 1, padded))
    client.send(frame(h2.CONTINUATION, 0, 1, block[10:20]) + frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[20:]))
    client.send(frame(h2.DATA, h2.PADDED | h2.END_STREAM, 1, b"\x02" + message(b"hello") + b"xx"))
    assert client.answer(1)[:2] == (0, message(b"hello"))


def test_trailers_of_a_request_end_it(client: Client) -> None:
    client.open(1)
    client.data(1, message(b"hello"), end=False)
    client.send(frame(h2.HEADERS, END, 1, literals([(b"x-sum", b"1")])))
    assert client.answer(1)[:2] == (0, message(b"hello"))


def test_frames_of_unknown_kinds_are_passed_over(client: Client) -> None:
    client.send(frame(0x42, 0xFF, 0, b"anything") + frame(h2.PRIORITY, 0, 5, b"\0\0\0\0\1"))
    assert client.call(1, b"hello")[0] == 0


@pytest.mark.parametrize(("encoding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_compressed_messages(client: Client, encoding: bytes, pack: type) -> None:
    client.open(1, "/echo", (b"grpc-encoding", encoding))
    client.data(1, message(pack(b"hello" * 100), flag=1))
    assert client.answer(1)[:2] == (0, message(b"hello" * 100))
    assert client.call(3, b"plain", "/echo", (b"grpc-encoding", encoding))[0] == 0


def test_a_compressed_message_that_grows_over_the_limit(client: Client) -> None:
    client.open(1, "/echo", (b"grpc-encoding", b"gzip"))
    client.data(1, message(gzip.compress(bytes(64 * 1024 * 1024)), flag=1))
    status, _, fields = client.answer(1)
    assert status == Status.RESOURCE_EXHAUSTED
    assert fields["x-sluice-code"] == "payload_too_large"


def test_messages_that_cannot_be_read(client: Client) -> None:
    def refused(stream: int, body: bytes, *more: Header) -> tuple[int, str]:
        client.open(stream, "/echo", *more)
        client.data(stream, body)
        status, _, fields = client.answer(stream)
        return status, fields["grpc-message"]

    assert refused(1, message(b"hello", flag=1))[0] == Status.INTERNAL
    assert refused(3, message(b"hello", flag=7), (b"grpc-encoding", b"gzip"))[0] == Status.INTERNAL
    assert refused(5, message(b"no gzip", flag=1), (b"grpc-encoding", b"gzip"))[0] == Status.INVALID_ARGUMENT
    assert refused(7, b"")[0] == Status.INTERNAL
    assert refused(9, message(b"hello")[:-1]) == (Status.INTERNAL, "The request ends inside a message.")
    assert refused(11, message(b"one") + message(b"two"))[0] == Status.INTERNAL
    status, detail = refused(13, b"\0\xff\xff\xff\xff" + bytes(100))
    assert status == Status.RESOURCE_EXHAUSTED
    assert "4294967295 bytes; the limit is 4194304" in detail
    assert client.call(15, b"hello")[0] == 0


def test_headers_that_are_refused(client: Client) -> None:
    def refused(stream: int, block: list[Header]) -> tuple[int, dict[str, str]]:
        client.send(frame(h2.HEADERS, END, stream, literals(block)))
        status, _, fields = client.answer(stream)
        return status, fields

    assert refused(1, headers("/nothing"))[0] == Status.UNIMPLEMENTED
    assert refused(3, headers("/echo", (b"grpc-timeout", b"soon")))[0] == Status.INTERNAL
    status, fields = refused(5, headers("/echo", (b"grpc-encoding", b"snappy")))
    assert (status, fields["grpc-accept-encoding"]) == (Status.UNIMPLEMENTED, "identity,gzip,deflate")
    assert refused(7, headers())[0] == Status.INTERNAL
    assert refused(9, headers("/echo", (b"x-sluice-deadline-ms", b"soon")))[0] == Status.INVALID_ARGUMENT
    wrong_type = [(name, b"text/plain" if name == b"content-type" else value) for name, value in headers()]
    assert refused(11, wrong_type)[1][":status"] == "415"
    assert client.call(13, b"hello")[0] == 0


def test_metadata_over_the_limit_fails_the_call_alone(client: Client) -> None:
    block = literals(headers("/echo")) + b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 10
    client.send(frame(h2.HEADERS, END, 1, block))
    assert client.answer(1)[0] == Status.RESOURCE_EXHAUSTED
    assert client.call(3, b"hello")[0] == 0


@pytest.mark.parametrize(
    "block",
    [
        [(b":method", b"GET"), *headers()[1:]],
        headers()[1:],
        [*headers()[:2], *headers()[3:]],
        [*headers(), (b":path", b"/echo")],
        [*headers(), (b":late", b"x")],
        [*headers(), (b"Upper", b"x")],
        [*headers(), (b"connection", b"close")],
        [*headers(), (b"", b"x")],
    ],
)
def test_headers_that_are_no_request_reset_the_stream(client: Client, block: list[Header]) -> None:
    client.send(frame(h2.HEADERS, END, 1, literals(block)))
    assert client.until(h2.RST_STREAM, 1).payload == h2._WORD.pack(ErrorCode.PROTOCOL_ERROR)
    assert client.call(3, b"hello")[0] == 0


def test_a_failure_and_a_bug_are_told_apart_from_the_connection(client: Client) -> None:
    status, body, fields = client.call(1, "naïve %".encode(), "/fail")
    assert (status, body, fields["grpc-message"]) == (Status.ABORTED, b"", "na%C3%AFve %25")
    assert client.call(3, b"", "/bug")[0] == Status.INTERNAL
    assert client.call(5, b"hello")[0] == 0


# Flow control.


def test_an_answer_larger_than_the_windows(echo: Echo) -> None:
    with Client(echo.port, own=[(Setting.INITIAL_WINDOW_SIZE, 1000)]) as client:
        status, body, _ = client.call(1, b"300000", "/large")
        assert (status, len(body)) == (0, 300_005)
        assert max(len(got.payload) for got in client.seen if got.kind == h2.DATA) <= 1000


def test_a_smaller_window_counts_for_streams_that_are_open(client: Client) -> None:
    client.send(h2.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    client.open(1, "/large")
    client.data(1, message(b"100"))
    client.ping()
    assert not [got for got in client.seen if got.kind == h2.DATA]
    client.send(h2.settings({Setting.INITIAL_WINDOW_SIZE: 50}))
    assert len(client.until(h2.DATA, 1).payload) == 50
    client.send(window_update(1, 55))
    assert len(client.until(h2.DATA, 1).payload) == 55
    assert client.answer(1)[0] == 0


def test_streams_share_the_window_of_the_connection(client: Client) -> None:
    for stream in (1, 3):
        client.open(stream, "/large")
        client.data(stream, message(b"60000"))
    client.ping()
    sent = [got for got in client.seen if got.kind == h2.DATA]
    assert sum(len(got.payload) for got in sent) == h2.DEFAULT_WINDOW
    client.send(window_update(0, 1_000_000))
    client.answer(3, grants=False)
    received = dict.fromkeys((1, 3), 0)
    for got in client.seen:
        if got.kind == h2.DATA:
            received[got.stream] += len(got.payload)
    assert received == {1: 60005, 3: 60005}


def test_a_request_larger_than_the_window_is_granted_more(client: Client) -> None:
    size = 2 * RECEIVE_WINDOW
    client.open(1)
    body = message(bytes(size))
    for at in range(0, len(body), 16384):
        while at + 16384 - client.windows() > RECEIVE_WINDOW:
            client.until(h2.WINDOW_UPDATE, 1)
        client.send(frame(h2.DATA, 0, 1, body[at : at + 16384]))
    client.send(frame(h2.DATA, h2.END_STREAM, 1))
    status, answer, _ = client.answer(1)
    assert (status, len(answer)) == (0, size + 5)


def test_more_data_than_the_window_resets_the_stream(client: Client) -> None:
    client.open(1, "/repeat")
    client.send(h2.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    piece = message(bytes(16384 - 5))
    with suppress(ConnectionError):
        for _ in range(RECEIVE_WINDOW // 16384 + 1):
            client.send(frame(h2.DATA, 0, 1, piece))
    assert client.until(h2.RST_STREAM, 1).payload == h2._WORD.pack(ErrorCode.FLOW_CONTROL_ERROR)
    client.send(h2.settings({Setting.INITIAL_WINDOW_SIZE: h2.DEFAULT_WINDOW}))
    assert client.call(3, b"")[0] == 0


def test_what_is_being_read_has_a_bound_for_all_connections(echo: Echo) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(Client(echo.port)) for _ in range(4)]
        for client in held:
            client.open(1)
            client.data(1, b"\0\0\x10\0\0" + bytes(900 * 1024), end=False)
            client.ping()
        refused = [client for client in held if any(got.kind == h2.HEADERS for got in client.seen)]
        assert refused == held[3:]
    with Client(echo.port) as client:
        assert client.call(1, bytes(900 * 1024))[0] == 0


# Streams.


def test_a_conversation(client: Client) -> None:
    client.open(1, "/repeat")
    client.data(1, message(b"one") + message(b"two") + message(b"three")[:6], end=False)
    assert client.until(h2.DATA, 1).payload == message(b"one")
    assert client.until(h2.DATA, 1).payload == message(b"two")
    client.data(1, message(b"three")[6:])
    assert client.answer(1)[:2] == (0, message(b"three"))


def test_a_conversation_that_is_not_read_is_not_read_either(client: Client) -> None:
    client.send(h2.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    client.open(1, "/repeat")
    piece = message(bytes(10_000 - 5))
    for _ in range(RECEIVE_WINDOW // 10_000):
        client.send(frame(h2.DATA, 0, 1, piece))
    client.ping()
    assert not [got for got in client.seen if got.kind == h2.WINDOW_UPDATE and got.stream]
    client.send(window_update(1, 1 << 24) + window_update(0, 1 << 24))
    client.data(1, b"")
    status, _, _ = client.answer(1, grants=False)
    sent = sum(len(got.payload) for got in client.seen if got.kind == h2.DATA)
    assert (status, sent) == (0, RECEIVE_WINDOW // 10_000 * 10_000)


def test_many_tiny_messages_in_one_conversation(client: Client) -> None:
    client.open(1, "/repeat")
    client.send(window_update(0, 1 << 24) + window_update(1, 1 << 24))
    client.data(1, message(b"") * 20_000)
    status, body, _ = client.answer(1, grants=False)
    assert (status, body) == (0, message(b"") * 20_000)


def test_streams_over_the_limit_are_refused(echo: Echo, client: Client) -> None:
    for stream in range(1, 17, 2):
        client.open(stream, "/keep")
        client.data(stream, message(b""))
    client.open(17)
    assert client.until(h2.RST_STREAM, 17).payload == h2._WORD.pack(ErrorCode.REFUSED_STREAM)
    echo.release()
    assert client.answer(1)[0] == 0
    client.ping()
    assert client.call(19, b"hello")[0] == 0


def test_a_stream_that_is_reset_keeps_its_place_until_its_work_is_done(echo: Echo, client: Client) -> None:
    for stream in range(1, 17, 2):
        client.open(stream, "/keep")
        client.data(stream, message(b""))
        client.send(reset(stream, ErrorCode.CANCEL))
    client.open(17)
    assert client.until(h2.RST_STREAM, 17).payload == h2._WORD.pack(ErrorCode.REFUSED_STREAM)
    echo.release()
    assert client.call(19, b"hello")[0] == 0
    assert not [got for got in client.seen if got.stream == 1]


def test_data_after_the_end_of_an_answer_is_passed_over(client: Client) -> None:
    client.open(1, "/nothing")
    assert client.answer(1)[0] == Status.UNIMPLEMENTED
    client.data(1, message(b"late"))
    assert client.call(3, b"hello")[0] == 0


# What ends a connection.


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(h2.DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.HEADERS, END, 2, literals(headers())), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.HEADERS, END, 0, literals(headers())), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.HEADERS, END, 1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
        (frame(h2.HEADERS, END | h2.PADDED, 1, b"\xff"), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.HEADERS, END | h2.WITH_PRIORITY, 1, b"\0"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(h2.HEADERS, 0, 1, b"") + frame(h2.PING, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.HEADERS, 0, 1, b"") + frame(h2.CONTINUATION, 0, 3, b""), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.CONTINUATION, h2.END_HEADERS, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.PING, 0, 0, b"short"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(h2.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.SETTINGS, 0, 0, b"short"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(h2.SETTINGS, h2.ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
        (h2.settings({Setting.INITIAL_WINDOW_SIZE: 2**31}), ErrorCode.FLOW_CONTROL_ERROR),
        (h2.settings({Setting.MAX_FRAME_SIZE: 100}), ErrorCode.PROTOCOL_ERROR),
        (h2.settings({Setting.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
        (window_update(0, 0), ErrorCode.FLOW_CONTROL_ERROR),
        (window_update(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
        (window_update(7, 1), ErrorCode.PROTOCOL_ERROR),
        (reset(7, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.RST_STREAM, 0, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
        (frame(h2.PUSH_PROMISE, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frame(h2.GOAWAY, 0, 0, b""), ErrorCode.FRAME_SIZE_ERROR),
        (frame(h2.PRIORITY, 0, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
        (b"\xff\xff\xff" + bytes(6), ErrorCode.FRAME_SIZE_ERROR),
        (frame(h2.PING, 0, 0, bytes(8)) * 2500, ErrorCode.ENHANCE_YOUR_CALM),
        (frame(h2.SETTINGS, 0, 0) * 200, ErrorCode.ENHANCE_YOUR_CALM),
        (frame(0x42, 0, 0) * 2500, ErrorCode.ENHANCE_YOUR_CALM),
        (
            frame(h2.HEADERS, 0, 1, b"") + frame(h2.CONTINUATION, 0, 1, b"") * 2500,
            ErrorCode.ENHANCE_YOUR_CALM,
        ),
        (
            frame(h2.HEADERS, 0, 1, b"") + frame(h2.CONTINUATION, 0, 1, bytes(9000)) * 2,
            ErrorCode.ENHANCE_YOUR_CALM,
        ),
        (
            frame(h2.HEADERS, h2.END_HEADERS, 1, literals(headers())) + frame(h2.DATA, 0, 1, b"") * 2500,
            ErrorCode.ENHANCE_YOUR_CALM,
        ),
    ],
)
def test_faults_end_the_connection_and_no_other(echo: Echo, data: bytes, code: ErrorCode) -> None:
    with Client(echo.port) as broken, Client(echo.port) as other:
        with suppress(ConnectionError):
            broken.send(data)
        assert broken.goaway() is code
        assert other.call(1, b"hello")[0] == 0


def test_resets_in_quick_succession(echo: Echo) -> None:
    # Each stream is reset before it has brought anything.
    calls = b"".join(
        frame(h2.HEADERS, h2.END_HEADERS, stream, b"\x40\x01a\x01b") + reset(stream, ErrorCode.CANCEL)
        for stream in range(1, 8000, 2)
    )
    with Client(echo.port) as client:
        with suppress(ConnectionError):
            client.send(calls)
        assert client.goaway() is ErrorCode.ENHANCE_YOUR_CALM


def test_what_is_no_http2_is_ended(echo: Echo) -> None:
    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00", h2.PREFACE[:-1] + b"x"):
        with Client(echo.port, greet=False) as client:
            client.send(data)
            assert client.goaway() is ErrorCode.PROTOCOL_ERROR
    with Client(echo.port, greet=False) as client:
        client.send(h2.PREFACE)
        client.open(1)
        assert client.goaway() is ErrorCode.PROTOCOL_ERROR


def test_a_caller_that_vanishes_leaves_nothing_behind(echo: Echo) -> None:
    with Client(echo.port) as client:
        client.open(1, "/keep")
        client.data(1, message(b""))
        client.open(3)
        client.data(3, b"\0\0\x01\0\0" + bytes(1000), end=False)
        client.ping()
        (stream,) = echo.methods.kept
    with Client(echo.port) as client:
        while not stream.closed:
            client.ping()
        echo.release()
        while echo.stats.in_flight or echo.server._held:
            client.ping()
    assert stream.connection._occupied == 0


def test_connections_over_the_limit_are_refused() -> None:
    with echo_server(max_connections=2) as echo, Client(echo.port) as first, Client(echo.port) as second:
        first.ping()
        second.ping()
        with Client(echo.port) as third:
            assert third.goaway() is ErrorCode.ENHANCE_YOUR_CALM
        assert first.call(1, b"hello")[0] == 0


def test_what_does_not_move_is_ended() -> None:
    with echo_server(Timeouts(read_s=1, idle_s=2, alive_s=1, answer_s=1)) as echo:
        with Client(echo.port, greet=False) as silent, Client(echo.port) as half, Client(echo.port) as slow:
            half.send(frame(h2.PING, 0, 0, bytes(8))[:12])
            slow.open(1)
            slow.data(1, message(b"hello")[:6], end=False)
            status, _, fields = slow.answer(1)
            assert status == Status.DEADLINE_EXCEEDED
            assert "within 1 seconds" in fields["grpc-message"]
            assert silent.goaway() is ErrorCode.PROTOCOL_ERROR
            assert half.goaway() is ErrorCode.PROTOCOL_ERROR
            assert slow.until(h2.GOAWAY).payload[4:] == bytes(4)  # idle
            assert slow.next() is None
        with Client(echo.port) as dead:
            dead.open(1, "/repeat")
            assert dead.until(h2.PING).payload == b"sluice-1"
            while dead.next() is not None:
                pass


def test_a_caller_that_does_not_read_its_answers_is_ended() -> None:
    with echo_server(Timeouts(write_s=1)) as echo, Client(echo.port) as client:
        client.send(h2.settings({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}) + window_update(0, 2**30))
        for stream in range(1, 9, 2):
            client.open(stream, "/large")
            client.data(stream, message(b"30000000"))
        while not echo.stats.connections_total or echo.stats.connections["grpc"]:
            time.sleep(0.05)
        assert echo.stats.in_flight == 0


def test_stopping_answers_what_was_accepted() -> None:
    with echo_server() as echo, Client(echo.port) as client, Client(echo.port) as talker, Client(echo.port) as idle:
        client.open(1, "/keep")
        client.data(1, message(b""))
        client.ping()
        talker.open(1, "/repeat")
        talker.ping()
        idle.ping()
        stopping = echo.server.stop(20)
        thread = threading.Thread(target=echo.do, args=(stopping,))
        thread.start()
        assert client.until(h2.GOAWAY).payload[:4] == h2._WORD.pack(2**31 - 1)
        assert client.until(h2.GOAWAY).payload[:4] == h2._WORD.pack(1)
        client.open(3)  # too late: for another server
        client.data(3, message(b"hello"))
        client.ping()
        echo.release()
        assert client.answer(1)[:2] == (0, message(b"released"))
        assert client.next() is None
        assert talker.answer(1)[0] == Status.UNAVAILABLE
        assert idle.until(h2.GOAWAY).stream == 0
        thread.join()
        with pytest.raises(ConnectionRefusedError):
            Client(echo.port)


frame_bytes = st.builds(
    frame, st.integers(0, 10), st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]), st.binary(max_size=40)
)
good = st.sampled_from(
    [
        frame(h2.HEADERS, h2.END_HEADERS, stream, literals(headers(path)))
        + frame(h2.DATA, h2.END_STREAM, stream, message(b"5"))
        for stream in (1, 3, 5)
        for path in ("/echo", "/large", "/repeat", "/fail")
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(frame_bytes | good | st.binary(max_size=30), max_size=8), st.integers(1, 200))
def test_any_frames_leave_the_server_well(echo: Echo, pieces: list[bytes], step: int) -> None:
    data = b"".join(pieces)
    with Client(echo.port) as client, suppress(ConnectionError):
        for at in range(0, len(data), step):
            client.send(data[at : at + step])
    with Client(echo.port) as client:
        assert client.call(1, b"hello")[:2] == (0, message(b"hello"))


def test_nothing_is_left_at_the_end(echo: Echo) -> None:
    with Client(echo.port) as client:
        client.ping()
        deadline = time.monotonic() + 10
        while (echo.stats.in_flight or echo.stats.connections["grpc"] > 1) and time.monotonic() < deadline:
            client.ping()
    assert echo.stats.in_flight == 0
    assert echo.server._held == 0
