"""Whatever comes is answered with a 4xx or passed over: no crash, flat memory, and the next request is unharmed."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shared.codecs.content.media import KNOWN, SAGEMAKER_BINARY
from shared.codecs.protobuf.inference_pb2 import ModelInferRequest
from shared.domain.dtypes import DType
from tests.gpu_service.http.wire import HEADER_LENGTH, binary_body, connect, post, raw_strings, read_all
from tests.gpu_service.server import Server, running
from tests.models import add_model, identity_model, text_package, write_package

GROWTH = 40_000_000  # bytes that the process may take more after thousands of requests; one body may have 1 MB
ALLOWED_5XX = (503, 504, 507)
fuzz = settings(
    max_examples=120,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_package(models / "plus/1", add_model())
    text_package(models / "texts/1")
    for dtype in (DType.BYTES, DType.BOOL, DType.INT8, DType.FP16):
        write_package(models / f"same-{dtype.lower()}/1", identity_model(dtype, ["n", 2]))
    limits = {"SLUICE_ACCESS_LOG": "false", "SLUICE_MAX_BODY_BYTES": "1000000"}
    with running(tmp_path_factory.mktemp("log"), SLUICE_MODEL_DIR=str(models), **limits) as server:
        server.wait_for_ping(200)
        warm_up(server)
        before = psutil.Process(server.process.pid).memory_info().rss
        yield server
        assert server.process.poll() is None
        assert psutil.Process(server.process.pid).memory_info().rss < before + GROWTH
        assert [line for line in server.lines() if "exception" in line] == []


def warm_up(server: Server) -> None:
    for content_type in KNOWN:
        server.predict(b"[[1, 2]]" * 10_000, "model=plus", content_type=content_type)
    for _ in range(50):
        unharmed(server)


def unharmed(server: Server) -> None:
    answer = server.predict({"instances": [[1, 2]]}, "model=plus")
    assert answer.json() == {"predictions": [[2, 3]], "model": {"name": "plus", "version": 1}}


def exchange(server: Server, data: bytes) -> bytes:
    """Send these bytes and nothing more; all that comes back."""
    with connect(server) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)
        except (ConnectionResetError, BrokenPipeError):
            return b""


def statuses(answers: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", answers)]


def acceptable(status: int) -> bool:
    return status < 500 or status in ALLOWED_5XX


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of some byte strings after a few edits: cut, doubled, replaced, and with numbers that lie."""
    data = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            data = data[:start] + data[end:]
        elif kind == 1:
            data = data[:start] + draw(st.binary(max_size=8)) + data[end:]
        elif kind == 2:
            data = data[:end] + data[start:]
        elif kind == 3:
            data = data[:start]
        else:
            numbers = list(re.finditer(rb"-?\d+", data))
            if numbers:
                found = numbers[draw(st.integers(0, len(numbers) - 1))]
                lie = draw(st.sampled_from([-1, 0, 1, 2, 7, 2**31, 2**63, 2**64, 10**30]))
                data = data[: found.start()] + b"%d" % lie + data[found.end() :]
    return data


def binary(name: str, dtype: str, raw: bytes, rows: int = 1) -> bytes:
    body, length = binary_body({name: (dtype, [rows, 2] if name == "x" else [rows], raw)}, id="1")
    return b"%d|" % length + body


NUMBERS = np.array([[1, 2]], np.float32).tobytes()
FRAME, FRAME_LENGTH = binary_body({"x": ("FP32", [1, 2], NUMBERS)})
PREDICT = {"Content_Type": "application/json", "X_Amzn_SageMaker_Custom_Attributes": "model=plus;version=1"}
REQUESTS = [
    post("/invocations", b'{"instances": [[1, 2]]}', **PREDICT),
    post("/invocations", b'{"instances": [[1, 2]]}', **PREDICT) * 3,
    post("/invocations", b'{"instances": [[1, 2]]}', Accept_Encoding="gzip", Expect="100-continue", **PREDICT),
    b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[[1, \r\n3\r\n2]]\r\n0\r\n\r\n",
    b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/models/plus/versions/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"DELETE /models/plus HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    post("/v2/models/plus/infer", FRAME, Inference_Header_Content_Length=str(FRAME_LENGTH)),
]
V2_BODIES = [
    binary("x", "FP32", NUMBERS),
    binary("x", "FP32", NUMBERS * 3, rows=3),
    binary("x", "BYTES", raw_strings([b"one", b"two"])),
    binary("x", "BOOL", b"\0\1"),
    binary("x", "INT8", b"\x80\x7f"),
    binary("x", "FP16", b"\0\x3c\0\x3c"),
    binary("text", "BYTES", raw_strings([b"one two"])),
]
DOCUMENTS = [
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}], "outputs": [{"name": "y"}]}',
    b'{"id": "1", "parameters": {"timeout": 1, "priority": 1}, "inputs": [{"name": "x", "datatype": "BYTES", '
    b'"shape": [1, 2], "data": ["a", "\\u00e4"]}]}',
    b'{"instances": [[1.5, -2e3], [true, null]]}',
    b'{"inputs": {"x": [[1, 2]]}}',
    b"1,2\n3,4\n",
    b'[1, 2]\n{"x": [1, 2]}\n',
]
MODELS = ["plus", "texts", "same-bytes", "same-bool", "same-int8", "same-fp16"]


@fuzz
@given(data=st.one_of(mutated(REQUESTS), st.binary(max_size=300)))
def test_bytes_that_are_hardly_http(server: Server, data: bytes) -> None:
    assert all(acceptable(status) for status in statuses(exchange(server, data)))
    unharmed(server)


@fuzz
@given(body=mutated(V2_BODIES), model=st.sampled_from(MODELS), data=st.data())
def test_binary_bodies(server: Server, body: bytes, model: str, data: st.DataObject) -> None:
    length, _, content = body.partition(b"|")
    headers: dict[bytes, bytes] = {HEADER_LENGTH.encode(): re.sub(rb"[^\x21-\x7e]", b"", length)}
    if data.draw(st.booleans()):
        headers[b"content-encoding"] = data.draw(st.sampled_from([b"gzip", b"deflate", b"identity", b"gzip,deflate"]))
    answer = server.client.post(f"/v2/models/{model}/infer", content=content, headers=headers)
    assert acceptable(answer.status_code), answer.text
    if answer.status_code >= 400:
        assert answer.json()["error"]
    unharmed(server)


@fuzz
@given(
    body=st.one_of(
        mutated(DOCUMENTS),
        mutated([FRAME, *(body.partition(b"|")[2] for body in V2_BODIES)]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xy"), inner, max_size=3),
            max_leaves=8,
        ).map(lambda value: json.dumps({"instances": value}).encode()),
    ),
    model=st.sampled_from(MODELS),
    content_type=st.sampled_from(KNOWN),
    accept=st.sampled_from(["", "*/*", *KNOWN, ";;,=", "a/b;q=x"]),
)
def test_bodies_of_every_content_type(server: Server, body: bytes, model: str, content_type: str, accept: str) -> None:
    if content_type == SAGEMAKER_BINARY:
        content_type += f";json-header-size={FRAME_LENGTH}"
    answer = server.predict(body, f"model={model}", content_type=content_type, accept=accept)
    assert acceptable(answer.status_code), answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
    unharmed(server)


@fuzz
@given(body=mutated([b""]), data=st.data())
def test_protobuf_bodies(server: Server, body: bytes, data: st.DataObject) -> None:
    request = ModelInferRequest(id="p", raw_input_contents=[NUMBERS])
    dims = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3)
    request.inputs.add(name="x", datatype="FP32", shape=data.draw(st.lists(dims, max_size=3)))
    content = data.draw(mutated([request.SerializeToString()])) + body
    answer = server.predict(content, "model=plus", content_type="application/x-protobuf")
    assert acceptable(answer.status_code), answer.text
    unharmed(server)


@fuzz
@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["accept", "accept-encoding", "content-encoding", "content-type", "traceparent", "x-request-id",
             "x-sluice-deadline-ms", "x-sluice-priority", "x-sluice-tenant", "x-amzn-sagemaker-custom-attributes",
             "x-amzn-sagemaker-target-model", "x-amzn-sagemaker-session-id", "inference-header-content-length"]
        ),
        st.one_of(
            st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30),
            st.sampled_from(["1" * 50, "-1", "0", "model=%zz;version=", "model=plus;;=;a", "gzip;q=0, *", "é" * 300]),
        ).map(str.strip),
        max_size=5,
    ),
    path=st.sampled_from(["/invocations", "/v2/models/plus/infer", "/models/plus/invoke"]),
)  # fmt: skip
def test_headers(server: Server, headers: dict[str, str], path: str) -> None:
    encoded: dict[bytes, bytes] = {name.encode(): text.encode("latin-1") for name, text in headers.items()}
    answer = server.client.post(path, content=b'{"instances": [[1, 2]]}', headers=encoded)
    assert acceptable(answer.status_code), answer.text
    unharmed(server)


@fuzz
@given(
    path=st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=40),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "FOO", "get"]),
    stem=st.sampled_from(
        ["/", "/v2/models/", "/models/", "/v2/repository/models/", "/v2/cudasharedmemory/region/", "*"]
    ),
)
def test_targets(server: Server, path: str, method: str, stem: str) -> None:
    request = f"{method} {stem}{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
    found = statuses(exchange(server, request))
    assert all(acceptable(status) for status in found)
    unharmed(server)


def test_lengths_that_would_need_all_memory(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    huge: list[Any] = [
        {"name": "x", "datatype": "FP32", "shape": [2**40, 2], "data": [1]},
        {"name": "x", "datatype": "FP32", "shape": [1] * 70 + [2], "data": [1, 2]},
        {"name": "x", "datatype": "FP32", "shape": [2**40, 2], "parameters": {"binary_data_size": 2**43}},
        {"name": "x", "datatype": "FP32", "shape": [10**400, 2], "data": [1]},
    ]
    for entry in huge:
        answer = server.client.post("/v2/models/plus/infer", content=json.dumps({"inputs": [entry]}))
        assert 400 <= answer.status_code < 500
    npy = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 2), }".ljust(118)
    )
    assert 400 <= server.predict(npy, "model=plus", content_type="application/x-npy").status_code < 500
    assert process.memory_info().rss < before + GROWTH
    unharmed(server)
