"""Every type in and out, through the handler that Lambda calls, with real models."""

import base64
import gzip
import io
import json
import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.codecs.content.media import KNOWN
from shared.codecs.npy import encode_npy, encode_npz
from shared.codecs.protobuf.inference_pb2 import ModelInferRequest, ModelInferResponse
from shared.codecs.v2 import V2Tensor, decode_response, encode_request
from shared.domain.dtypes import DType
from shared.web.answer_size import MAX_EVENT_BYTES, event_bytes
from tests.codecs.signatures import LIMITS
from tests.functions.conftest import LogLines, Serve
from tests.functions.served import ROUTE, serving
from tests.functions.support import Answer, Function, event
from tests.models import add_model, identity_model, label_package, manifest, tensor, text_package, write_package

X = np.array([[1, 2], [3, 4.5]], np.float32)
Y = (X + 1).tolist()
BINARY, LENGTH = encode_request({"x": V2Tensor(DType.FP32, X)}, request_id="r")
TRITON = {"content-type": "application/octet-stream", "inference-header-content-length": str(LENGTH)}
V2: dict[str, Any] = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": X.reshape(-1).tolist()}]}


def protobuf() -> bytes:
    message = ModelInferRequest(raw_input_contents=[X.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    return message.SerializeToString()


def kind(content_type: str) -> dict[str, str]:
    return {"content-type": content_type}


BODIES: list[tuple[dict[str, str], bytes]] = [
    (kind(""), json.dumps({"instances": X.tolist()}).encode()),
    (kind("application/json"), json.dumps({"inputs": {"x": X.tolist()}}).encode()),
    (kind("application/json"), json.dumps(V2).encode()),
    (kind("text/csv"), b"1,2\n3,4.5\n"),
    (kind("text/csv; header=present"), b"x.1,x.0\n2,1\n4.5,3\n"),
    (kind("application/jsonlines"), b"[1,2]\n[3,4.5]\n"),
    (kind("application/x-npy"), encode_npy(X)),
    (kind("application/x-npz"), encode_npz({"x": X})),
    (TRITON, BINARY),
    (kind(f"application/vnd.sagemaker-triton.binary+json;json-header-size={LENGTH}"), BINARY),
    (kind("application/x-protobuf"), protobuf()),
]


@pytest.fixture
def function(serve: Serve, tmp_path: Path, log: logging.Logger) -> Function:
    plus = [write_package(tmp_path / f"plus/{version}", add_model(version)) for version in (2, 1)]
    columns = [[tensor(name, "FP32", [-1, 40])] for name in ("x", "y")]
    wide = write_package(tmp_path / "wide/1", add_model(width=40), manifest("wide", 1, *columns, max_batch=50_000))
    raw = write_package(tmp_path / "raw/1", identity_model(DType.BYTES, ["n"]))
    return serve(serving(log, *plus, wide, raw, text_package(tmp_path / "t"), label_package(tmp_path / "l")))


def predict(function: Function, body: Any, headers: dict[str, str], path: str = "plus/versions/1") -> Answer:
    sent = {"accept-encoding": "identity"} | headers
    return function("POST", f"/v1/models/{path}/predict", route=ROUTE, body=body, headers=sent)


TEXTS = ("application/json", "text/csv", "application/jsonlines")


def of_json(body: bytes, _answer: Answer) -> Any:
    document = json.loads(body)
    if "outputs" in document:
        return np.reshape(document["outputs"][0]["data"], (-1, 2)).tolist()
    return document["predictions"]


def of_csv(body: bytes, _answer: Answer) -> Any:
    return [[float(cell) for cell in line.split(",")] for line in body.decode().split() if "y" not in line]


def of_binary(body: bytes, answer: Answer) -> Any:
    in_type = answer.headers["content-type"].partition("json-header-size=")[2]
    length = int(in_type or answer.headers["inference-header-content-length"])
    return decode_response(body, length, LIMITS).outputs["y"].array.tolist()


def of_protobuf(body: bytes, _answer: Answer) -> Any:
    message = ModelInferResponse.FromString(body)
    assert (message.model_name, message.model_version) == ("plus", "1")
    return np.frombuffer(message.raw_output_contents[0], np.float32).reshape(-1, 2).tolist()


READERS: dict[str, Callable[[bytes, Answer], Any]] = {
    "application/json": of_json,
    "text/csv": of_csv,
    "application/jsonlines": lambda body, _: [json.loads(line) for line in body.splitlines()],
    "application/x-npy": lambda body, _: np.load(io.BytesIO(body), allow_pickle=False).tolist(),
    "application/x-npz": lambda body, _: np.load(io.BytesIO(body), allow_pickle=False)["y"].tolist(),
    "application/octet-stream": of_binary,
    "application/vnd.sagemaker-triton.binary+json": of_binary,
    "application/x-protobuf": of_protobuf,
}


def read(answer: Answer) -> Any:
    """The values of `y`, whatever type the answer has."""
    media_type = answer.headers["content-type"].partition(";")[0]
    is_packed = answer.headers.get("content-encoding") == "gzip"
    assert answer.is_base64 == (is_packed or media_type not in TEXTS)
    return READERS[media_type](gzip.decompress(answer.body) if is_packed else answer.body, answer)


@pytest.mark.parametrize("accept", ["", *KNOWN])
@pytest.mark.parametrize(("headers", "body"), BODIES)
def test_every_type_goes_in_and_out(function: Function, headers: dict[str, str], body: bytes, accept: str) -> None:
    answer = predict(function, body, headers | ({"accept": accept} if accept else {}))
    assert answer.status == 200, answer.body
    assert read(answer) == Y
    wanted = accept or headers["content-type"].partition(";")[0] or "application/json"
    if not (accept == "" and "octet" in wanted):
        assert answer.headers["content-type"].startswith(wanted)
    assert len(answer.headers["x-prediction-id"]) == 32


def test_the_plain_json_answer_has_all_its_members(function: Function, log_lines: LogLines) -> None:
    answer = predict(function, {"instances": X.tolist()}, {})
    document = answer.json
    assert document["model"] == {"name": "plus", "version": 1, "variant": "v1", "backend": "function"}
    assert document["prediction_id"] == answer.headers["x-prediction-id"] == log_lines.requests()[0]["prediction_id"]
    assert log_lines.requests()[0]["rows"] == 2


def test_without_a_version_the_highest_answers(function: Function) -> None:
    assert predict(function, {"instances": [[1, 2]]}, {}, "plus").json["predictions"] == [[3, 4]]
    assert predict(function, {"instances": [[1, 2]]}, {}, "plus/versions/2").json["model"]["version"] == 2


@pytest.mark.parametrize("version", ["3", "0", "-1", "latest", "1.0", "9999999999"])
def test_a_version_that_is_not_there(function: Function, version: str) -> None:
    answer = predict(function, {"instances": [[1, 2]]}, {}, f"plus/versions/{version}")
    assert (answer.status, answer.json["code"]) == (404, "version_not_found")


def test_text_and_names_go_through_the_types(function: Function) -> None:
    answer = predict(function, b"one two\nthree\n", {"content-type": "text/csv", "accept": "application/json"}, "texts")
    assert (answer.status, len(answer.json["predictions"])) == (200, 2)
    answer = predict(function, b"1,2,3\n", {"content-type": "text/csv", "accept": "text/csv;header=present"}, "labels")
    assert answer.body == b"label,scores.0,scores.1,scores.2\r\nc,1.0,2.0,3.0\r\n"
    answer = predict(function, b"1,2,3\n", {"content-type": "text/csv", "accept": "application/x-npy"}, "labels")
    assert (answer.status, answer.json["code"]) == (406, "not_acceptable")
    wanted = {**V2["inputs"][0], "shape": [1, 3], "data": [1, 2, 3]}
    document = {"inputs": [wanted], "outputs": [{"name": "label"}]}
    answer = predict(function, document, {}, "labels")
    assert answer.json["outputs"] == [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["c"]}]
    answer = predict(function, {**document, "outputs": [{"name": "nothing"}]}, {}, "labels")
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/outputs/0")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip", "GZIP"])
@pytest.mark.parametrize(("headers", "body"), BODIES)
def test_compressed_bodies_are_read(function: Function, headers: dict[str, str], body: bytes, coding: str) -> None:
    packed = zlib.compress(body) if coding == "deflate" else gzip.compress(body, mtime=0)
    packed = gzip.compress(packed, mtime=0) if "," in coding else packed
    answer = predict(function, packed, headers | {"content-encoding": coding, "accept": "application/json"})
    assert read(answer) == Y


def test_long_answers_are_compressed_for_those_who_take_it(function: Function) -> None:
    rows = [[index, *[0.5] * 39] for index in range(50)]
    plain = predict(function, {"instances": rows}, {}, "wide")
    packed = predict(function, {"instances": rows}, {"accept-encoding": "br, gzip;q=0.8"}, "wide")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 2
    assert read(packed) == read(plain)
    short = predict(function, {"instances": rows[:1]}, {"accept-encoding": "gzip"}, "wide")
    assert "content-encoding" not in short.headers
    refused = predict(function, {"instances": rows}, {"accept-encoding": "gzip;q=0"}, "wide")
    assert "content-encoding" not in refused.headers
    csv = predict(function, {"instances": rows}, {"accept-encoding": "gzip", "accept": "text/csv"}, "wide")
    assert gzip.decompress(csv.body).startswith(b"1.0,1.5,1.5,")
    assert csv.is_base64


@pytest.mark.parametrize(
    ("content_type", "status", "code"),
    [
        ("text/plain", 415, "unsupported_media_type"),
        ("application/xml", 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        ("image/png", 415, "unsupported_media_type"),
        ("x" * 2000, 415, "unsupported_media_type"),
        ("application/octet-stream", 400, "invalid_request"),
        ("application/vnd.sagemaker-triton.binary+json", 400, "invalid_request"),
        ("multipart/form-data", 400, "invalid_request"),
        ("text/csv; charset=klingon", 415, "unsupported_media_type"),
    ],
)
def test_other_types_are_refused(function: Function, content_type: str, status: int, code: str) -> None:
    answer = predict(function, b"1,2", {"content-type": content_type})
    assert (answer.status, answer.json["code"]) == (status, code)
    if status == 415 and "charset" not in content_type:
        assert "application/x-npz" in answer.json["detail"]
        assert "multipart/form-data" in answer.json["detail"]


@pytest.mark.parametrize("accept", ["text/html", "image/*", "*/*;q=0", "application/xml, text/html;q=0.1"])
def test_types_that_are_not_written_are_refused(function: Function, accept: str) -> None:
    answer = predict(function, {"instances": [[1, 2]]}, {"accept": accept})
    assert (answer.status, answer.json["code"]) == (406, "not_acceptable")
    assert "text/csv" in answer.json["detail"]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (kind("text/csv"), b"1,2,3\n", 422),
        (kind("text/csv"), b'"1,2\n', 400),
        (kind("application/jsonlines"), b"[1,2]\n[3,", 400),
        (kind("application/x-npy"), b"\x93NUMPY", 400),
        (kind("application/x-npz"), b"PK\x03\x04", 400),
        (kind("application/x-protobuf"), b"\xff\xff", 400),
        (kind("application/x-protobuf"), protobuf()[:-1], 400),
        ({**TRITON, "inference-header-content-length": str(10**8)}, BINARY, 400),
        ({**TRITON, "inference-header-content-length": "-1"}, BINARY, 400),
        ({**TRITON, "inference-header-content-length": str(LENGTH - 1)}, BINARY, 400),
        (TRITON, BINARY[:-1], 422),
        (TRITON, BINARY + b"x", 422),
        ({**kind("application/json"), "content-encoding": "gzip"}, b"not gzip", 400),
        ({**kind("application/json"), "content-encoding": "gzip"}, gzip.compress(b"{}", mtime=0)[:-4], 400),
        ({**kind("application/json"), "content-encoding": "br"}, b"", 415),
        ({**kind("application/json"), "content-encoding": "gzip,gzip,gzip,gzip"}, b"", 415),
        ({**kind("text/csv"), "content-encoding": "gzip"}, gzip.compress(b"1,2\n" * 2_000_000, mtime=0), 413),
        ({**kind("application/json"), "content-encoding": "gzip"}, gzip.compress(b" " * 20_000_000, mtime=0), 413),
    ],
)
def test_damaged_and_lying_bodies_are_refused(
    function: Function, headers: dict[str, str], body: bytes, status: int
) -> None:
    answer = predict(function, body, headers)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert predict(function, {"instances": X.tolist()}, {}).json["predictions"] == Y


def test_strings_have_a_bound_that_images_do_not_share(serve: Serve, tmp_path: Path, log: logging.Logger) -> None:
    folder = write_package(tmp_path / "raw/1", identity_model(DType.BYTES, ["n"]))
    function = serve(serving(log, folder, max_string_bytes=1000))
    fits = predict(function, {"instances": ["x" * 1000]}, {}, "raw")
    assert fits.json["predictions"] == ["x" * 1000]
    for text in ("x" * 1001, '"' * 600, "\n" * 700):
        answer = predict(function, {"instances": ["a", text]}, {}, "raw")
        assert (answer.status, answer.json["code"]) == (422, "text_too_long")
    encoded = base64.b64encode(b"y" * 3000).decode()
    assert predict(function, {"instances": [{"b64": encoded}]}, {}, "raw").json["predictions"] == ["y" * 3000]


def test_an_answer_over_lambdas_limit_is_refused_and_fits_if_compressed(function: Function) -> None:
    rows = np.zeros((35_000, 40), np.float32)
    body = gzip.compress(encode_npy(rows))
    headers = {"content-type": "application/x-npy", "content-encoding": "gzip"}
    answer = predict(function, body, headers, "wide")  # 5.6 MB, and a third more as base64
    assert (answer.status, answer.json["code"]) == (422, "answer_too_large")
    packed = predict(function, body, headers | {"accept-encoding": "gzip"}, "wide")
    assert packed.status == 200
    assert read(packed) == (rows + 1).tolist()
    text = predict(function, body, headers | {"accept": "text/csv"}, "wide")  # 5.6 MB too, but it goes as it is
    assert text.status == 200


@pytest.mark.parametrize(
    "body", [b"plain " * 200_000, b'"' * 1_100_000, b"\r\n" * 600_000, b"\0" * 1_100_000, "é".encode() * 600_000]
)
def test_the_size_of_a_text_in_the_event_is_what_lambda_counts(body: bytes) -> None:
    counted = len(json.dumps(body.decode()))
    assert counted <= event_bytes(body, is_text=True) <= max(counted, MAX_EVENT_BYTES)
    assert len(base64.b64encode(body)) == event_bytes(body, is_text=False)


def test_what_is_returned_stays_below_the_limit(function: Function) -> None:
    body = gzip.compress(encode_npy(np.zeros((29_000, 40), np.float32)))
    headers = {"content-type": "application/x-npy", "content-encoding": "gzip", "accept-encoding": "identity"}
    made = function.handler(event("POST", "/v1/models/wide/predict", ROUTE, body, headers), function.context)
    assert made["statusCode"] == 200
    assert MAX_EVENT_BYTES * 0.9 < len(json.dumps(made)) < 6_291_556
