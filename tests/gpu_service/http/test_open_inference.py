"""The Open Inference Protocol over REST: every route, as any HTTP client sends it."""

import gzip
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from shared.domain.dtypes import DType
from tests.gpu_service.http.wire import DTYPES, HEADER_LENGTH, binary_answer, binary_body, fp32, metric, raw_strings, v2
from tests.gpu_service.server import Server, running, wait_until
from tests.models import add_model, gather_model, identity_model, matmul_model, sum_model, text_package, write_package

Models = tuple[Server, Path]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    models = tmp_path_factory.mktemp("models")
    for version in (1, 2, 10):
        write_package(models / f"plus/{version}", add_model(version))
    write_package(models / "sum/1", sum_model())
    write_package(models / "gather/1", gather_model())
    text_package(models / "texts/1")
    for dtype in DType:
        write_package(models / f"same-{dtype.lower()}/1", identity_model(dtype, ["n", 2]))
    with running(
        tmp_path_factory.mktemp("log"), SLUICE_MODEL_DIR=str(models), SLUICE_MAX_BODY_BYTES="200000"
    ) as server:
        server.wait_for_ping(200)
        yield server, models


@pytest.fixture
def server(started: Models) -> Server:
    return started[0]


def infer(server: Server, model: str, document: Any, **headers: str) -> Any:
    answer = server.client.post(f"/v2/models/{model}/infer", json=document, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def refused(server: Server, path: str, status: int, **request: Any) -> str:
    """The text of an error, which is where the protocol wants it."""
    answer = server.client.post(path, **request)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert isinstance(error, str)
    assert "Traceback" not in error
    return error


def test_server_metadata_and_health(server: Server) -> None:
    document = server.client.get("/v2").json()
    assert document["name"] == "sluice"
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(document["extensions"])
    assert server.client.get("/v2/").json() == document
    assert server.client.get("/v2/health/live").json() == {"live": True}
    assert server.client.get("/v2/health/ready").json() == {"ready": True}
    assert server.client.head("/v2/health/ready").content == b""


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("plus", 200),
        ("plus/versions/2", 200),
        ("plus/versions/3", 503),
        ("nothing", 503),
        ("plus/versions/one", 404),
    ],
)
def test_readiness_of_a_model(server: Server, path: str, status: int) -> None:
    assert server.client.get(f"/v2/models/{path}/ready").status_code == status


def test_model_metadata(server: Server) -> None:
    document = server.client.get("/v2/models/sum").json()
    assert document == {
        "name": "sum",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": name, "datatype": "FP32", "shape": [-1, -1]} for name in ("a", "b")],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, -1]} for name in ("total", "difference")],
    }
    assert server.client.get("/v2/models/plus/versions/2").json()["versions"] == ["1", "2", "10"]


@pytest.mark.parametrize("tail", ["", "/config", "/stats"])
def test_what_is_not_there_is_404(server: Server, tail: str) -> None:
    for path in ("nothing", "plus/versions/3", "plus/versions/0", "plus/versions/%2e%2e"):
        answer = server.client.get(f"/v2/models/{path}{tail}")
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]


def test_model_config(server: Server) -> None:
    document = server.client.get("/v2/models/plus/config").json()
    assert document["name"] == "plus"
    assert document["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}]
    assert document["max_batch_size"] > 1
    assert server.client.get("/v2/models/texts/config").json()["input"][0]["data_type"] == "TYPE_STRING"


def test_versions(server: Server) -> None:
    document = v2([fp32([0, 0], [1, 2])])
    assert infer(server, "plus", document)["outputs"][0]["data"] == [10, 10]
    for version in ("1", "2", "10"):
        answer = infer(server, f"plus/versions/{version}", document)
        assert (answer["model_version"], answer["outputs"][0]["data"]) == (version, [float(version)] * 2)
    refused(server, "/v2/models/plus/versions/3/infer", 404, json=document)
    refused(server, "/v2/models/plus/versions/-1/infer", 404, json=document)


def test_the_path_wins_over_attributes(server: Server) -> None:
    answer = infer(
        server,
        "plus/versions/2",
        v2([fp32([0, 0], [1, 2])]),
        **{"X-Amzn-SageMaker-Custom-Attributes": "model=sum;version=1"},
    )
    assert (answer["model_name"], answer["model_version"]) == ("plus", "2")


SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False, False, True],
    "UINT8": [0, 1, 2, 255],
    "UINT16": [0, 1, 2, 65535],
    "UINT32": [0, 1, 2, 2**32 - 1],
    "UINT64": [0, 1, 2, 2**64 - 1],
    "INT8": [-128, 0, 1, 127],
    "INT16": [-(2**15), 0, 1, 2**15 - 1],
    "INT32": [-(2**31), 0, 1, 2**31 - 1],
    "INT64": [-(2**63), 0, 2**53 + 1, 2**63 - 1],
    "FP16": [0.0, -1.5, 65504.0, 0.25],
    "BF16": [0.0, -1.5, 3.0, 0.25],
    "FP32": [0.0, -1.5, 3.25, 1e30],
    "FP64": [0.0, -1.5, 3.25, 1e300],
    "BYTES": ["", "a", "ÄÖ", "\U0001f600"],
}


def raw_sample(dtype: str) -> bytes:
    if dtype == "BYTES":
        return raw_strings([text.encode() for text in SAMPLES[dtype]])
    if dtype == "BF16":
        return np.array(SAMPLES[dtype], ml_dtypes.bfloat16).tobytes()
    return np.array(SAMPLES[dtype], DTYPES[dtype]).tobytes()


@pytest.mark.parametrize("dtype", [str(dtype) for dtype in DType])
def test_every_dtype_as_json_and_as_binary(server: Server, dtype: str) -> None:
    url = f"/v2/models/same-{dtype.lower()}/infer"
    body, length = binary_body(
        {"x": (dtype, [2, 2], raw_sample(dtype))}, outputs=[{"name": "y", "parameters": {"binary_data": True}}]
    )
    for _ in range(2):  # the second is one that the server has seen before
        answer = server.client.post(url, content=body, headers={HEADER_LENGTH: str(length)})
        document, raw = binary_answer(answer)
        assert raw == {"y": raw_sample(dtype)}
        assert document["outputs"][0] | {"parameters": None} == {
            "name": "y",
            "datatype": dtype,
            "shape": [2, 2],
            "parameters": None,
        }
        entry = {"name": "x", "datatype": dtype, "shape": [2, 2], "data": SAMPLES[dtype]}
        output = infer(server, f"same-{dtype.lower()}", v2([entry]))["outputs"][0]
        assert output == {"name": "y", "datatype": dtype, "shape": [2, 2], "data": SAMPLES[dtype]}
        nested = entry | {"data": [SAMPLES[dtype][:2], SAMPLES[dtype][2:]]}
        assert infer(server, f"same-{dtype.lower()}", v2([nested]))["outputs"][0] == output


def test_id_and_parameters(server: Server) -> None:
    document = v2([fp32([1, 2], [1, 2])], id="a-7", parameters={"priority": 1, "timeout": 10_000_000, "own": "x"})
    answer = infer(server, "plus", document)
    assert answer["id"] == "a-7"
    assert "id" not in infer(server, "plus", v2([fp32([1, 2], [1, 2])]))
    assert infer(server, "plus", v2([fp32([1, 2], [1, 2])], id='q"\\\n'))["id"] == 'q"\\\n'
    refused_ones: list[Any] = [{"priority": -1}, {"timeout": "soon"}, {"priority": 1.5}, {"binary_data_output": 3}, []]
    for parameters in refused_ones:
        refused(server, "/v2/models/plus/infer", 422, json=v2([fp32([1, 2], [1, 2])], parameters=parameters))


def test_requested_outputs_json_and_binary_mixed(server: Server) -> None:
    tensors = {
        "a": ("FP32", [1, 1], np.array([5], np.float32).tobytes()),
        "b": ("FP32", [1, 1], np.array([2], np.float32).tobytes()),
    }
    wanted = [{"name": "difference", "parameters": {"binary_data": True}}, {"name": "total"}]
    body, length = binary_body(tensors, outputs=wanted)
    document, raw = binary_answer(
        server.client.post("/v2/models/sum/infer", content=body, headers={HEADER_LENGTH: str(length)})
    )
    assert [output["name"] for output in document["outputs"]] == ["difference", "total"]
    assert raw == {"difference": np.array([3], np.float32).tobytes()}
    assert document["outputs"][1]["data"] == [7]
    body, length = binary_body(tensors, parameters={"binary_data_output": True})
    document, raw = binary_answer(
        server.client.post("/v2/models/sum/infer", content=body, headers={HEADER_LENGTH: str(length)})
    )
    assert raw.keys() == {"total", "difference"}
    refused(
        server,
        "/v2/models/sum/infer",
        422,
        json=v2([fp32([1], [1, 1], "a"), fp32([1], [1, 1], "b")], outputs=[{"name": "nothing"}]),
    )


def test_an_input_may_be_json_beside_a_binary_one(server: Server) -> None:
    raw = np.array([[1, 2]], np.float32).tobytes()
    header = v2(
        [
            fp32([[3, 4]], [1, 2], "b"),
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": len(raw)}},
        ]
    )
    head = json.dumps(header).encode()
    answer = server.client.post(
        "/v2/models/sum/infer", content=head + raw, headers={HEADER_LENGTH: str(len(head))}
    ).json()
    assert [output["data"] for output in answer["outputs"]] == [[4, 6], [-2, -2]]


def test_text_as_bytes(server: Server) -> None:
    body, length = binary_body({"text": ("BYTES", [2], raw_strings([b"one", b"two three"]))})
    answer = server.client.post("/v2/models/texts/infer", content=body, headers={HEADER_LENGTH: str(length)}).json()
    assert answer["outputs"][0]["data"] == [1, 4, 2, 0, 1, 1, 1, 0, 1, 5, 6, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compression_both_ways(server: Server, coding: str) -> None:
    rows = 600
    document = v2([fp32([1.0] * 2 * rows, [rows, 2])])
    pack = gzip.compress if coding == "gzip" else zlib.compress
    headers = {"content-type": "application/json", "content-encoding": coding, "accept-encoding": coding}
    for _ in range(2):
        answer = server.client.post(
            "/v2/models/plus/infer", content=pack(json.dumps(document).encode()), headers=headers
        )
        assert (answer.status_code, answer.headers["content-encoding"]) == (200, coding)
        assert answer.headers["vary"] == "Accept-Encoding"
        assert answer.json()["outputs"][0]["data"] == [11.0] * 2 * rows
    body, length = binary_body({"x": ("FP32", [rows, 2], b"\0" * 8 * rows)}, parameters={"binary_data_output": True})
    answer = server.client.post(
        "/v2/models/plus/infer", content=pack(body), headers=headers | {HEADER_LENGTH: str(length)}
    )
    assert answer.headers["content-encoding"] == coding
    assert binary_answer(answer)[1]["y"] == np.full(2 * rows, 10, np.float32).tobytes()


def test_compressed_bodies_that_are_wrong(server: Server) -> None:
    url, document = "/v2/models/plus/infer", json.dumps(v2([fp32([1, 2], [1, 2])])).encode()
    packed = gzip.compress(document)
    for body, coding, status in (
        (document, "gzip", 400),
        (packed[:-9], "gzip", 400),
        (packed, "deflate", 400),
        (packed + b"more", "gzip", 400),
        (gzip.compress(b" " * 10_000_000), "gzip", 413),
        (packed, "br", 415),
        (packed, "gzip, gzip, gzip, gzip", 415),
    ):
        error = refused(server, url, status, content=body, headers={"content-encoding": coding})
        assert error
    assert infer(server, "plus", json.loads(document))["outputs"][0]["data"] == [11, 12]


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (b"", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"inputs": []}', 422),
        (b'{"inputs": [3]}', 422),
        (v2([fp32([1, 2], [1, 2], "z")]), 422),
        (v2([fp32([1, 2], [1, 2]), fp32([1, 2], [1, 2])]), 422),
        (v2([fp32([1, 2], [2, 2])]), 422),
        (v2([fp32([1, 2, 3], [1, 3])]), 422),
        (v2([fp32([1, 2], [1, -2])]), 422),
        (v2([fp32([1, 2], [2**62, 2**62])]), 422),
        (v2([fp32([1, "a"], [1, 2])]), 422),
        (v2([fp32([1, 2], [1, 2]) | {"datatype": "INT64"}]), 422),
        (v2([fp32([1, 2], [1, 2]) | {"datatype": "FP31"}]), 422),
        (v2([fp32([[1], [2, 3]], [1, 2])]), 422),
        (v2([{"name": "x", "datatype": "FP32", "shape": [1, 2]}]), 422),
        (v2([{"name": "x", "datatype": "FP32", "data": [1, 2]}]), 422),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, NaN]}]}', 422),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 1e999]}]}', 422),
        (v2([fp32([], [0, 2])]), 422),
        (b'{"id": ' + b"[" * 200 + b"]" * 200 + b"}", 400),
        (v2([fp32([1, 2], [1, 2])], id=7), 422),
        (v2([fp32([1, 2], [1, 2])], outputs="y"), 422),
    ],
)
def test_documents_that_are_wrong(server: Server, document: Any, status: int) -> None:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    refused(server, "/v2/models/plus/infer", status, content=content, headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("size", "shape", "raw", "length"),
    [
        (8, [1, 2], 7, None),
        (8, [1, 2], 9, None),
        (7, [1, 2], 7, None),
        (16, [1, 2], 16, None),
        (-8, [1, 2], 8, None),
        (2**70, [1, 2], 8, None),
        ("8", [1, 2], 8, None),
        (8, [1, -2], 8, None),
        (8, [2**31, 2**31], 8, None),
        (8, [1, 2], 8, "0"),
        (8, [1, 2], 8, "99999"),
        (8, [1, 2], 8, "-1"),
        (8, [1, 2], 8, "ten"),
    ],
)
def test_binary_lengths_that_lie(server: Server, size: Any, shape: list[int], raw: int, length: str | None) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}
    head = json.dumps(v2([entry])).encode()
    headers = {HEADER_LENGTH: str(len(head)) if length is None else length}
    answer = server.client.post("/v2/models/plus/infer", content=head + b"\0" * raw, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "raw", [b"\1\0\0\0", b"\xff\xff\xff\xffa", b"\2\0\0\0a", b"\1\0\0\0a\1\0\0\0b\0", b"\0\0\0", b"\1\0\0\0a"]
)
def test_strings_whose_lengths_lie(server: Server, raw: bytes) -> None:
    body, length = binary_body({"x": ("BYTES", [1, 2], raw)})
    refused(server, "/v2/models/same-bytes/infer", 422, content=body, headers={HEADER_LENGTH: str(length)})


def test_a_media_type_that_is_not_read(server: Server) -> None:
    assert "application/json" in refused(
        server, "/v2/models/plus/infer", 415, content=b"1,2", headers={"content-type": "text/csv"}
    )
    document = json.dumps(v2([fp32([1, 2], [1, 2])])).encode()
    for kind in ("application/json; charset=utf-8", "application/octet-stream", "application/x-www-form-urlencoded"):
        answer = server.client.post("/v2/models/plus/infer", content=document, headers={"content-type": kind})
        assert answer.status_code == 200
    assert "application/json" in refused(
        server, "/v2/models/plus/infer", 406, content=document, headers={"accept": "text/html"}
    )


def test_a_failing_row_fails_alone(server: Server) -> None:
    def gather(index: int) -> int:
        entry = {"name": "x", "datatype": "INT64", "shape": [1], "data": [index]}
        return server.client.post("/v2/models/gather/infer", json=v2([entry])).status_code

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(gather, [0, 99, 1, 2, 99, 0, 1, 2] * 4)) == [200, 400, 200, 200, 400, 200, 200, 200] * 4


def test_statistics(server: Server) -> None:
    before = server.client.get("/v2/models/sum/stats").json()["model_stats"][0]
    document = v2([fp32([1, 2], [2, 1], "a"), fp32([1, 2], [2, 1], "b")])
    for _ in range(3):
        infer(server, "sum", document)
    refused(server, "/v2/models/sum/infer", 422, json=v2([]))
    after = server.client.get("/v2/models/sum/versions/1/stats").json()["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 3
    assert after["inference_stats"]["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    everything = server.client.get("/v2/models/stats").json()["model_stats"]
    assert {(row["name"], row["version"]) for row in everything} >= {("sum", "1"), ("plus", "1"), ("plus", "10")}


def test_index(server: Server) -> None:
    rows = server.client.post("/v2/repository/index").json()
    assert {"name": "plus", "version": "2", "state": "READY", "reason": ""} in rows
    assert all(
        row["state"] == "READY" for row in server.client.post("/v2/repository/index", json={"ready": True}).json()
    )


def test_load_and_unload(started: Models) -> None:
    server, models = started
    document = v2([fp32([0, 0], [1, 2])])
    assert "later" in refused(server, "/v2/repository/models/later/load", 404)
    write_package(models / "later/1", add_model(3))
    answer = server.client.post("/v2/repository/models/later/load")
    assert (answer.status_code, answer.content) == (200, b"")
    assert infer(server, "later", document)["outputs"][0]["data"] == [3, 3]
    answer = server.client.post("/v2/repository/models/later/unload", json={"parameters": {"unload_dependents": True}})
    assert (answer.status_code, answer.content) == (200, b"")
    refused(server, "/v2/models/later/infer", 503, json=document)
    assert server.client.get("/v2/models/later/ready").status_code == 503
    (row,) = [row for row in server.client.post("/v2/repository/index").json() if row["name"] == "later"]
    assert (row["state"], row["reason"]) == ("UNAVAILABLE", "unloaded")
    assert server.client.post("/v2/repository/models/later/load", json={}).status_code == 200
    assert infer(server, "later", document)["outputs"][0]["data"] == [3, 3]
    refused(server, "/v2/repository/models/nothing/unload", 404)


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize(
    ("body", "status"), [(b"[1]", 422), (b"{", 400), (b'{"parameters": [1]}', 422), (b'{"parameters": "x"}', 422)]
)
def test_control_documents_that_are_wrong(server: Server, verb: str, body: bytes, status: int) -> None:
    refused(server, f"/v2/repository/models/plus/{verb}", status, content=body)
    assert server.client.get("/v2/models/plus/ready").status_code == 200


def test_a_load_takes_no_configuration(server: Server) -> None:
    error = refused(server, "/v2/repository/models/plus/load", 400, json={"parameters": {"config": "{}"}})
    assert "config" in error


def test_shared_memory_is_refused_and_clean_up_is_not(server: Server) -> None:
    for kind in ("system", "cuda"):
        base = f"/v2/{kind}sharedmemory"
        assert server.client.get(f"{base}/status").json() == []
        assert server.client.get(f"{base}/region/r/status").status_code == 404
        assert "shared memory" in refused(
            server, f"{base}/region/r/register", 400, json={"key": "/r", "offset": 0, "byte_size": 8}
        )
        for path in (f"{base}/region/r/unregister", f"{base}/unregister"):
            assert server.client.post(path).status_code == 200


def test_an_input_in_shared_memory_is_refused(server: Server) -> None:
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": parameters}
    refused(server, "/v2/models/plus/infer", 422, json=v2([entry]))


def test_trace_and_log_settings_can_be_read_only(server: Server) -> None:
    assert server.client.get("/v2/trace/setting").json()["trace_level"] == ["OFF"]
    assert server.client.get("/v2/models/plus/trace/setting").json()["trace_level"] == ["OFF"]
    assert server.client.get("/v2/models/nothing/trace/setting").status_code == 404
    settings = server.client.get("/v2/logging").json()
    assert (settings["log_error"], settings["log_verbose_level"]) == (True, 0)
    assert server.client.post("/v2/logging", json=settings).json() == settings
    assert server.client.post("/v2/trace/setting", json={"trace_level": ["OFF"]}).status_code == 200
    assert server.client.post("/v2/trace/setting", json={"trace_level": "OFF", "trace_rate": None}).status_code == 200
    assert "log_verbose_level" in refused(server, "/v2/logging", 400, json={"log_verbose_level": 1})
    assert "trace_level" in refused(server, "/v2/trace/setting", 400, json={"trace_level": ["TIMESTAMPS"]})
    assert "nothing" in refused(server, "/v2/trace/setting", 400, json={"nothing": [{"a": 1}]})


def test_ids_and_headers_of_the_call(server: Server) -> None:
    headers = {"X-Request-Id": "call-1", "X-Sluice-Tenant": "acme", "X-Sluice-Priority": "3"}
    answer = server.client.post("/v2/models/plus/infer", json=v2([fp32([0, 0], [1, 2])]), headers=headers)
    assert answer.headers["x-request-id"] == "call-1"
    (line,) = wait_until(lambda: [line for line in server.lines() if line.get("request_id") == "call-1"])
    assert (line["tenant"], line["model"], line["status"]) == ("acme", "plus", 200)
    late = server.client.post(
        "/v2/models/plus/infer", json=v2([fp32([0, 0], [1, 2])]), headers={"X-Sluice-Deadline-Ms": "0"}
    )
    assert (late.status_code, late.json()["code"]) == (504, "backend_timeout")
    assert late.headers["x-request-id"]
    for name, text in (("X-Sluice-Priority", "256"), ("X-Sluice-Priority", "-1"), ("X-Sluice-Deadline-Ms", "1.5")):
        refused(server, "/v2/models/plus/infer", 400, json=v2([fp32([0, 0], [1, 2])]), headers={name: text})


def test_an_id_that_is_no_header_value_is_replaced(server: Server) -> None:
    for given in (b"with space", b"x" * 300, "ümlaut".encode()):
        answer = server.client.post(
            "/v2/models/plus/infer", json=v2([fp32([0, 0], [1, 2])]), headers={b"x-request-id": given}
        )
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] not in (given.decode(), "")


def test_an_evicted_model_answers_a_compressed_request(tmp_path: Path) -> None:
    """The request begins twice: before the model is loaded again, and after."""
    names = ("a", "b", "c", "d", "e")
    for name in names:
        write_package(tmp_path / f"models/{name}/1", matmul_model(np.ones((1000, 2500), np.float32)))
    limits = {"SLUICE_MEMORY_BUDGET_BYTES": "45000000"}  # 10 MB a model, and what its sessions take
    with running(tmp_path, SLUICE_MODEL_DIR=str(tmp_path / "models"), **limits) as server:
        server.wait_for_ping(200)
        body = gzip.compress(json.dumps({"instances": [[1] * 1000]}).encode())
        for name in names * 2:
            answer = server.predict(body, f"model={name}", content_encoding="gzip")
            assert answer.status_code == 200, answer.text
            assert answer.json()["predictions"][0][0] == 1000
        assert metric(server, "sluice_models_loaded") < 5
