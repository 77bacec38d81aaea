"""SageMaker's doors of one real server: health, predictions in every content type, custom attributes."""

import gzip
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import pytest

from shared.codecs.content.media import KNOWN
from shared.codecs.protobuf.inference_pb2 import ModelInferRequest, ModelInferResponse
from tests.gpu_service.http.wire import HEADER_LENGTH, binary_answer, binary_body, connect, metric, post, waiting
from tests.gpu_service.server import Server, running, wait_until
from tests.models import add_model, identity_model, manifest, slow_model, sum_model, tensor, write_package

PING_SECONDS = 2  # SageMaker gives up on a health check after this long
MAX_BODY = 2_000_000
LONG = {"instances": [[5_000_000]]}  # runs for many seconds, unless nobody waits for it any more
ATTRIBUTES = "X_Amzn_SageMaker_Custom_Attributes"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_package(models / "plus/1", add_model(1))
    write_package(models / "plus/2", add_model(2))
    write_package(models / "sum/1", sum_model())
    write_package(models / "wide/1", identity_model(shape=["n", 1000]))
    tensors = [tensor("x", "FP32", [-1, 1])], [tensor("y", "FP32", [-1, 1])]
    alone = manifest("slow", 1, *tensors, serving={"batching": {"enabled": False}})
    write_package(models / "slow/1", slow_model(), alone)
    limits = {"SLUICE_MAX_BODY_BYTES": str(MAX_BODY), "SLUICE_STUCK_SECONDS": "1", "SLUICE_THREADS": "1"}
    with running(tmp_path_factory.mktemp("log"), SLUICE_MODEL_DIR=str(models), **limits) as server:
        server.wait_for_ping(200)
        yield server


def running_batches(server: Server, count: int) -> None:
    wait_until(lambda: metric(server, "sluice_running_batches", model="slow") == count)


@contextmanager
def busy(server: Server, attributes: str = "model=slow") -> Iterator[None]:
    """The only thread runs something; when it is free again, its caller has gone."""
    running_batches(server, 0)
    with waiting(server, "/invocations", LONG, **{ATTRIBUTES: attributes}):
        running_batches(server, 1)
        yield
    running_batches(server, 0)


def test_execution_parameters(server: Server) -> None:
    document = server.client.get("/execution-parameters").json()
    assert document == {"MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1}


def test_a_stuck_run_fails_the_health_check_until_it_ends(server: Server) -> None:
    with busy(server):
        document = server.wait_for_ping(503)
        assert "slow" in document["reason"]
        assert server.client.get("/v2/health/ready").status_code == 503
        assert server.client.get("/v2/health/live").status_code == 200
        assert metric(server, "sluice_executor_stuck_batches") == 1
    server.wait_for_ping(200)  # the caller has gone: the run is stopped
    assert server.predict({"instances": [[3]]}, "model=slow").json()["predictions"] == [[6]]


def test_the_health_check_answers_in_time_under_full_load(server: Server) -> None:
    """More requests at once than are answered, of models that run inline, in threads, and with megabytes of JSON."""
    stop = Event()
    large = json.dumps({"instances": [[0.123456] * 1000] * 150}).encode()

    def load(body: Any, attributes: str) -> int:
        count = 0
        while not stop.is_set():
            count += server.predict(body, attributes).status_code in (200, 429, 503)
        return count

    with ThreadPoolExecutor(24) as pool:
        callers = [pool.submit(load, {"instances": [[1, 2]]}, "model=plus") for _ in range(12)]
        callers += [pool.submit(load, large, "model=wide") for _ in range(8)]
        callers += [pool.submit(load, {"instances": [[20_000]]}, "model=slow") for _ in range(4)]
        try:
            with httpx.Client(base_url=server.url, timeout=PING_SECONDS, trust_env=False) as client:
                statuses = [client.get("/ping").status_code for _ in range(20)]
                statuses += [httpx.get(f"{server.url}/ping", timeout=PING_SECONDS).status_code for _ in range(5)]
        finally:
            stop.set()
    assert statuses == [200] * 25
    assert all(caller.result() > 0 for caller in callers)


def test_draining_fails_the_health_check_and_answers_what_was_accepted(tmp_path: Path) -> None:
    write_package(tmp_path / "models/slow/1", slow_model())
    with running(tmp_path, SLUICE_MODEL_DIR=str(tmp_path / "models"), SLUICE_THREADS="1") as server:
        server.wait_for_ping(200)
        with waiting(server, "/invocations", {"instances": [[300_000]]}, Connection="close") as caller:
            running_batches(server, 1)
            server.process.terminate()
            assert server.wait_for_ping(503)["reason"] == "The container is stopping."
            answer = caller.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"600000.0" in answer
        assert server.process.wait(timeout=30) == 0


def test_a_model_without_a_name_in_the_request(server: Server) -> None:
    answer = server.predict({"instances": [[1, 2]]})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "4 models" in answer.json()["detail"]


def test_custom_attributes(server: Server) -> None:
    parent = f"00-{'4b' * 16}-{'1f' * 8}-01"
    answer = server.predict(
        {"instances": [[1, 2]]},
        f"model=plus;version=1;deadline-ms=20000;tenant=a%20b;priority=7;traceparent={parent};request-id=one",
    )
    assert answer.json() == {"predictions": [[2, 3]], "model": {"name": "plus", "version": 1}}
    assert answer.headers["x-request-id"] == "one"
    (line,) = wait_until(lambda: [line for line in server.lines() if line.get("request_id") == "one"])
    assert (line["tenant"], line["traceparent"], line["version"]) == ("a b", parent, 1)


def test_attributes_count_before_headers(server: Server) -> None:
    headers = {
        "X_Amzn_SageMaker_Target_Model": "sum",
        "X_Sluice_Deadline_Ms": "0",
        "X_Sluice_Tenant": "other",
        "X_Request_Id": "two",
    }
    answer = server.predict(
        {"instances": [[1, 2]]}, "model=plus;deadline-ms=9000;tenant=mine;request-id=three", **headers
    )
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "three")
    (line,) = wait_until(lambda: [line for line in server.lines() if line.get("request_id") == "three"])
    assert line["tenant"] == "mine"
    target = server.predict({"inputs": {"a": [[1]], "b": [[2]]}}, X_Amzn_SageMaker_Target_Model="sum")
    assert target.json()["model"]["name"] == "sum"


def test_every_answer_has_an_id_of_its_own(server: Server) -> None:
    answers = [server.predict({"instances": [[1, 2]]}, attributes) for attributes in ("model=plus", "model=plus", "")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert answers[2].json()["request_id"] == answers[2].headers["x-request-id"]


@pytest.mark.parametrize(
    "attributes",
    ["model=plus;priority=256", "model=plus;priority=-1", "model=plus;priority=x", "model=plus;version=1e3",
     "model=plus;deadline-ms=1.5", "model=plus;deadline-ms=" + "9" * 30],
)  # fmt: skip
def test_attributes_that_are_no_numbers(server: Server, attributes: str) -> None:
    answer = server.predict({"instances": [[1, 2]]}, f"{attributes};request-id=wrong")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.headers["x-request-id"] == "wrong"


def test_a_deadline_passes_in_the_queue(server: Server) -> None:
    with busy(server):
        answer = server.predict({"instances": [[1]]}, "model=slow;deadline-ms=50")
        assert answer.status_code in (503, 504)
        assert answer.json()["code"] in ("overloaded", "backend_timeout")


def test_priority_decides_who_is_next(server: Server) -> None:
    with ThreadPoolExecutor(2) as pool:
        with busy(server):
            answers = []
            for count, priority in enumerate(("200", "1"), 1):
                attributes = f"model=slow;priority={priority};request-id=priority-{priority}"
                answers.append(pool.submit(server.predict, {"instances": [[1000]]}, attributes))
                wait_until(lambda count=count: metric(server, "sluice_queue_requests", model="slow") == count)
        assert [answer.result().status_code for answer in answers] == [200, 200]

    def finished() -> list[str]:
        ids = [str(line.get("request_id")) for line in server.lines()]
        return [found for found in ids if found.startswith("priority-")]

    assert wait_until(lambda: len(finished()) == 2 and finished()) == ["priority-1", "priority-200"]


Read = Callable[[httpx.Response], Any]


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def protobuf() -> bytes:
    request = ModelInferRequest(id="p", raw_input_contents=[ROWS.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    return request.SerializeToString()


def read_protobuf(answer: httpx.Response) -> Any:
    response = ModelInferResponse.FromString(answer.content)
    assert (response.model_name, response.model_version, response.id) == ("plus", "1", "p")
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(2, 2)


def read_v2_binary(answer: httpx.Response) -> Any:
    return np.frombuffer(binary_answer(answer)[1]["y"], np.float32).reshape(2, 2)


def read_sagemaker_binary(answer: httpx.Response) -> Any:
    length = int(answer.headers["content-type"].rpartition("=")[2])
    return np.frombuffer(answer.content[length:], np.float32).reshape(2, 2)


ROWS = np.array([[1, 2], [3, 4]], np.float32)
BODY, LENGTH = binary_body({"x": ("FP32", [2, 2], ROWS.tobytes())}, parameters={"binary_data_output": True})
TRITON = "application/vnd.sagemaker-triton.binary+json"
BODIES: dict[str, bytes] = {
    "application/json": b'{"instances": [[1, 2], [3, 4]]}',
    "application/json; charset=utf-8": b'{"inputs": {"x": [[1, 2], [3, 4]]}}',
    "text/csv": b"1,2\n3,4\n",
    "application/jsonlines": b"[1, 2]\n[3, 4]\n",
    "application/x-ndjson": b"[1, 2]\r\n[3, 4]",
    "application/x-npy": npy(ROWS),
    "application/x-npz": npz(x=ROWS),
    "application/octet-stream": BODY,
    f"{TRITON};json-header-size={LENGTH}": BODY,
    "application/x-protobuf": protobuf(),
}  # fmt: skip
READERS: dict[str, Read] = {
    "application/json": lambda answer: (
        answer.json().get("predictions") or np.reshape(answer.json()["outputs"][0]["data"], (2, 2))
    ),
    "text/csv": lambda answer: [[float(item) for item in line.split(",")] for line in answer.text.splitlines()],
    "application/jsonlines": lambda answer: [json.loads(line) for line in answer.text.splitlines()],
    "application/x-npy": lambda answer: np.load(io.BytesIO(answer.content), allow_pickle=False),
    "application/x-npz": lambda answer: np.load(io.BytesIO(answer.content), allow_pickle=False)["y"],
    "application/octet-stream": read_v2_binary,
    TRITON: read_sagemaker_binary,
    "application/x-protobuf": read_protobuf,
}


def send(server: Server, content_type: str, accept: str = "") -> httpx.Response:
    headers = {"content-type": content_type, "X-Amzn-SageMaker-Custom-Attributes": "model=plus;version=1"}
    if content_type == "application/octet-stream":
        headers[HEADER_LENGTH] = str(LENGTH)
    if accept:
        headers["accept"] = accept
    return server.client.post("/invocations", content=BODIES[content_type], headers=headers)


@pytest.mark.parametrize("content_type", BODIES)
def test_every_content_type_answers_in_kind(server: Server, content_type: str) -> None:
    own = {"application/x-ndjson": "application/jsonlines"}.get(content_type, content_type.partition(";")[0])
    for accept in ("", "*/*", own):
        answer = send(server, content_type, accept)
        assert answer.status_code == 200, answer.text
        given = answer.headers["content-type"].partition(";")[0]
        np.testing.assert_array_equal(READERS[given](answer), ROWS + 1)
        assert given == own


@pytest.mark.parametrize("accept", READERS)
def test_every_type_can_be_asked_for(server: Server, accept: str) -> None:
    content_type = "application/x-protobuf" if accept == "application/x-protobuf" else "application/json"
    answer = send(server, content_type, f"text/html, {accept};q=0.5")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].partition(";")[0] == accept
    np.testing.assert_array_equal(READERS[accept](answer), ROWS + 1)


def test_what_is_not_known_is_told_with_the_list(server: Server) -> None:
    answer = server.predict(b"x", "model=plus", content_type="text/html")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert all(known in answer.json()["detail"] for known in KNOWN)
    answer = server.predict({"instances": [[1, 2]]}, "model=plus", accept="text/html, image/*")
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    assert all(known in answer.json()["detail"] for known in KNOWN)


def test_pickled_arrays_are_refused(server: Server) -> None:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    answer = server.predict(out.getvalue(), "model=plus", content_type="application/x-npy")
    assert 400 <= answer.status_code < 500


def test_gzip_in_and_out(server: Server) -> None:
    body = gzip.compress(json.dumps({"instances": [[1.5] * 1000] * 3}).encode())
    for _ in range(2):
        answer = server.predict(body, "model=wide", content_encoding="gzip", accept_encoding="gzip")
        assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip")
        assert answer.json()["predictions"] == [[1.5] * 1000] * 3
    small = server.predict({"instances": [[1, 2]]}, "model=plus", accept_encoding="gzip")
    assert "content-encoding" not in small.headers


def test_bombs(server: Server) -> None:
    once = gzip.compress(b" " * (100 * MAX_BODY), 1)
    for body, coding in ((once, "gzip"), (gzip.compress(once), "gzip, gzip")):
        answer = server.predict(body, "model=plus", content_encoding=coding)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    answer = server.predict(b"x", "model=plus", content_encoding="br")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "gzip" in answer.json()["detail"]
    archive = npz(x=np.zeros((1000, 100_000), np.int8))[:1000]
    assert 400 <= server.predict(archive, "model=plus", content_type="application/x-npz").status_code < 500
    assert server.predict({"instances": [[1, 2]]}, "model=plus").status_code == 200


def test_a_caller_that_vanishes_is_not_waited_for(server: Server) -> None:
    """It closes its connection in good order, which looks as if it had only said all."""
    body, attributes = json.dumps(LONG).encode(), "model=slow;request-id=gone"
    with connect(server) as connection:
        connection.sendall(post("/invocations", body, Content_Type="application/json", **{ATTRIBUTES: attributes}))
        running_batches(server, 1)
    running_batches(server, 0)
    (line,) = wait_until(lambda: [line for line in server.lines() if line.get("request_id") == "gone"])
    assert line["code"] == "caller_gone"
    server.wait_for_ping(200)


def test_requests_in_one_segment_are_answered_in_their_order(server: Server) -> None:
    bodies = [json.dumps({"instances": [[count, 0]]}).encode() for count in range(20)]
    headers = {"Content_Type": "application/json", ATTRIBUTES: "model=plus;version=1"}
    with connect(server) as connection:
        last = post("/invocations", bodies[-1], Connection="close", **headers)
        connection.sendall(b"".join(post("/invocations", body, **headers) for body in bodies[:-1]) + last)
        data = connection.makefile("rb").read()
    assert data.count(b"HTTP/1.1 200 OK") == 20
    places = [data.index(b'{"predictions":[[%d.0,1.0]]' % (count + 1)) for count in range(20)]
    assert places == sorted(places)


def test_models_of_an_ordinary_endpoint_can_be_listed_only(server: Server) -> None:
    listed = server.client.get("/models").json()["models"]
    assert {model["modelName"] for model in listed} == {"plus", "sum", "wide", "slow"}
    assert server.client.get("/models/plus").json()["modelUrl"].endswith("/plus")
    assert server.client.get("/models/nothing").status_code == 404
    answer = server.client.post("/models", json={"model_name": "m", "url": "/opt/ml/models/m"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "SAGEMAKER_MULTI_MODEL" in answer.json()["detail"]
    assert server.client.delete("/models/plus").status_code == 400
    answer = server.client.post("/models/sum/invoke", json={"inputs": {"a": [[1]], "b": [[2]]}})
    assert answer.json()["predictions"] == [{"total": [3], "difference": [-1]}]
