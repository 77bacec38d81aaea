"""NVIDIA's own HTTP clients, unchanged: whoever uses them with Triton can use them here."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]
import tritonclient.http.aio as triton_aio  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from shared.domain.dtypes import DType
from tests.gpu_service.server import Server, running
from tests.models import add_model, identity_model, slow_model, sum_model, write_package

DTYPES = [dtype for dtype in DType if dtype not in (DType.BF16, DType.BYTES)]
ROWS = 300


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_package(folder / "plus/1", add_model(1))
    write_package(folder / "plus/2", add_model(2))
    write_package(folder / "sum/1", sum_model())
    write_package(folder / "slow/1", slow_model())
    for dtype in DType:
        write_package(folder / f"same-{dtype.lower()}/1", identity_model(dtype, ["n", 2]))
    return folder


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("log"), SLUICE_MODEL_DIR=str(models)) as server:
        server.wait_for_ping(200)
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://"), concurrency=4) as client:
        yield client


@asynccontextmanager
async def aio(server: Server) -> AsyncIterator[triton_aio.InferenceServerClient]:
    client = triton_aio.InferenceServerClient(server.url.removeprefix("http://"))
    try:
        yield client
    finally:
        await client.close()


def given(name: str, datatype: str, array: Any, *, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def two(binary: bool = True) -> list[triton.InferInput]:
    return [given(name, "FP32", np.full((1, 2), at, np.float32), binary=binary) for name, at in (("a", 5), ("b", 2))]


def numbers(dtype: DType) -> Any:
    kinds = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BOOL": np.bool_}
    return np.array([[1, 0], [3, 100]]).astype(kinds.get(dtype, dtype.lower()))


def test_health_and_descriptions(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("plus")
    assert client.is_model_ready("plus", "1")
    assert not client.is_model_ready("plus", "3")
    assert client.get_server_metadata()["name"] == "sluice"
    assert client.get_model_metadata("plus")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert client.get_model_config("plus", "2")["name"] == "plus"
    assert client.get_inference_statistics("plus", "1")["model_stats"][0]["version"] == "1"
    assert len(client.get_inference_statistics()["model_stats"]) > 10
    assert {"name": "plus", "version": "1", "state": "READY", "reason": ""} in client.get_model_repository_index()
    with pytest.raises(InferenceServerException, match="nothing") as error:
        client.get_model_metadata("nothing")
    assert error.value.status() == "404"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers(client: triton.InferenceServerClient, dtype: DType, binary_in: bool, binary_out: bool | None) -> None:
    if dtype is DType.FP16 and binary_in is False:
        return  # the client itself refuses FP16 as JSON
    array = numbers(dtype)
    outputs = None if binary_out is None else [triton.InferRequestedOutput("y", binary_data=binary_out)]
    result = client.infer(
        f"same-{dtype.lower()}", [given("x", str(dtype), array, binary=binary_in)], outputs=outputs, request_id="7"
    )
    np.testing.assert_array_equal(result.as_numpy("y"), array)
    assert result.as_numpy("y").dtype == array.dtype
    assert result.get_response()["id"] == "7"


def test_bf16(client: triton.InferenceServerClient) -> None:
    array = np.array([[1.5, -2]], ml_dtypes.bfloat16)
    result = client.infer("same-bf16", [given("x", "BF16", array)])
    np.testing.assert_array_equal(result.as_numpy("y"), array)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_strings(client: triton.InferenceServerClient, binary_in: bool, binary_out: bool) -> None:
    array = np.array([["", "ä\U0001f600"], ["three", "4"]], dtype=object)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary_out)]
    result = client.infer("same-bytes", [given("x", "BYTES", array, binary=binary_in)], outputs=outputs)
    values = result.as_numpy("y")
    assert [v.decode() if isinstance(v, bytes) else v for v in values.ravel()] == list(array.ravel())


def test_shared_memory_and_classification_are_declined_clearly(client: triton.InferenceServerClient) -> None:
    shared = triton.InferInput("a", [1, 2], "FP32")
    shared.set_shared_memory("region", 8)
    into = triton.InferRequestedOutput("total")
    into.set_shared_memory("region", 8)
    classes = triton.InferRequestedOutput("total", class_count=1)
    for inputs, outputs in (([shared, two()[1]], None), (two(), [into])):
        with pytest.raises(InferenceServerException, match="shared_memory_region: is not offered") as error:
            client.infer("sum", inputs, outputs=outputs)
        assert error.value.status() == "422"
    for binary in (True, False):
        with pytest.raises(InferenceServerException, match="classification: is not offered"):
            client.infer("sum", two(binary=binary), outputs=[classes])


def test_some_outputs_binary_and_some_not(client: triton.InferenceServerClient) -> None:
    outputs = [
        triton.InferRequestedOutput("difference", binary_data=True),
        triton.InferRequestedOutput("total", binary_data=False),
    ]
    result = client.infer("sum", two(), outputs=outputs)
    assert result.as_numpy("difference").tolist() == [[3, 3]]
    assert result.as_numpy("total").tolist() == [[7, 7]]
    only = client.infer("sum", two(binary=False), outputs=outputs[:1])
    assert only.as_numpy("total") is None


@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("answer_coding", [None, "gzip", "deflate"])
def test_compression(
    client: triton.InferenceServerClient, request_coding: str | None, answer_coding: str | None
) -> None:
    array = np.ones((ROWS, 2), np.float32)
    result = client.infer(
        "plus",
        [given("x", "FP32", array)],
        model_version="1",
        request_compression_algorithm=request_coding,
        response_compression_algorithm=answer_coding,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), array + 1)


def test_priority_timeout_and_parameters(client: triton.InferenceServerClient) -> None:
    array = np.zeros((1, 2), np.float32)
    result = client.infer(
        "plus", [given("x", "FP32", array)], priority=1, timeout=10_000_000, parameters={"own": "value"}
    )
    assert result.as_numpy("y").tolist() == [[2, 2]]
    slow = given("x", "FP32", np.full((1, 1), 3_000_000, np.float32))
    with pytest.raises(InferenceServerException) as error:
        client.infer("slow", [slow], timeout=20_000)
    assert error.value.status() in ("503", "504")


def test_async_infer(client: triton.InferenceServerClient) -> None:
    waiting = [
        client.async_infer("plus", [given("x", "FP32", np.full((1, 2), row, np.float32))], model_version="1")
        for row in range(20)
    ]
    assert [answer.get_result().as_numpy("y").tolist() for answer in waiting] == [[[row + 1] * 2] for row in range(20)]


def test_errors_are_told(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="nothing") as error:
        client.infer("nothing", [given("x", "FP32", np.zeros((1, 2), np.float32))])
    assert error.value.status() == "404"
    with pytest.raises(InferenceServerException, match="/inputs/0/shape"):
        client.infer("plus", [given("x", "FP32", np.zeros((1, 3), np.float32))])


def test_load_and_unload(client: triton.InferenceServerClient, models: Path) -> None:
    write_package(models / "later/1", add_model(5))
    client.load_model("later")
    result = client.infer("later", [given("x", "FP32", np.zeros((1, 2), np.float32))])
    assert result.as_numpy("y").tolist() == [[5, 5]]
    client.unload_model("later", unload_dependents=True)
    assert not client.is_model_ready("later")
    with pytest.raises(InferenceServerException, match="parameters"):
        client.load_model("later", config="{}")
    with pytest.raises(InferenceServerException):
        client.load_model("nothing")


def test_shared_memory_traces_and_logs(client: triton.InferenceServerClient) -> None:
    assert client.get_system_shared_memory_status() == []
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_system_shared_memory()
    client.unregister_system_shared_memory("region")
    client.unregister_cuda_shared_memory()
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.register_system_shared_memory("region", "/key", 64)
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.register_cuda_shared_memory("region", b"handle", 0, 64)
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.get_trace_settings("plus")["trace_level"] == ["OFF"]
    assert client.update_trace_settings(settings={}) == client.get_trace_settings()
    with pytest.raises(InferenceServerException, match="trace_level"):
        client.update_trace_settings("plus", {"trace_level": ["TIMESTAMPS"]})
    assert client.update_log_settings({}) == client.get_log_settings()
    with pytest.raises(InferenceServerException, match="log_info"):
        client.update_log_settings({"log_info": not client.get_log_settings()["log_info"]})


def test_asyncio_client(server: Server, models: Path) -> None:
    write_package(models / "again/1", add_model(7))

    async def check() -> None:
        async with aio(server) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("plus", "2")
            assert not await client.is_model_ready("nothing")
            assert (await client.get_server_metadata())["name"] == "sluice"
            assert (await client.get_model_metadata("sum"))["outputs"][0]["name"] == "total"
            assert (await client.get_model_config("sum"))["name"] == "sum"
            assert (await client.get_inference_statistics("plus"))["model_stats"][1]["version"] == "2"
            assert len(await client.get_model_repository_index()) > 10
            assert await client.get_system_shared_memory_status() == []
            assert (await client.get_trace_settings())["trace_level"] == ["OFF"]
            assert "log_level" not in await client.get_log_settings()
            await client.load_model("again")
            await client.unload_model("again")
            with pytest.raises(InferenceServerException, match="nothing"):
                await client.load_model("nothing")

    asyncio.run(check())


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_asyncio_client_predicts(server: Server, binary: bool, coding: str | None) -> None:
    words = np.array([["one", "ü"]] * ROWS, dtype=object)

    async def check() -> None:
        async with aio(server) as client:
            outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
            codings = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
            strings = await client.infer(
                "same-bytes", [given("x", "BYTES", words, binary=binary)], outputs=outputs, **codings
            )
            values = strings.as_numpy("y").ravel()
            assert [v.decode() if isinstance(v, bytes) else v for v in values] == list(words.ravel())
            rows = await asyncio.gather(
                *(client.infer("plus", [given("x", "FP32", np.full((1, 2), i, np.float32))]) for i in range(20))
            )
            assert [row.as_numpy("y").tolist() for row in rows] == [[[i + 2] * 2] for i in range(20)]

    asyncio.run(check())
