"""What the benchmarks send: 4096 distinct rows for each model, framed for each protocol.

A row is a window into one pool of numbers, in binary and as text, so that 4096 images need no gigabytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from benchmarks.generator import OUT, RequestFile

ROWS = 4096
Row = dict[str, NDArray[Any]]
_DATATYPES = {"float32": "FP32", "int64": "INT64"}
GRPC_PREFIX = 5  # of each message: compressed flag and length


@dataclass(frozen=True)
class Workload:
    """One model's rows. `shape` is that of one request's varying input, whose rows start `stride` numbers apart.

    `patience` lengthens measurements: what answers 64 requests in seconds is not measured in three of them.
    """

    model: str
    input: str
    shape: tuple[int, ...]
    dtype: str
    stride: int
    mask: str = ""
    patience: float = 1.0

    @cached_property
    def size(self) -> int:
        """Numbers in a row."""
        return int(np.prod(self.shape))

    @cached_property
    def numbers(self) -> NDArray[Any]:
        """The pool that rows are windows into."""
        rng = np.random.default_rng(7)
        count = self.stride * (ROWS - 1) + self.size
        if self.dtype == "int64":
            return rng.integers(1000, 30000, count)
        # Four decimals: what is sent as text is the same number as what is sent in binary.
        return (rng.standard_normal(count).clip(-4, 4).round(4) + 0.0).astype(np.float32)

    @cached_property
    def text(self) -> tuple[bytes, NDArray[Any]]:
        """The pool as comma-separated text, and where in it each number starts."""
        values = self.numbers.tolist()
        pieces = [b"%d" % value for value in values] if self.dtype == "int64" else [b"%.4f" % value for value in values]
        lengths = np.fromiter(map(len, pieces), np.int64, len(pieces)) + 1
        return b",".join(pieces), np.concatenate(([0], np.cumsum(lengths)))

    def row(self, index: int) -> Row:
        """The tensors of one request."""
        start = index * self.stride
        row = {self.input: self.numbers[start : start + self.size].reshape(self.shape)}
        if self.mask:
            row[self.mask] = np.ones(self.shape, np.int64)
        return row

    def rows(self, count: int) -> Row:
        """A batch of the first rows."""
        rows = [self.row(index) for index in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def spec(self, name: str) -> dict[str, Any]:
        """An input as the Open Inference Protocol describes it, without its data."""
        return {"name": name, "shape": list(self.shape), "datatype": _DATATYPES[self.dtype]}


WORKLOADS = {
    "tree": Workload("tree", "X", (1, 30), "float32", 30),
    "mlp": Workload("mlp", "input", (1, 768), "float32", 768),
    "encoder": Workload("encoder", "input_ids", (1, 32), "int64", 32, mask="attention_mask", patience=1.5),
    "resnet": Workload("resnet", "image", (1, 3, 224, 224), "float32", 37, patience=3.0),
}


def request_file(workload: Workload, protocol: str, route: str, headers: Mapping[str, str] | None = None) -> Path:
    """The requests of a protocol (`json`, `binary`, `grpc`), written once for each route and set of headers."""
    mark = crc32(json.dumps([route, dict(headers or {})], sort_keys=True).encode())
    path = OUT / "requests" / f"{workload.model}-{protocol}-{mark:08x}.bin"
    if path.exists() and path.stat().st_mtime > Path(__file__).stat().st_mtime:
        return path
    file = RequestFile(path)
    {"json": _json, "rows": _rows, "binary": _binary, "grpc": _grpc}[protocol](file, workload, route, headers or {})
    return file.write()


def _head(route: str, headers: Mapping[str, str], length: int) -> bytes:
    lines = [f"POST {route} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def _json(file: RequestFile, workload: Workload, route: str, headers: Mapping[str, str]) -> None:
    """The Open Inference Protocol's JSON, with flat data."""
    opening = json.dumps(workload.spec(workload.input))[:-1]
    ending = "]}"
    if workload.mask:
        mask = {**workload.spec(workload.mask), "data": [1] * workload.size}
        ending += "," + json.dumps(mask, separators=(",", ":"))
    _texts(file, workload, route, headers, (f'{{"inputs":[{opening},"data":[', f"{ending}]}}"))


def _rows(file: RequestFile, workload: Workload, route: str, headers: Mapping[str, str]) -> None:
    """One flat row in an object: what servers without a protocol of their own are sent."""
    _texts(file, workload, route, headers, ('{"inputs":[[', "]]}"))


def _texts(
    file: RequestFile, workload: Workload, route: str, headers: Mapping[str, str], around: tuple[str, str]
) -> None:
    pool, starts = workload.text
    prefix, suffix = around[0].encode(), around[1].encode()
    before, numbers, after = file.blob(prefix), file.blob(pool), file.blob(suffix)
    heads: dict[int, tuple[int, int]] = {}
    headers = {"Content-Type": "application/json", **headers}
    for index in range(ROWS):
        first = index * workload.stride
        start, stop = int(starts[first]), int(starts[first + workload.size]) - 1
        length = before[1] + stop - start + after[1]
        if length not in heads:
            heads[length] = file.blob(_head(route, headers, length))
        file.add((heads[length], before, (numbers[0] + start, stop - start), after))


def _binary(file: RequestFile, workload: Workload, route: str, headers: Mapping[str, str]) -> None:
    """The binary tensor data extension, for the inputs and for the outputs, as tritonclient sends it."""
    size = workload.size * np.dtype(workload.dtype).itemsize
    names = [workload.input, *([workload.mask] if workload.mask else [])]
    inputs = [{**workload.spec(name), "parameters": {"binary_data_size": size}} for name in names]
    document = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    header = json.dumps(document, separators=(",", ":")).encode()
    mask = _mask(workload)
    sent = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(header)),
        **headers,
    }
    head = file.blob(_head(route, sent, len(header) + size + len(mask)) + header)
    _windows(file, workload, head, file.blob(mask))


def _grpc(file: RequestFile, workload: Workload, route: str, headers: Mapping[str, str]) -> None:
    """ModelInferRequest with raw contents; `route` is the model's name."""
    if headers:
        raise ValueError("The generator's gRPC calls carry no headers of their own.")
    message = messages().ModelInferRequest(model_name=route)
    for name in (workload.input, *([workload.mask] if workload.mask else [])):
        spec = workload.spec(name)
        message.inputs.add(name=name, datatype=spec["datatype"], shape=spec["shape"])
    size = workload.size * np.dtype(workload.dtype).itemsize
    tag = _field(7, size)
    mask = tag + _mask(workload) if workload.mask else b""
    prefix = message.SerializeToString() + tag
    whole = len(prefix) + size + len(mask)
    head = file.blob(b"\0" + whole.to_bytes(GRPC_PREFIX - 1, "big") + prefix)
    _windows(file, workload, head, file.blob(mask))


@cache
def messages() -> Any:
    """The protocol's messages, from a client that is not ours."""
    return import_module("tritonclient.grpc.service_pb2")


def _field(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited protobuf field."""
    encoded = bytearray([number << 3 | 2])
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*encoded, length])


def _mask(workload: Workload) -> bytes:
    return np.ones(workload.shape, np.int64).tobytes() if workload.mask else b""


def _windows(file: RequestFile, workload: Workload, head: tuple[int, int], tail: tuple[int, int]) -> None:
    pool = file.blob(workload.numbers.tobytes())
    width = workload.numbers.itemsize
    for index in range(ROWS):
        file.add((head, (pool[0] + index * workload.stride * width, workload.size * width), tail))
