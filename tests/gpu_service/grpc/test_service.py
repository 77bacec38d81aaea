"""What the service tells those who run it, and models that are not in memory; in this process."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from gpu_service.grpc.server import start_grpc
from gpu_service.telemetry.stats import ServerStats
from gpu_service.telemetry.tracing import tracer_from
from tests.gpu_service.serving import Serving, on_loop, serving
from tests.gpu_service.telemetry.collector import collector
from tests.models import add_model, write_package

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Ready:
    ready = True


async def start(served: Serving, stats: ServerStats, **options: Any) -> Any:
    return await start_grpc(
        served.dataplane,
        served.manager,
        Ready(),
        stats,
        host="127.0.0.1",
        port=0,
        max_message_bytes=1 << 20,
        **options,
    )


def x(*values: float) -> Any:
    tensor = triton.InferInput("x", [1, len(values)], "FP32")
    tensor.set_data_from_numpy(np.array([values], dtype=np.float32))
    return tensor


def infer(port: int, *, model: str = "add", headers: Any = None) -> Any:
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        return client.infer(model, [x(1, 2)], headers=headers).as_numpy("y").tolist()


def stream(port: int) -> None:
    answered: list[Any] = []
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        client.start_stream(lambda result, error: answered.append((result, error)))
        client.async_stream_infer("add", [x(1, 2)])
        client.stop_stream()
    assert [error for _, error in answered] == [None]


def test_traces_log_lines_and_counters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_package(tmp_path / "add" / "1", add_model())
    stats = ServerStats()
    sent = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine", "x-sluice-tenant": "blue"}
    caplog.set_level(logging.INFO, "gpu_service.grpc")
    with collector() as received:
        tracer = tracer_from({"OTEL_EXPORTER_OTLP_ENDPOINT": received.url})
        assert tracer is not None

        async def work() -> None:
            async with serving(tmp_path) as served:
                server = await start(served, stats, tracer=tracer, access_log=True)
                assert await asyncio.to_thread(infer, server.port, headers=sent) == [[2, 3]]
                await asyncio.to_thread(stream, server.port)
                with pytest.raises(InferenceServerException):
                    await asyncio.to_thread(infer, server.port, model="nothing")
                await server.stop(5)

        on_loop(work)
        tracer.shutdown(10)
        spans = {span.name: span for span in received.spans}
        unary = spans["inference.GRPCInferenceService/ModelInfer"]
        assert "inference.GRPCInferenceService/ModelStreamInfer" in spans
    assert {span.trace_id.hex() for span in received.spans if span.parent_span_id.hex() == PARENT} == {TRACE}
    assert unary.name
    lines: list[dict[str, Any]] = [record.fields for record in caplog.records if record.message == "request"]  # type: ignore[attr-defined]
    assert [(line["status"], line.get("code", "")) for line in lines] == [
        ("OK", ""),
        ("OK", ""),
        ("NOT_FOUND", "model_not_found"),
    ]
    assert {name: lines[0][name] for name in ("request_id", "tenant", "model", "version", "rows")} == {
        "request_id": "mine",
        "tenant": "blue",
        "model": "add",
        "version": 1,
        "rows": 1,
    }
    assert lines[0]["ms"].keys() == {"decode", "queue", "run", "encode"}
    assert stats.requests == {
        ("inference.GRPCInferenceService/ModelInfer", "OK"): 1,
        ("inference.GRPCInferenceService/ModelStreamInfer", "OK"): 1,
        ("inference.GRPCInferenceService/ModelInfer", "NOT_FOUND"): 1,
    }
    assert stats.in_flight == 0
    assert stats.connections["grpc"] == 0
    assert stats.bytes_in > 0
    assert stats.bytes_out > 0


def test_a_model_that_gave_its_memory_to_others_is_loaded_again(tmp_path: Path) -> None:
    write_package(tmp_path / "add" / "1", add_model())

    async def work() -> None:
        async with serving(tmp_path) as served:
            server = await start(served, ServerStats())
            repository = served.dataplane.repository

            def evict() -> None:
                (entry,) = repository.entries("add")
                gone = repository.withdraw(entry, "evicted", evicted=True)
                assert gone is not None
                repository.settle(entry)

            evict()
            assert await asyncio.to_thread(infer, server.port) == [[2, 3]]
            evict()
            await asyncio.to_thread(stream, server.port)
            evict()
            with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
                metadata = await asyncio.to_thread(client.get_model_metadata, "add")
            assert metadata.name == "add"
            await server.stop(5)

    on_loop(work)


def test_an_answer_that_cannot_be_made_fails_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_package(tmp_path / "add" / "1", add_model())

    async def work() -> None:
        async with serving(tmp_path) as served:
            server = await start(served, ServerStats())
            model = served.model("add")
            good = model.signature
            model.signature = None
            with pytest.raises(InferenceServerException) as caught:
                await asyncio.to_thread(infer, server.port)
            assert caught.value.status() == "StatusCode.INTERNAL"
            assert caught.value.message() == "The container failed to answer."
            model.signature = good
            assert await asyncio.to_thread(infer, server.port) == [[2, 3]]
            await server.stop(5)

    on_loop(work)
    assert "unexpected error" in caplog.text
