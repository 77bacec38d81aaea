"""SageMaker's stateful sessions over HTTP, with recurrent models that carry state."""

import gzip
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from tests.gpu_service.http.wire import fp32, metric, v2, waiting
from tests.gpu_service.server import Server, running, wait_until
from tests.models import add_model, manifest, model, slow_model, tensor, value, write_package

SESSION = "X-Amzn-SageMaker-Session-Id"
NEW = "X-Amzn-SageMaker-New-Session-Id"
CLOSED = "X-Amzn-SageMaker-Closed-Session-Id"
# The pattern that the SageMaker Runtime API has for the header.
API_PATTERN = r"[a-zA-Z0-9](-*[a-zA-Z0-9])*;\sExpires=[0-9]{4}-(0[1-9]|1[0-2])-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"


def recurrent(width: int) -> bytes:
    """`y = x + h`, and `h_out = y` is the next `h`."""
    return model(
        [helper.make_node("Add", ["x", "h"], ["y"]), helper.make_node("Identity", ["y"], ["h_out"])],
        [value("x", TensorProto.FLOAT, ["n", width]), value("h", TensorProto.FLOAT, ["n", width])],
        [value("y", TensorProto.FLOAT, ["n", width]), value("h_out", TensorProto.FLOAT, ["n", width])],
    )


def slow_recurrent() -> bytes:
    """The same after counting as far as the slow model does."""
    slow = onnx.load_from_string(slow_model())
    slow.graph.node[-1].output[0] = "counted"
    slow.graph.node.append(helper.make_node("Add", ["counted", "h"], ["y"]))
    slow.graph.node.append(helper.make_node("Identity", ["y"], ["h_out"]))
    slow.graph.input.append(value("h", TensorProto.FLOAT, ["n", 1]))
    slow.graph.output.append(value("h_out", TensorProto.FLOAT, ["n", 1]))
    return bytes(slow.SerializeToString())


def package(folder: Path, name: str, graph: bytes, width: int) -> None:
    state = [{"input": "h", "output": "h_out", "dtype": "FP32", "shape": [-1, width]}]
    tensors = [tensor("x", "FP32", [-1, width])], [tensor("y", "FP32", [-1, width])]
    write_package(folder / f"{name}/1", graph, manifest(name, 1, *tensors, serving={"state": state}))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    package(models, "sum", recurrent(2), 2)
    package(models, "slow", slow_recurrent(), 1)
    package(models, "leaves", recurrent(2), 2)
    write_package(models / "plain/1", add_model())
    limits = {"SLUICE_MAX_BODY_BYTES": "100000"}
    with running(tmp_path_factory.mktemp("log"), SLUICE_MODEL_DIR=str(models), **limits) as server:
        server.wait_for_ping(200)
        yield server


def call(server: Server, session: str, body: Any, attributes: str = "model=sum", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    all_headers = {
        SESSION: session,
        "X-Amzn-SageMaker-Custom-Attributes": attributes,
        "Content-Type": "application/json",
    }
    return server.client.post("/invocations", content=content, headers=all_headers | headers)


def rows(*values: float) -> dict[str, Any]:
    return {"instances": [[value, value] for value in values]}


def opened(server: Server, body: Any = None, attributes: str = "model=sum") -> str:
    answer = call(server, "NEW_SESSION", rows(1) if body is None else body, attributes)
    assert answer.status_code == 200, answer.text
    return answer.headers[NEW].partition(";")[0]


def predictions(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    assert NEW not in answer.headers
    return answer.json()["predictions"]


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert NEW not in answer.headers


def test_a_session_carries_its_state(server: Server) -> None:
    first = call(server, "NEW_SESSION", rows(1, 10))
    assert first.json()["predictions"] == [[1, 1], [10, 10]]
    header = first.headers[NEW]
    assert re.fullmatch(API_PATTERN, header)
    session, _, ends = header.partition("; Expires=")
    left = datetime.strptime(ends, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(minutes=15) < left <= timedelta(minutes=20)
    assert predictions(call(server, session, rows(1, 10))) == [[2, 2], [20, 20]]
    assert predictions(call(server, session, rows(5, 5))) == [[7, 7], [25, 25]]


def test_sessions_do_not_mix(server: Server) -> None:
    sessions = [opened(server, rows(start)) for start in range(8)]
    assert len(set(sessions)) == 8
    for start, session in enumerate(sessions):
        assert predictions(call(server, session, rows(100))) == [[100 + start] * 2]


def test_every_format_goes_on_from_the_same_state(server: Server) -> None:
    session = opened(server, b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}')
    csv = call(server, session, b"1,1\n", **{"Content-Type": "text/csv"})
    assert csv.text.split() == ["2.0,3.0"]
    packed = call(server, session, gzip.compress(json.dumps(rows(1)).encode()), **{"Content-Encoding": "gzip"})
    assert predictions(packed) == [[3, 4]]
    lines = call(server, session, rows(1), Accept="application/jsonlines")
    assert lines.text == "[4.0,5.0]\n"
    chosen = (
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}], "outputs": [{"name": "y"}]}'
    )
    assert call(server, session, chosen).json()["outputs"][0]["data"] == [4, 5]


def test_the_state_is_nobody_elses_business(server: Server) -> None:
    metadata = server.client.get("/v2/models/sum").json()
    assert [tensor["name"] for tensor in metadata["inputs"] + metadata["outputs"]] == ["x", "y"]
    refused(call(server, opened(server), {"inputs": {"x": [[1, 1]], "h": [[1, 1]]}}), 422, "unknown_field")


def test_without_a_session_there_is_no_state(server: Server) -> None:
    for _ in range(2):
        assert server.predict(rows(3), "model=sum").json()["predictions"] == [[3, 3]]


def test_close(server: Server) -> None:
    session = opened(server)
    answer = call(server, session, {"requestType": "CLOSE"})
    assert (answer.status_code, answer.headers[CLOSED]) == (200, session)
    refused(call(server, session, rows(1)), 404, "session_not_found")
    refused(call(server, session, {"requestType": "CLOSE"}), 404, "session_not_found")
    refused(call(server, "NEW_SESSION", {"requestType": "CLOSE"}), 404, "session_not_found")


def test_a_session_may_be_opened_without_a_prediction(server: Server) -> None:
    session = opened(server, {"requestType": "NEW_SESSION"})
    assert predictions(call(server, session, rows(4))) == [[4, 4]]
    assert predictions(call(server, session, rows(4))) == [[8, 8]]


def test_sessions_belong_to_their_tenant_and_model(server: Server) -> None:
    session = opened(server, attributes="model=sum;tenant=mine")
    for attributes in ("model=sum;tenant=other", "model=sum"):
        refused(call(server, session, rows(1), attributes), 404, "session_not_found")
        refused(call(server, session, {"requestType": "CLOSE"}, attributes), 404, "session_not_found")
    refused(call(server, session, {"instances": [[1]]}, "model=slow;tenant=mine"), 404, "session_not_found")
    assert predictions(call(server, session, rows(1), "model=sum;tenant=mine")) == [[2, 2]]


@pytest.mark.parametrize("session", ["x", "0" * 64, "NEW_SESSION2", "new_session", "a" * 5000])
def test_unknown_sessions(server: Server, session: str) -> None:
    refused(call(server, session, rows(1)), 404, "session_not_found")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"instances": [[1, 2, 3]]}, 422, "wrong_shape"),
        (b'{"instances": [[1, NaN]]}', 422, "not_finite"),
        (v2([fp32([1, 2], [1, 2])], outputs=[{"name": "h_out"}]), 422, "unknown_field"),
        (b"{", 400, "not_json"),
    ],
)
def test_an_error_leaves_no_session_behind_and_the_state_as_it_was(
    server: Server, body: Any, status: int, code: str
) -> None:
    refused(call(server, "NEW_SESSION", body), status, code)
    session = opened(server)
    refused(call(server, session, body), status, code)
    assert predictions(call(server, session, rows(1))) == [[2, 2]]


def test_headers_that_are_wrong(server: Server) -> None:
    session = opened(server)
    refused(call(server, session, rows(1), "model=sum;priority=x"), 400, "invalid_request")
    refused(call(server, session, b"x", **{"Content-Type": "text/html"}), 415, "unsupported_media_type")
    refused(call(server, session, rows(1), Accept="text/html"), 406, "not_acceptable")
    refused(call(server, session, b"x" * 50, **{"Content-Encoding": "gzip"}), 400, "invalid_request")
    assert predictions(call(server, session, rows(1))) == [[2, 2]]


def test_the_rows_of_a_session_stay_the_same(server: Server) -> None:
    session = opened(server, rows(1, 2))
    refused(call(server, session, rows(1)), 422, "wrong_shape")
    assert predictions(call(server, session, rows(1, 1))) == [[2, 2], [3, 3]]


def test_one_request_at_a_time_and_one_whose_caller_has_gone_changes_nothing(server: Server) -> None:
    session = opened(server, {"instances": [[2]]}, "model=slow")
    headers = {SESSION: session, "X_Amzn_SageMaker_Custom_Attributes": "model=slow"}
    with waiting(server, "/invocations", {"instances": [[5_000_000]]}, **headers):
        wait_until(lambda: metric(server, "sluice_running_batches", model="slow") == 1)
        refused(call(server, session, {"instances": [[1]]}, "model=slow"), 409, "session_busy")
        refused(call(server, session, {"requestType": "CLOSE"}, "model=slow"), 409, "session_busy")
    wait_until(lambda: metric(server, "sluice_running_batches", model="slow") == 0)
    assert predictions(call(server, session, {"instances": [[3]]}, "model=slow")) == [[6 + 4]]


def test_an_unloaded_model_takes_its_sessions_along(server: Server) -> None:
    sessions = [opened(server, rows(1), "model=leaves") for _ in range(3)]
    count, size = metric(server, "sluice_sessions"), metric(server, "sluice_session_bytes")
    other = opened(server)
    assert server.client.post("/v2/repository/models/leaves/unload").status_code == 200
    assert metric(server, "sluice_sessions") == count - 2
    assert metric(server, "sluice_session_bytes") == size - 2 * len(rows(1)["instances"][0]) * 4
    refused(call(server, sessions[0], rows(1), "model=leaves"), 503, "model_unavailable")
    assert server.client.post("/v2/repository/models/leaves/load").status_code == 200
    for session in sessions:
        refused(call(server, session, rows(1), "model=leaves"), 404, "session_not_found")
    assert predictions(call(server, opened(server, rows(1), "model=leaves"), rows(1), "model=leaves")) == [[2, 2]]
    assert predictions(call(server, other, rows(1))) == [[2, 2]]


def test_a_model_without_state_has_sessions_too(server: Server) -> None:
    session = opened(server, rows(1), "model=plain")
    assert predictions(call(server, session, rows(1), "model=plain")) == [[2, 2]]
