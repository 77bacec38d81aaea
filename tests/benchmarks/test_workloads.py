import json
import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks import workloads
from benchmarks.generator import RequestFile
from benchmarks.workloads import ROWS, WORKLOADS, Workload, messages, request_file

SMALL = Workload("tree", "X", (1, 3), "float32", 2)
MASKED = Workload("encoder", "ids", (1, 4), "int64", 4, mask="mask")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(workloads, "OUT", tmp_path)
    return tmp_path


def requests_of(path: Path) -> list[bytes]:
    """The requests of a file, joined from their segments as the generator does."""
    data = path.read_bytes()
    assert data[:8] == b"SLUICE01"
    requests, segments = struct.unpack_from("<II", data, 8)
    ends = struct.unpack_from(f"<{requests}I", data, 16)
    at = 16 + (requests * 4 + 7) // 8 * 8
    table = np.frombuffer(data, "<u8", segments * 2, at).reshape(-1, 2).tolist()
    blob = data[at + segments * 16 :]
    starts = (0, *ends[:-1])
    return [
        b"".join(blob[offset : offset + length] for offset, length in table[start:end])
        for start, end in zip(starts, ends, strict=True)
    ]


def parts(request: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


def test_segments_are_joined_in_order_and_may_be_shared(tmp_path: Path) -> None:
    file = RequestFile(tmp_path / "requests.bin")
    a, b = file.blob(b"one"), file.blob(b"two")
    file.add((a, b))
    file.add((b,))
    file.add((b, a, (b[0] + 1, 2)))
    assert requests_of(file.write()) == [b"onetwo", b"two", b"twoonewo"]


@pytest.mark.parametrize("workload", [SMALL, MASKED], ids=["floats", "ids"])
def test_json_requests_hold_their_rows(workload: Workload, out: Path) -> None:
    requests = requests_of(request_file(workload, "json", "/v2/models/m/infer", {"X-Extra": "1"}))
    assert len(requests) == ROWS
    assert len(set(requests)) == ROWS
    for index in (0, 1, ROWS - 1):
        headers, body = parts(requests[index])
        assert headers["x-extra"] == "1"
        assert int(headers["content-length"]) == len(body)
        tensors = {tensor["name"]: tensor for tensor in json.loads(body)["inputs"]}
        for name, wanted in workload.row(index).items():
            assert tensors[name]["shape"] == list(wanted.shape)
            assert np.array_equal(np.array(tensors[name]["data"], wanted.dtype), wanted.ravel())


def test_rows_without_a_protocol_are_one_flat_list(out: Path) -> None:
    _, body = parts(requests_of(request_file(SMALL, "rows", "/"))[5])
    assert np.array_equal(np.array(json.loads(body)["inputs"], np.float32), SMALL.row(5)["X"])


@pytest.mark.parametrize("workload", [SMALL, MASKED], ids=["floats", "ids"])
def test_binary_requests_hold_their_rows(workload: Workload, out: Path) -> None:
    headers, body = parts(requests_of(request_file(workload, "binary", "/"))[7])
    size = int(headers["inference-header-content-length"])
    assert int(headers["content-length"]) == len(body)
    document, at = json.loads(body[:size]), size
    for tensor in document["inputs"]:
        length = tensor["parameters"]["binary_data_size"]
        wanted = workload.row(7)[tensor["name"]]
        assert np.array_equal(np.frombuffer(body[at : at + length], wanted.dtype).reshape(wanted.shape), wanted)
        at += length
    assert at == len(body)


@pytest.mark.parametrize("workload", [SMALL, MASKED, WORKLOADS["mlp"]], ids=["floats", "ids", "mlp"])
def test_grpc_requests_hold_their_rows(workload: Workload, out: Path) -> None:
    request = requests_of(request_file(workload, "grpc", "m"))[ROWS - 1]
    assert request[0] == 0
    assert int.from_bytes(request[1:5], "big") == len(request) - 5
    message = messages().ModelInferRequest.FromString(request[5:])
    assert message.model_name == "m"
    for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
        wanted = workload.row(ROWS - 1)[tensor.name]
        assert list(tensor.shape) == list(wanted.shape)
        assert np.array_equal(np.frombuffer(raw, wanted.dtype).reshape(wanted.shape), wanted)


def test_text_and_binary_are_the_same_numbers() -> None:
    pool, starts = SMALL.text
    numbers = np.array([float(piece) for piece in pool.split(b",")], np.float32)
    assert np.array_equal(numbers, SMALL.numbers)
    assert pool[starts[10] : starts[11] - 1] == b"%.4f" % SMALL.numbers[10]
