"""What goes over the wire, written and read without the code under test; and raw sockets for what no client sends."""

import json
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from tests.gpu_service.server import LIMIT_S, Server

HEADER_LENGTH = "Inference-Header-Content-Length"
DTYPES: Mapping[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": np.uint16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def raw_strings(values: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def v2(tensors: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    return {"inputs": list(tensors), **more}


def fp32(data: Any, shape: Sequence[int], name: str = "x") -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": list(shape), "data": data}


def binary_body(tensors: Mapping[str, tuple[str, Sequence[int], bytes]], **more: Any) -> tuple[bytes, int]:
    """A body of binary tensors, by name: datatype, shape, raw bytes; and the length of its JSON header."""
    entries = [
        {"name": name, "datatype": dtype, "shape": list(shape), "parameters": {"binary_data_size": len(raw)}}
        for name, (dtype, shape, raw) in tensors.items()
    ]
    head = json.dumps({"inputs": entries, **more}).encode()
    return head + b"".join(raw for _, _, raw in tensors.values()), len(head)


def binary_answer(answer: httpx.Response) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON header of an answer, and the raw bytes of its binary outputs by name."""
    length = int(answer.headers[HEADER_LENGTH])
    document = json.loads(answer.content[:length])
    rest = answer.content[length:]
    raw: dict[str, bytes] = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            raw[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return document, raw


def connect(server: Server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=LIMIT_S)


def post(path: str, body: bytes, **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
    return head.encode("latin-1") + body


@contextmanager
def waiting(server: Server, path: str, body: Any, **headers: str) -> Iterator[socket.socket]:
    """A request that was sent and whose answer nobody has read yet; the caller is gone at the end, with a reset."""
    headers = {"Content_Type": "application/json"} | headers
    with connect(server) as connection:
        connection.sendall(post(path, body if isinstance(body, bytes) else json.dumps(body).encode(), **headers))
        yield connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side ends the connection."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


def metric(server: Server, name: str, **labels: str) -> float:
    """The sum of the samples of a metric that have these labels; 0 if there is none."""
    total = 0.0
    for line in server.client.get("/metrics").text.splitlines():
        sample, _, value = line.rpartition(" ")
        base, _, rest = sample.partition("{")
        if base == name and all(f'{key}="{text}"' in rest for key, text in labels.items()):
            total += float(value)
    return total
