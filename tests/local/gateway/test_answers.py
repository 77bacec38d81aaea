import asyncio
import base64
import io
from typing import Any

import pytest

from infra.local.gateway.app import MAX_BODY_BYTES
from infra.local.lambda_service.errors import ServiceError, TooManyRequestsError
from infra.local.lambda_service.invocation import InvokeResult
from tests.local.gateway.conftest import Gateway, api, route

MIB = 1024 * 1024


@pytest.fixture
def gateway(serve: Any) -> Gateway:
    started: Gateway = serve(api(route("ANY /"), route("GET /slow", timeout_s=0.2)))
    return started


def answering(gateway: Gateway, answer: Any) -> Gateway:
    gateway.functions.handlers["main"] = lambda _: answer
    return gateway


def test_status_headers_cookies_and_body_are_the_functions(gateway: Gateway) -> None:
    answer = {
        "statusCode": 418,
        "headers": {"X-Text": "a", "x-number": 7, "x-flag": True, "Content-Type": "application/problem+json"},
        "cookies": ["a=1; Path=/", "b=2"],
        "body": "ä",
    }
    reply = answering(gateway, answer).request("GET", "/")
    assert (reply.status, reply.body) == (418, "ä".encode())
    assert (reply.headers["x-text"], reply.headers["x-number"], reply.headers["x-flag"]) == ("a", "7", "true")
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.headers.getall("Set-Cookie") == ["a=1; Path=/", "b=2"]
    assert len(reply.headers["apigw-requestid"]) == 16
    assert "Server" not in reply.headers


def test_a_base64_body_is_decoded(gateway: Gateway) -> None:
    answer = {"statusCode": "200", "body": base64.b64encode(b"\x00\xff").decode(), "isBase64Encoded": True}
    reply = answering(gateway, answer).request("GET", "/")
    assert (reply.status, reply.body) == (200, b"\x00\xff")
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("answer", [{"message": "hi"}, "text", [1, 2], 7, None])
def test_an_answer_without_a_status_code_is_the_body_of_a_200(gateway: Gateway, answer: Any) -> None:
    reply = answering(gateway, answer).request("GET", "/")
    assert (reply.status, reply.json) == (200, answer)
    assert reply.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": "many"},
        {"statusCode": 99},
        {"statusCode": None},
        {"statusCode": 200, "body": {"not": "text"}},
        {"statusCode": 200, "headers": {"a": ["b"]}},
        {"statusCode": 200, "headers": {"a": "b\r\nc: d"}},
        {"statusCode": 200, "cookies": "a=b"},
        {"statusCode": 200, "body": "%%%", "isBase64Encoded": True},
        InvokeResult(b'{"errorType":"X"}', "Unhandled", b"", "id", 1.0, None),
    ],
)
def test_a_malformed_answer_or_a_function_error_is_500(gateway: Gateway, answer: Any) -> None:
    assert answering(gateway, answer).request("GET", "/").is_error(500, "Internal Server Error")


def test_head_and_204_have_no_body(gateway: Gateway) -> None:
    reply = answering(gateway, {"statusCode": 200, "body": "text"}).request("HEAD", "/")
    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", "4")
    assert answering(gateway, {"statusCode": 204}).request("DELETE", "/").body == b""


def test_no_such_route_is_404(gateway: Gateway) -> None:
    for method, path in [("GET", "/nothing"), ("POST", "/slow"), ("GET", "/slow/"), ("GET", "/a%0Ab"), ("GET", "//")]:
        assert gateway.request(method, path).is_error(404, "Not Found")
    assert gateway.functions.events == {}


def test_a_body_over_10_mb_is_413_whether_its_length_is_announced_or_not(gateway: Gateway) -> None:
    async def chunks() -> Any:
        for _ in range(MAX_BODY_BYTES // MIB + 1):
            yield b"x" * MIB

    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode()
    assert gateway.raw(head).startswith(b"HTTP/1.1 413 "), "announced: answered before any of it is read"
    assert gateway.request("POST", "/", data=chunks()).is_error(413, "Request Entity Too Large")
    assert gateway.functions.events == {}


def test_an_event_over_lambdas_limit_is_413(gateway: Gateway) -> None:
    answering(gateway, "ok")
    headers = {"Content-Type": "text/plain"}
    assert gateway.request("POST", "/", data=io.BytesIO(b"x" * 5 * MIB), headers=headers).status == 200
    reply = gateway.request("POST", "/", data=io.BytesIO(b"x" * 5 * MIB), headers={"Content-Type": "image/png"})
    assert reply.is_error(413, "Request Entity Too Large")


def test_request_line_and_headers_over_10240_bytes_are_431(gateway: Gateway) -> None:
    line, rest = b"GET / HTTP/1.1\r\n", b"Host: x\r\nConnection: close\r\nX-Fill: "
    fill = 10_240 - len(line) - len(rest) - 2
    assert gateway.raw(line + rest + b"x" * fill + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    answer = gateway.raw(line + rest + b"x" * (fill + 1) + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.endswith(b'{"message":"Request Header Fields Too Large"}')
    many = b"".join(b"X-%d: y\r\n" % n for n in range(1500))
    assert gateway.raw(line + b"Host: x\r\n" + many + b"\r\n").startswith(b"HTTP/1.1 431 ")
    assert gateway.request("GET", "/?" + "q" * 11_000).is_error(431, "Request Header Fields Too Large")


def test_an_integration_that_takes_too_long_is_503(gateway: Gateway) -> None:
    gateway.functions.handlers["main"] = lambda _: asyncio.sleep(5)
    assert gateway.request("GET", "/slow").is_error(503, "Service Unavailable")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (TooManyRequestsError("Rate Exceeded."), 503, "Service Unavailable"),
        (ServiceError("closing"), 500, "Internal Server Error"),
    ],
)
def test_a_function_that_cannot_be_invoked(gateway: Gateway, error: Exception, status: int, message: str) -> None:
    def refuse(_event: Any) -> Any:
        raise error

    gateway.functions.handlers["main"] = refuse
    assert gateway.request("GET", "/").is_error(status, message)


def test_a_client_that_disconnects_breaks_nothing(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    finished: list[Any] = []

    async def slow(event: Any) -> Any:
        await asyncio.sleep(0.2)
        finished.append(event)
        return "late"

    gateway.functions.handlers["main"] = slow

    async def leave(data: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(data)
        await asyncio.sleep(0.1)
        writer.transport.abort()
        await asyncio.sleep(0.3)

    gateway.runner.run(leave(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert len(finished) == 1, "the invocation goes on to its end"
    gateway.runner.run(leave(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"))
    assert len(finished) == 1, "half a request is none"
    assert gateway.request("GET", "/").json == "late"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
