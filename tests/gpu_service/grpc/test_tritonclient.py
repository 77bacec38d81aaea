"""tritonclient, unchanged, against the real container process."""

import asyncio
import gc
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
import tritonclient.grpc.aio as triton_aio  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from gpu_service.protocol.health_pb2 import HealthCheckRequest, HealthCheckResponse
from shared.codecs.protobuf.inference_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from shared.domain.dtypes import DType
from shared.domain.tensors import NUMPY_DTYPES, Array, bytes_tensor
from tests.gpu_service.server import Server, free_port, running
from tests.models import add_model, identity_model, slow_model, sum_model, write_package

DTYPES = [dtype for dtype in DType if dtype is not DType.BF16]
SERVICE = "/inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_package(folder / "add" / "1", add_model(1.0))
    write_package(folder / "add" / "2", add_model(2.0))
    write_package(folder / "slow" / "1", slow_model())
    write_package(folder / "sum" / "1", sum_model())
    for dtype in DType:
        write_package(folder / f"same-{dtype.lower()}" / "1", identity_model(dtype))
    return folder


@pytest.fixture(scope="module")
def target(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    environment = {
        "SLUICE_MODEL_DIR": str(models),
        "SLUICE_GRPC_PORT": str(port),
        "SLUICE_MAX_BODY_BYTES": "3000000",
        "SLUICE_THREADS": "1",
    }
    with running(tmp_path_factory.mktemp("server"), **environment) as server:
        server.wait_for_ping(200)
        yield f"127.0.0.1:{port}"
        _no_unexpected_errors(server)


def _no_unexpected_errors(server: Server) -> None:
    assert not [line for line in server.lines() if line["message"] == "unexpected error"]


@pytest.fixture
def client(target: str) -> Iterator[Any]:
    with triton.InferenceServerClient(target) as connected:
        yield connected


def given(name: str, array: Array, dtype: DType = DType.FP32) -> Any:
    tensor = triton.InferInput(name, list(array.shape), dtype.value)
    tensor.set_data_from_numpy(array)
    return tensor


def x(*values: float) -> Any:
    return given("x", np.array([values], dtype=np.float32))


def refused(statuses: str, work: Any) -> str:
    """What the client is told, in one of the statuses (separated by spaces)."""
    with pytest.raises(InferenceServerException) as caught:
        work()
    assert caught.value.status() in {f"StatusCode.{status}" for status in statuses.split()}
    return str(caught.value.message())


class Answers:
    def __init__(self) -> None:
        self.queue: queue.Queue[Any] = queue.Queue()

    def __call__(self, result: Any, error: Any) -> None:
        self.queue.put((result, error))

    def next(self) -> Any:
        return self.queue.get(timeout=60)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("add")
    assert client.is_model_ready("add", "2")
    assert not client.is_model_ready("add", "3")
    assert not client.is_model_ready("nothing")
    server = client.get_server_metadata(as_json=True)
    assert server["name"] == "sluice"
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(server["extensions"])
    assert client.get_model_metadata("add", as_json=True) == {
        "name": "add",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": ["-1", "2"]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": ["-1", "2"]}],
    }


def test_configuration(client: Any) -> None:
    config = client.get_model_config("same-bytes", as_json=True)["config"]
    assert config["max_batch_size"] == 1024
    assert config["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": ["2"]}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_STRING", "dims": ["2"]}]
    assert config["backend"] == "onnxruntime"
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert "dynamic_batching" in config


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_in_and_out(client: Any, dtype: DType) -> None:
    if dtype is DType.BYTES:
        array = bytes_tensor([b"", "é".encode(), b"long" * 1000, b"x"]).reshape(2, 2)
    else:
        array = np.array([[0, 1], [1, 1]]).astype(NUMPY_DTYPES[dtype])
    result = client.infer(f"same-{dtype.lower()}", [given("x", array, dtype)], request_id="é-17")
    assert result.get_response().id == "é-17"
    output = result.as_numpy("y")
    assert output.dtype == NUMPY_DTYPES[dtype]
    assert output.tolist() == array.tolist()


def test_bf16_in_and_out(client: Any) -> None:
    array = np.array([[1.5, -2.0]], dtype=ml_dtypes.bfloat16)
    output = client.infer("same-bf16", [given("x", array, DType.BF16)]).as_numpy("y")
    assert output.dtype == array.dtype
    assert output.tolist() == array.tolist()


def test_typed_contents(target: str) -> None:
    request = ModelInferRequest(model_name="add", outputs=[ModelInferRequest.InferRequestedOutputTensor(name="y")])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    with grpc.insecure_channel(target) as channel:
        infer: Any = channel.unary_unary(
            f"{SERVICE}/ModelInfer", ModelInferRequest.SerializeToString, ModelInferResponse.FromString
        )
        (raw,) = infer(request, timeout=30).raw_output_contents
    assert np.frombuffer(raw, np.float32).tolist() == [3, 4]


def test_versions_and_requested_outputs(client: Any) -> None:
    assert client.infer("add", [x(1, 2)], model_version="1").as_numpy("y").tolist() == [[2, 3]]
    assert client.infer("add", [x(1, 2)]).as_numpy("y").tolist() == [[3, 4]]
    both = [given(name, np.ones((1, 3), np.float32)) for name in ("a", "b")]
    wanted = [triton.InferRequestedOutput("difference")]
    result = client.infer("sum", both, outputs=wanted)
    assert result.as_numpy("difference").tolist() == [[0, 0, 0]]
    assert result.as_numpy("total") is None
    assert client.infer("sum", both).as_numpy("total").tolist() == [[2, 2, 2]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: Any, algorithm: str) -> None:
    array = np.ones((500, 2), np.float32)
    result = client.infer("add", [given("x", array)], compression_algorithm=algorithm)
    assert result.as_numpy("y").tolist() == (array + 2).tolist()


def test_large_messages_and_their_limit(client: Any) -> None:
    array = np.arange(2 * 300_000, dtype=np.float32).reshape(-1, 2)
    message = refused("INVALID_ARGUMENT", lambda: client.infer("add", [given("x", array)]))
    assert "the limit of this model is 1024" in message
    both = [given(name, array.reshape(1, -1)) for name in ("a", "b")]
    message = refused("RESOURCE_EXHAUSTED", lambda: client.infer("sum", both))
    assert "the limit is 3000000" in message
    half = array.reshape(2, -1)[:1]
    both = [given(name, half) for name in ("a", "b")]
    assert client.infer("sum", both).as_numpy("total").tolist() == (half + half).tolist()


def test_errors_have_their_status(client: Any) -> None:
    assert "nothing" in refused("NOT_FOUND", lambda: client.infer("nothing", [x(1, 2)]))
    refused("NOT_FOUND", lambda: client.infer("add", [x(1, 2)], model_version="9"))
    refused("NOT_FOUND", lambda: client.infer("add", [x(1, 2)], model_version="one"))
    refused("NOT_FOUND", lambda: client.get_model_metadata("nothing"))
    refused("NOT_FOUND", lambda: client.get_inference_statistics("nothing"))
    assert "/inputs/0/shape" in refused("INVALID_ARGUMENT", lambda: client.infer("add", [x(1, 2, 3)]))
    assert "it takes x" in refused("INVALID_ARGUMENT", lambda: client.infer("add", [given("z", np.ones((1, 2), "f4"))]))
    message = refused("INVALID_ARGUMENT", lambda: client.infer("add", [x(float("nan"), 2)]))
    assert "/raw_input_contents/0/0" in message
    unknown = [triton.InferRequestedOutput("z")]
    refused("INVALID_ARGUMENT", lambda: client.infer("add", [x(1, 2)], outputs=unknown))


def test_a_failure_carries_its_code_and_the_callers_id(target: str) -> None:
    request = ModelInferRequest(model_name="nothing")
    with grpc.insecure_channel(target) as channel:
        infer: Any = channel.unary_unary(f"{SERVICE}/ModelInfer", ModelInferRequest.SerializeToString)
        with pytest.raises(grpc.RpcError) as caught:
            infer(request, metadata=[("x-request-id", "mine")], timeout=30)
    error: Any = caught.value
    assert dict(error.trailing_metadata()) == {"x-sluice-code": "model_not_found", "x-request-id": "mine"}


def test_deadlines_of_every_kind(client: Any) -> None:
    long = given("x", np.array([[100_000]], np.float32))
    refused("DEADLINE_EXCEEDED", lambda: client.infer("slow", [long], client_timeout=0.05))
    # What cannot be done in time is not begun: it is refused as overload where that is known beforehand.
    missed = "DEADLINE_EXCEEDED UNAVAILABLE"
    refused(missed, lambda: client.infer("slow", [long], timeout=20_000))
    short = {"x-sluice-deadline-ms": "20"}
    refused(missed, lambda: client.infer("slow", [long], headers=short))
    refused("INVALID_ARGUMENT", lambda: client.infer("add", [x(1, 2)], headers={"x-sluice-priority": "256"}))
    fine = {"x-sluice-deadline-ms": "20000", "x-sluice-tenant": "t", "x-sluice-priority": "1"}
    answer = client.infer("add", [x(1, 2)], headers=fine, priority=3, timeout=20_000_000, client_timeout=20)
    assert answer.as_numpy("y").tolist() == [[3, 4]]


def test_a_cancelled_call_is_dropped_before_it_runs(client: Any) -> None:
    def runs() -> int:
        (stats,) = client.get_inference_statistics("slow").model_stats
        return int(stats.inference_count)

    # One core: while the first runs, the others wait.
    before = runs()
    answers, cancelled = Answers(), Answers()
    client.async_infer("slow", [given("x", np.array([[60_000]], np.float32))], answers)
    others = [client.async_infer("slow", [given("x", np.ones((3, 1), np.float32))], cancelled) for _ in range(5)]
    for other in others:
        other.cancel()
    result, error = answers.next()
    assert error is None
    assert result.as_numpy("y").tolist() == [[120_000]]
    assert client.infer("slow", [given("x", np.array([[1]], np.float32))]).as_numpy("y").tolist() == [[2]]
    assert runs() - before < 2 + 3 * len(others)
    assert all(cancelled.next()[1].status() == "StatusCode.CANCELLED" for _ in others)


def test_many_callers_at_once_get_their_own_rows(target: str) -> None:
    wrong: list[Any] = []

    def call(number: int) -> None:
        with triton.InferenceServerClient(target) as own:
            for step in range(30):
                value = float(number * 1000 + step)
                if own.infer("add", [x(value, 0)]).as_numpy("y").tolist() != [[value + 2, 2]]:
                    wrong.append((number, step))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_statistics(client: Any) -> None:
    client.infer("same-fp64", [given("x", np.ones((3, 2)), DType.FP64)])
    (before,) = client.get_inference_statistics("same-fp64").model_stats
    client.infer("same-fp64", [given("x", np.ones((3, 2)), DType.FP64)])
    (after,) = client.get_inference_statistics("same-fp64", "1").model_stats
    assert (after.name, after.version) == ("same-fp64", "1")
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count - before.execution_count == 1
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert 3 in [batch.batch_size for batch in after.batch_stats]
    assert after.last_inference > 1_500_000_000_000
    names = {stats.name for stats in client.get_inference_statistics().model_stats}
    assert {"add", "slow", "same-bytes"} <= names


def test_the_repository_is_controlled(client: Any, models: Path) -> None:
    def index() -> dict[tuple[str, str], str]:
        found = client.get_model_repository_index().models
        return {(model.name, model.version): model.state for model in found}

    assert index()["sum", "1"] == "READY"
    client.unload_model("sum", unload_dependents=True)
    assert index()["sum", "1"] == "UNAVAILABLE"
    refused("UNAVAILABLE", lambda: client.infer("sum", [given("a", np.ones((1, 1), "f4"))]))
    write_package(models / "new" / "1", add_model(5.0))
    client.load_model("new")
    client.load_model("sum")
    assert client.infer("new", [x(0, 1)]).as_numpy("y").tolist() == [[5, 6]]
    assert index()["sum", "1"] == "READY"
    refused("NOT_FOUND", lambda: client.load_model("nothing"))
    refused("NOT_FOUND", lambda: client.unload_model("nothing"))
    assert "overridden" in refused("INVALID_ARGUMENT", lambda: client.load_model("new", config="{}"))


def test_shared_memory_is_declined_clearly(client: Any) -> None:
    assert not client.get_system_shared_memory_status().regions
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    message = refused("UNIMPLEMENTED", lambda: client.register_system_shared_memory("r", "/r", 64))
    assert "send tensors in the message" in message
    refused("UNIMPLEMENTED", lambda: client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64))
    refused("NOT_FOUND", lambda: client.get_system_shared_memory_status("r"))
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_shared_memory("r", 8)
    assert "shared_memory_region" in refused("INVALID_ARGUMENT", lambda: client.infer("add", [tensor]))


def test_settings_are_told_and_fixed(client: Any) -> None:
    assert client.get_trace_settings(as_json=True)["settings"]["trace_level"] == {"value": ["OFF"]}
    assert client.get_log_settings(as_json=True)["settings"]["log_info"] == {"bool_param": True}
    client.update_log_settings({"log_info": True})
    client.update_trace_settings(settings={"trace_level": ["OFF"]})
    message = refused("FAILED_PRECONDITION", lambda: client.update_log_settings({"log_info": False}))
    assert "SLUICE_LOG_LEVEL" in message
    refused("FAILED_PRECONDITION", lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}))
    refused("INVALID_ARGUMENT", lambda: client.update_log_settings({"unheard": 1}))


def test_the_health_check_of_grpc(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
        )
        for service in ("", "inference.GRPCInferenceService"):
            assert check(HealthCheckRequest(service=service), timeout=30).status == HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            check(HealthCheckRequest(service="other"), timeout=30)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# Streams.


def test_a_stream_answers_in_order_and_survives_errors(client: Any) -> None:
    answers = Answers()
    client.start_stream(answers)
    for number in range(300):
        model = "nothing" if number == 100 else "slow" if number == 0 else "add"
        tensor = given("x", np.array([[20_000]], np.float32)) if number == 0 else x(number, 0)
        client.async_stream_infer(model, [tensor], request_id=str(number))
    for number in range(300):
        result, error = answers.next()
        if number == 100:
            assert "nothing" in error.message()
            continue
        assert error is None, error
        assert result.get_response().id == str(number)
        expected = [[40_000]] if number == 0 else [[number + 2, 2]]
        assert result.as_numpy("y").tolist() == expected
    client.stop_stream()


def test_a_stream_marks_final_answers_if_asked(client: Any) -> None:
    answers = Answers()
    client.start_stream(answers)
    client.async_stream_infer("add", [x(1, 2)], enable_empty_final_response=True)
    client.async_stream_infer("add", [x(1, 2)])
    first, _ = answers.next()
    assert first.get_response().parameters["triton_final_response"].bool_param
    assert first.as_numpy("y").tolist() == [[3, 4]]
    assert not answers.next()[0].get_response().parameters
    client.stop_stream()


def test_a_stream_that_asks_for_statuses_ends_with_one(client: Any) -> None:
    answers = Answers()
    client.start_stream(answers, headers={"triton_grpc_error": "true"})
    client.async_stream_infer("nothing", [x(1, 2)])
    _, error = answers.next()
    assert error.status() == "StatusCode.NOT_FOUND"
    client.stop_stream()


def test_a_stream_has_a_deadline(client: Any) -> None:
    answers = Answers()
    client.start_stream(answers, stream_timeout=0.3)
    _, error = answers.next()
    assert error.status() == "StatusCode.DEADLINE_EXCEEDED"
    client.stop_stream()


def test_a_stream_that_is_cancelled_leaves_the_server_well(client: Any) -> None:
    answers = Answers()
    client.start_stream(answers)
    for _ in range(50):
        client.async_stream_infer("slow", [given("x", np.array([[5_000]], np.float32))])
    client.stop_stream(cancel_requests=True)
    assert client.infer("add", [x(1, 2)]).as_numpy("y").tolist() == [[3, 4]]


def test_a_whole_stream_of_plain_grpc(target: str) -> None:
    def requests() -> Iterator[bytes]:
        for number in range(1000):
            request = ModelInferRequest(model_name="add", id=str(number))
            request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
            request.raw_input_contents.append(np.array([number, 0], np.float32).tobytes())
            yield request.SerializeToString()
        yield b"\xff"

    with grpc.insecure_channel(target) as channel:
        infer: Any = channel.stream_stream(f"{SERVICE}/ModelStreamInfer", None, ModelStreamInferResponse.FromString)
        answers = list(infer(requests(), timeout=60))
    assert [answer.infer_response.id for answer in answers] == [*map(str, range(1000)), ""]
    assert "not a whole ModelInferRequest" in answers[-1].error_message
    assert not any(answer.error_message for answer in answers[:-1])


# asyncio.


def test_the_asyncio_client(target: str) -> None:
    async def use() -> None:
        async with triton_aio.InferenceServerClient(target) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("add")).name == "add"
            calls = (client.infer("add", [x(number, 0)], request_id=str(number)) for number in range(200))
            results = await asyncio.gather(*calls)
            assert [result.as_numpy("y").tolist() for result in results] == [[[n + 2, 2]] for n in range(200)]
            with pytest.raises(InferenceServerException) as caught:
                await client.infer("nothing", [x(1, 2)])
            assert caught.value.status() == "StatusCode.NOT_FOUND"

            async def requests() -> Any:
                for number in range(20):
                    yield {"model_name": "add", "inputs": [x(number, 0)], "request_id": str(number)}

            got = []
            async for result, error in client.stream_infer(requests()):
                assert error is None
                got.append((result.get_response().id, result.as_numpy("y").tolist()))
            assert got == [(str(n), [[n + 2, 2]]) for n in range(20)]

    asyncio.run(use())
    gc.collect()
