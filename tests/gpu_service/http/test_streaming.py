"""Answers that begin before they are whole, on raw sockets: what comes when, and how it ends when it fails."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest

from tests.gpu_service.http.wire import connect, metric, post, read_all
from tests.gpu_service.server import Server, running, wait_until
from tests.models import add_model, gather_model, slow_model, sum_model, write_package

LINES = "application/jsonlines"
NEVER = 5_000_000  # makes the slow model run for many seconds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_package(models / "plus/1", add_model(1))
    write_package(models / "sum/1", sum_model())
    write_package(models / "slow/1", slow_model())
    write_package(models / "gather/1", gather_model())
    with running(tmp_path_factory.mktemp("log"), SLUICE_MODEL_DIR=str(models), SLUICE_THREADS="2") as server:
        server.wait_for_ping(200)
        yield server


def request(model: str, instances: Sequence[Any], **headers: str) -> bytes:
    headers = {
        "Content_Type": "application/json",
        "Accept": LINES,
        "X_Amzn_SageMaker_Custom_Attributes": f"model={model}",
    } | headers
    return post("/invocations", json.dumps({"instances": instances}).encode(), **headers)


def stream(server: Server, model: str, body: Any, **headers: str) -> httpx.Response:
    return server.predict(body, f"model={model}", accept=LINES, **headers)


def test_lines_come_in_chunks_and_in_order(server: Server) -> None:
    instances = [[row, -row] for row in range(500)]
    headers = {"accept": LINES, "X-Amzn-SageMaker-Custom-Attributes": "model=plus;request-id=whole"}
    with server.client.stream("POST", "/invocations", json={"instances": instances}, headers=headers) as answer:
        chunks = list(answer.iter_raw())
    assert (answer.status_code, answer.headers["transfer-encoding"]) == (200, "chunked")
    assert (answer.headers["content-type"], answer.headers["x-request-id"]) == (LINES, "whole")
    assert [json.loads(line) for line in b"".join(chunks).splitlines()] == [[x + 1, y + 1] for x, y in instances]
    assert server.client.get("/ping").status_code == 200  # the connection goes on


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65])
def test_any_number_of_rows(server: Server, count: int) -> None:
    body = "".join(f"[{row},0]\n" for row in range(count)).encode()
    answer = stream(server, "plus", body, content_type=LINES)
    assert [json.loads(line) for line in answer.text.splitlines()] == [[row + 1, 1] for row in range(count)]
    assert ("transfer-encoding" in answer.headers) == (count > 32)


def test_it_is_counted_and_logged_as_one_request(server: Server) -> None:
    before = metric(server, "sluice_requests_total", model="plus", code="ok")
    answer = server.predict({"instances": [[1, 1]] * 100}, "model=plus;request-id=counted;tenant=t", accept=LINES)
    assert len(answer.text.splitlines()) == 100
    assert metric(server, "sluice_requests_total", model="plus", code="ok") == before + 1
    (line,) = wait_until(lambda: [line for line in server.lines() if line.get("request_id") == "counted"])
    assert (line["rows"], line["tenant"], line["status"], line["model"]) == (100, "t", 200, "plus")


def test_v2_requests_and_chosen_outputs(server: Server) -> None:
    tensors = [{"name": name, "datatype": "FP32", "shape": [40, 1], "data": list(range(40))} for name in ("a", "b")]
    answer = stream(server, "sum", {"inputs": tensors, "outputs": [{"name": "total"}]})
    assert [json.loads(line) for line in answer.text.splitlines()] == [[2 * row] for row in range(40)]


def test_the_first_line_comes_before_the_last_is_computed_and_a_caller_that_goes_stops_the_rest(
    server: Server,
) -> None:
    with connect(server) as connection:
        connection.sendall(request("slow", [[1]] * 480 + [[NEVER]] * 20))
        data = b""
        while b"\r\n\r\n" not in data or b"\n" not in data.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2]:
            chunk = connection.recv(65536)
            assert chunk
            data += chunk
        assert b"[2.0]" in data
        wait_until(lambda: metric(server, "sluice_running_batches", model="slow") >= 1)
    wait_until(lambda: metric(server, "sluice_running_batches", model="slow") == 0)
    assert metric(server, "sluice_queue_requests") == 0
    wait_until(lambda: metric(server, "sluice_requests_total", model="slow", code="caller_gone") == 1)
    wait_until(lambda: metric(server, "sluice_requests_in_flight") == 1)  # the one that asks
    assert stream(server, "slow", {"instances": [[2]] * 40}).text == "[4.0]\n" * 40


def test_a_caller_that_goes_before_the_first_line(server: Server) -> None:
    before = metric(server, "sluice_requests_total", model="slow", code="caller_gone")
    with connect(server) as connection:
        connection.sendall(request("slow", [[NEVER]] * 200))
        wait_until(lambda: metric(server, "sluice_running_batches", model="slow") >= 1)
    wait_until(lambda: metric(server, "sluice_running_batches", model="slow") == 0)
    wait_until(lambda: metric(server, "sluice_requests_total", model="slow", code="caller_gone") == before + 1)


@pytest.mark.parametrize(
    ("model", "rows", "status", "code", "place"),
    [
        ("plus", [[1, 1]] * 5 + [[1, None]] + [[1, 1]] * 100, 422, "wrong_dtype", "/instances/5"),
        ("plus", [[1, 1, 1]] * 100, 422, "wrong_shape", ""),
        ("plus", [[1, 1]] * 2000, 413, "batch_too_large", ""),
        ("gather", [7] * 100, 400, "invalid_request", ""),
    ],
)
def test_an_error_before_the_first_line_is_a_problem_document(
    server: Server, model: str, rows: Sequence[Any], status: int, code: str, place: str
) -> None:
    answer = stream(server, model, {"instances": rows})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert place in answer.text


def test_a_deadline_that_has_passed_is_a_problem_document(server: Server) -> None:
    answer = server.predict({"instances": [[1]] * 100}, "model=slow;deadline-ms=0", accept=LINES)
    assert (answer.status_code, answer.json()["code"]) == (504, "backend_timeout")


def test_the_deadline_is_that_of_the_whole_answer(server: Server) -> None:
    """Each piece alone would be in time."""
    headers = {"X_Amzn_SageMaker_Custom_Attributes": "model=slow;deadline-ms=600", "Connection": "close"}
    with connect(server) as connection:
        connection.sendall(request("slow", [[60_000]] * 1000, **headers))
        data = read_all(connection)
    lines = re.findall(rb"\[120000\.0\]", data)
    assert len(lines) < 1000
    assert not data.endswith(b"0\r\n\r\n")


def test_an_error_later_leaves_the_answer_without_its_end(server: Server) -> None:
    """The lines before are whole, and nobody can take the answer for whole."""
    rows = [0] * 450 + [7] + [0] * 49
    with connect(server) as connection:
        connection.sendall(request("gather", rows))
        data = read_all(connection)
    head, _, chunks = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"Transfer-Encoding: chunked" in head
    assert not chunks.endswith(b"0\r\n\r\n")
    assert len(re.findall(rb"\[0\.0,1\.0\]", chunks)) == 448  # the pieces before the one that failed
    with pytest.raises(httpx.RemoteProtocolError):
        stream(server, "gather", {"instances": rows})
    assert server.predict({"instances": [1]}, "model=gather").json()["predictions"] == [[2, 3]]


def test_older_clients_get_the_answer_in_one_piece(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(request("plus", [[1, 1]] * 100).replace(b"HTTP/1.1", b"HTTP/1.0"))
        data = read_all(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"Content-Length: 1000" in head
    assert body == b"[2.0,2.0]\n" * 100


def test_many_streams_at_once_keep_their_rows(server: Server) -> None:
    connections = [connect(server) for _ in range(8)]
    for number, connection in enumerate(connections):
        connection.sendall(request("plus", [[number, row] for row in range(200)], Connection="close"))
    for number, connection in enumerate(connections):
        data = read_all(connection)
        found = re.findall(rb"\[(\d+)\.0,(\d+)\.0\]", data)
        assert found == [(b"%d" % (number + 1), b"%d" % (row + 1)) for row in range(200)]
        connection.close()
