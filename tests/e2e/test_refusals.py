"""What the running stack refuses, and how."""

import base64
import io
import struct
import zlib
from typing import Any

import httpx
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e


def bomb() -> str:
    """A PNG of a few hundred bytes whose header says 50,000 × 50,000 pixels."""
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "PNG")
    png = bytearray(stream.getvalue())
    png[16:24] = struct.pack(">II", 50_000, 50_000)
    png[29:33] = struct.pack(">I", zlib.crc32(bytes(png[12:29])))
    return base64.b64encode(bytes(png)).decode()


@pytest.mark.parametrize(
    ("model", "body", "status", "code"),
    [
        ("nothing", b'{"instances": [[1]]}', 404, "model_not_found"),
        ("tumor", b"{", 400, "not_json"),
        ("tumor", b'{"rows": []}', 422, "unknown_field"),
        ("tumor", b'{"instances": [["a"]]}', 422, "wrong_dtype"),
        ("tumor", b'{"instances": [[1, 2]]}', 422, "wrong_shape"),
        ("tumor", ('{"instances": [[' + "1, " * 29 + "NaN]]}").encode(), 422, "not_finite"),
        ("tumor", ('{"instances": [[' + "1, " * 29 + "1e999]]}").encode(), 422, "not_finite"),
        ("tumor", b'{"instances": []}', 422, "empty_batch"),
        ("tumor", ('{"instances": [' + ",".join(["[1]"] * 5000) + "]}").encode(), 413, "batch_too_large"),
        ("tumor", b"[" * 100 + b"]" * 100, 400, "too_deep"),
        ("digits", b'{"instances": [{"b64": "aGVsbG8="}]}', 422, "bad_image"),
        ("digits", f'{{"instances": [{{"b64": "{bomb()}"}}]}}'.encode(), 422, "image_too_large"),
        ("embed", b'{"instances": [1]}', 422, "wrong_dtype"),
    ],
)
def test_a_function_answers_problem_json_with_its_own_code(
    api: httpx.Client, model: str, body: bytes, status: int, code: str
) -> None:
    answer = api.post(f"/v1/models/{model}/predict", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_wrong_content_type(api: httpx.Client) -> None:
    answer = api.post("/v1/models/tumor/predict", content=b"1,2", headers={"Content-Type": "text/html"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "message"),
    [
        ("POST", "/v1/models/tumor/predict", {}, 401, "Unauthorized"),
        ("POST", "/v1/models/tumor/predict", {"Authorization": "Bearer wrong"}, 403, "Forbidden"),
        ("GET", "/v1/nothing", {}, 404, "Not Found"),
        ("DELETE", "/health", {}, 404, "Not Found"),
    ],
)
def test_the_gateway_answers_as_api_gateway_does(
    sluice: Any, method: str, path: str, headers: dict[str, str], status: int, message: str
) -> None:
    answer = httpx.request(method, sluice.local["api_url"] + path, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()) == (status, {"message": message})


def test_a_body_over_the_gateways_limit(api: httpx.Client) -> None:
    answer = api.post("/v1/models/tumor/predict", content=b" " * (11 * 1024 * 1024))
    assert (answer.status_code, answer.json()) == (413, {"message": "Request Entity Too Large"})


def test_web_pages_of_other_origins_are_let_in_only_where_the_stack_says_so(api: httpx.Client) -> None:
    asked = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    preflight = api.options("/v1/models/tumor/predict", headers=asked)
    assert (preflight.status_code, preflight.json()) == (404, {"message": "Not Found"})
    answer = api.get("/v1/models", headers=asked)
    assert answer.status_code == 200
    for headers in (preflight.headers, answer.headers):
        assert not [name for name in headers if name.startswith("access-control-")]
