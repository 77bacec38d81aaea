import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

from benchmarks import generator
from benchmarks.generator import Pace, RequestFile, Target, answers, build, responder, run
from benchmarks.servers import free_port

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
FAST = Pace(4, seconds=0.3, warm_up=0.0)


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    file = RequestFile(tmp_path / "requests.bin")
    for number in range(10):
        body = b"%d" % number * 50_000
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        file.add((file.blob(head), file.blob(body)))
    return file.write()


def test_without_a_compiler_the_start_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "BINARY", tmp_path / "load")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="need a C compiler"):
        build()


# What follows needs the compiler that benchmarks need; where there is none, the test above is all there is to say.
if COMPILER:

    @pytest.fixture(autouse=True, scope="module")
    def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generator, "OUT", tmp_path_factory.mktemp("load"))
            patch.setattr(generator, "BINARY", generator.OUT / "load")
            build()
            yield

    @contextmanager
    def server(answer: bytes, *, closes: bool = False) -> Iterator[Target]:
        """Answers every request with the same bytes."""

        class Client(StreamRequestHandler):
            def handle(self) -> None:
                # Request line, Host and Content-Length, then the blank line; nothing once the generator has closed.
                while len(lines := [self.rfile.readline() for _ in range(4)]) == 4 and lines[3]:
                    self.rfile.read(int(lines[2].partition(b":")[2]))
                    self.wfile.write(answer)
                    if closes:
                        return

        class Server(ThreadingTCPServer):
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                """The generator closes its connections at the end of a run, in the middle of an answer or not."""

        with Server(("127.0.0.1", 0), Client) as listener:
            thread = Thread(target=listener.serve_forever, args=(0.01,))
            thread.start()
            yield Target(listener.server_address[1])
            listener.shutdown()
            thread.join()

    @pytest.mark.parametrize("grpc", [False, True], ids=["http", "grpc"])
    def test_every_request_is_answered_by_its_own_responder(requests: Path, grpc: bool, tmp_path: Path) -> None:
        with responder(free_port(), answer_bytes=37) as target:
            found = _eventually(Target(target.port, grpc), requests, tmp_path / "answers.bin")
        assert found.failed == 0
        assert found.raw["good_ms"]["count"] == found.raw["statuses"]["200"] > 10
        assert 0 < found.p50 <= found.p99 <= found.max
        sampled = list(answers(tmp_path / "answers.bin"))
        assert len(sampled) == 4
        assert {answer.request for answer in sampled} <= set(range(10))
        assert {len(answer.body) for answer in sampled} == {37 + 5 * grpc}

    def test_an_open_loop_sends_what_is_due(requests: Path) -> None:
        with responder(free_port()) as target:
            _eventually(target, requests, None)
            found = run(target, requests, Pace(8, 0.5, 0.0, rate=200, deadline_ms=10_000))
        assert found.raw["good_ms"]["count"] + found.raw["unsent"] in range(99, 103)
        assert found.raw["in_time_per_second"] == found.raw["answers_per_second"]

    def test_chunked_answers_are_joined(requests: Path, tmp_path: Path) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        with server(head + b"3\r\nabc\r\na;x=1\r\n0123456789\r\n0\r\n\r\n") as target:
            assert run(target, requests, FAST, dump=tmp_path / "answers.bin", samples=1).failed == 0
        assert next(iter(answers(tmp_path / "answers.bin"))).body == b"abc0123456789"

    def test_refusals_are_counted_apart(requests: Path) -> None:
        with server(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy") as target:
            found = run(target, requests, FAST)
        assert found.rps == 0
        assert found.failed == found.raw["statuses"]["503"] > 0

    def test_a_connection_that_ends_after_its_answer_is_replaced(requests: Path) -> None:
        answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        with server(answer, closes=True) as target:
            found = run(target, requests, FAST)
        assert found.failed == 0
        assert found.raw["good_ms"]["count"] > FAST.connections

    def _eventually(target: Target, requests: Path, dump: Path | None) -> generator.Result:
        """A run once the responder listens."""
        for _ in range(500):
            try:
                return run(target, requests, FAST, dump=dump, samples=4)
            except subprocess.CalledProcessError:
                pass
        raise AssertionError("the responder never listened")
