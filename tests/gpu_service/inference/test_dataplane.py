"""The data plane with its scheduler on real sessions: batches, faults, deadlines, fairness."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_service.inference.request import Call, InferenceRequest
from gpu_service.scheduling.errors import DeadlinePassed, Overloaded, TenantOverloaded
from shared.codecs.content.decoded import Decoded
from shared.domain.errors import InvalidRequest, ModelNotFound, NotFinite, UnknownField, WrongDtype, WrongShape
from shared.domain.validation import Inputs
from tests.gpu_service.serving import on_loop, outcome, serving
from tests.models import add_model, gather_model, manifest, slow_model, sum_model, tensor, text_package, write_package


def rows(*values: list[float]) -> Any:
    return np.array(values, dtype=np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_package(folder / "plus/1", add_model(1))
    write_package(folder / "gather/1", gather_model())
    write_package(folder / "sum/1", sum_model())
    write_package(folder / "slow/1", slow_model())
    text_package(folder / "texts/1")
    shared = [tensor("x", "FP32", [-1, 1])], [tensor("y", "FP32", [-1, 1])]
    write_package(folder / "joined/1", slow_model(), manifest("joined", 1, *shared, serving={"join": True}))
    small = {"batching": {"max_rows": 2}}
    write_package(folder / "small/1", slow_model(), manifest("small", 1, *shared, serving=small))
    return folder


def test_a_lone_request_is_answered(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            request = await served.infer("plus", x=rows([1, 2], [3, 4]))
            assert request.result is not None
            np.testing.assert_array_equal(request.result["y"], [[2, 3], [4, 5]])
            assert request.arrived <= request.decoded_at <= request.started <= request.finished

    on_loop(work)


def test_what_arrives_together_runs_together_and_everyone_gets_their_own_rows(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            inputs = [rows(*[[float(i), float(-i)]] * (1 + i % 3)) for i in range(100)]
            requests = await asyncio.gather(*(served.infer("plus", x=x) for x in inputs))
            for x, request in zip(inputs, requests, strict=True):
                assert request.result is not None
                np.testing.assert_array_equal(request.result["y"], x + 1)
            stats = served.model("plus").stats
            assert stats.inference_count == sum(len(x) for x in inputs)
            assert stats.execution_count < 10

    on_loop(work)


def test_shapes_that_differ_are_never_merged(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            sizes = [1 + i % 3 for i in range(30)]
            inputs = [np.full((1, size), i, dtype=np.float32) for i, size in enumerate(sizes)]
            requests = await asyncio.gather(*(served.infer("sum", a=x, b=x) for x in inputs))
            for x, request in zip(inputs, requests, strict=True):
                assert request.result is not None
                np.testing.assert_array_equal(request.result["total"], 2 * x)
                np.testing.assert_array_equal(request.result["difference"], 0 * x)

    on_loop(work)


def test_each_gets_the_outputs_that_it_asked_for(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            wishes: list[tuple[str, ...]] = [("total",), ("difference",), (), ("difference", "total")]
            x = rows([1.0])
            requests = await asyncio.gather(*(served.infer("sum", wish, a=x, b=x) for wish in wishes))
            found = [list(request.result or ()) for request in requests]
            assert found == [["total"], ["difference"], ["total", "difference"], ["difference", "total"]]

    on_loop(work)


def test_one_poisoned_row_fails_alone(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            indices = [99 if i in (7, 40) else i % 3 for i in range(64)]
            results = await asyncio.gather(
                *(outcome(served.infer("gather", x=np.array([index], dtype=np.int64))) for index in indices)
            )
            for index, result in zip(indices, results, strict=True):
                if index == 99:
                    assert isinstance(result, InvalidRequest)
                else:
                    assert isinstance(result, InferenceRequest)
                    assert result.result is not None
                    np.testing.assert_array_equal(result.result["y"], [[2 * index, 2 * index + 1]])

    on_loop(work)


def test_a_value_that_is_not_allowed_fails_alone_and_is_named(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            values = [float("nan") if i == 5 else float(i) for i in range(20)]
            results = await asyncio.gather(*(outcome(served.infer("plus", x=rows([0, v]))) for v in values))
            for i, result in enumerate(results):
                if i == 5:
                    assert isinstance(result, NotFinite)
                    assert result.fields[0].pointer == "/inputs/x/0/1"
                else:
                    assert isinstance(result, InferenceRequest)

    on_loop(work)


@pytest.mark.parametrize(
    ("inputs", "outputs", "error"),
    [
        ({"x": rows([1, 2, 3])}, (), WrongShape),
        ({"x": np.zeros((1, 2))}, (), WrongDtype),
        ({"z": rows([1, 2])}, (), UnknownField),
        ({"x": rows([1, 2])}, ("z",), UnknownField),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_queued(
    models: Path, inputs: dict[str, Any], outputs: tuple[str, ...], error: type[Exception]
) -> None:
    async def work() -> None:
        async with serving(models) as served:
            with pytest.raises(error):
                served.dataplane.submit(Call("plus"), lambda _: Decoded(Inputs(inputs), outputs), print)
            with pytest.raises(ModelNotFound):
                await served.infer("nothing", x=rows([1, 2]))
            assert served.model("plus").stats.execution_count == 0
            assert sum(served.model("plus").stats.refusals.values()) == 1

    on_loop(work)


def test_text_is_tokenized_in_the_batch(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            texts = [b"one two", b"three"]
            requests = await asyncio.gather(
                *(served.infer("texts", text=np.array([text], dtype=np.object_)) for text in texts)
            )
            ids = [list((request.result or {})["y"][0, 0]) for request in requests]
            assert [[int(token) for token in row if token] for row in ids] == [[1, 4, 5, 2], [1, 6, 2]]

    on_loop(work)


def test_work_of_callers_that_have_gone_is_dropped(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1) as served:
            first = asyncio.create_task(served.infer("small", x=rows([200_000], [200_000])))
            await asyncio.sleep(0.05)
            waiting = [asyncio.create_task(served.infer("small", x=rows([7.0]))) for _ in range(10)]
            await asyncio.sleep(0.01)
            for task in waiting[1:]:
                task.cancel()
            await first
            assert (await waiting[0]).result is not None
            await served.model("small").drain()
            assert served.model("small").stats.inference_count == 3

    on_loop(work)


def test_a_deadline_in_the_queue_is_kept_and_the_work_not_begun(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1) as served:
            first = asyncio.create_task(served.infer("small", x=rows([400_000.0])))
            await asyncio.sleep(0.05)
            start = asyncio.get_running_loop().time()
            with pytest.raises((DeadlinePassed, Overloaded)):
                await served.infer("small", x=rows([5.0]), deadline_ms=50)
            assert asyncio.get_running_loop().time() - start < 0.5
            assert not first.done()
            await first
            assert served.model("small").stats.inference_count == 1

    on_loop(work)


def test_a_run_that_nobody_waits_for_any_more_is_stopped(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1) as served:
            # By its length it would run for minutes.
            with pytest.raises(DeadlinePassed):
                await served.infer("slow", x=rows([16_000_000.0]), deadline_ms=100)
            abandoned = asyncio.create_task(served.infer("slow", x=rows([16_000_000.0])))
            await asyncio.sleep(0.1)
            abandoned.cancel()
            async with asyncio.timeout(20):
                assert (await served.infer("slow", x=rows([3.0]))).result is not None

    on_loop(work)


@pytest.mark.parametrize("deadline_ms", [0, -5])
def test_a_deadline_that_has_passed_is_refused_at_once(models: Path, deadline_ms: int) -> None:
    async def work() -> None:
        async with serving(models) as served:
            with pytest.raises(DeadlinePassed):
                await served.infer("plus", x=rows([1, 2]), deadline_ms=deadline_ms)

    on_loop(work)


def test_the_protocols_own_parameters_set_deadline_and_priority(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1) as served:
            first = asyncio.create_task(served.infer("small", x=rows([200_000.0])))
            await asyncio.sleep(0.05)
            with pytest.raises((DeadlinePassed, Overloaded)):
                await served.infer("small", x=rows([5.0]), parameters={"timeout": 1000})
            with pytest.raises(WrongDtype):
                await served.infer("small", x=rows([5.0]), parameters={"priority": -1})
            order: list[str] = []

            async def note(name: str, **call: Any) -> None:
                await served.infer("small", x=rows([5.0], [5.0]), **call)
                order.append(name)

            await asyncio.gather(
                note("usual"), note("late", parameters={"priority": 200}), note("early", parameters={"priority": 1})
            )
            await first
            assert order == ["early", "usual", "late"]

    on_loop(work)


def test_one_tenants_backlog_does_not_hold_up_another(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1) as served:
            order: list[str] = []

            async def note(tenant: str) -> None:
                await served.infer("small", x=rows([20_000.0]), tenant=tenant)
                order.append(tenant)

            many = [asyncio.create_task(note("many")) for _ in range(30)]
            await asyncio.sleep(0.02)
            few = [asyncio.create_task(note("few")) for _ in range(2)]
            await asyncio.gather(*many, *few)
            assert max(i for i, tenant in enumerate(order) if tenant == "few") < 16

    on_loop(work)


def test_a_busy_model_does_not_starve_another(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1) as served:
            order: list[str] = []

            async def note(model: str, count: float) -> None:
                await served.infer(model, x=rows([count]))
                order.append(model)

            busy = [asyncio.create_task(note("small", 20_000.0)) for _ in range(30)]
            await asyncio.sleep(0.02)
            await asyncio.gather(note("slow", 10.0), *busy)
            assert order.index("slow") < 10

    on_loop(work)


def test_a_full_queue_refuses_and_says_when_to_come_again(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1, queue_size=4) as served:
            results = await asyncio.gather(*(outcome(served.infer("small", x=rows([20_000.0]))) for _ in range(12)))
            refused = [result for result in results if isinstance(result, Overloaded)]
            assert len(refused) == 12 - sum(isinstance(result, InferenceRequest) for result in results)
            assert 6 <= len(refused) <= 8
            assert all(error.retry_after_s >= 0 for error in refused)
            assert (await served.infer("small", x=rows([1.0]))).result is not None

    on_loop(work)


def test_a_tenant_with_its_share_makes_way_for_others(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1, queue_size=8) as served:
            first = asyncio.create_task(served.infer("small", x=rows([200_000.0], [200_000.0])))
            await asyncio.sleep(0.05)
            other = asyncio.create_task(served.infer("small", x=rows([1.0]), tenant="other"))
            await asyncio.sleep(0)
            results = await asyncio.gather(
                *(outcome(served.infer("small", x=rows([1.0]), tenant="many")) for _ in range(8))
            )
            refused = [result for result in results if isinstance(result, TenantOverloaded)]
            assert refused
            assert sum(isinstance(result, InferenceRequest) for result in results) >= 4
            await asyncio.gather(first, other)

    on_loop(work)


def test_what_cannot_be_done_in_time_is_refused_at_once(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1) as served:
            # It learns how long a run takes: far longer than on the zeros of the warm-up, so that it needs some runs.
            for _ in range(30):
                await served.infer("small", x=rows([50_000.0]))
            waiting = [asyncio.create_task(served.infer("small", x=rows([50_000.0]))) for _ in range(12)]
            await asyncio.sleep(0.01)
            results = [await outcome(served.infer("small", x=rows([50_000.0]), deadline_ms=60)) for _ in range(3)]
            assert any(isinstance(result, Overloaded) for result in results)
            await asyncio.gather(*waiting)

    on_loop(work)


def test_identical_requests_in_flight_share_one_run(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1) as served:
            same = [served.infer("joined", x=rows([50_000.0]), tenant="a") for _ in range(10)]
            requests = await asyncio.gather(*same)
            assert {float((request.result or {})["y"][0, 0]) for request in requests} == {100_000.0}
            stats = served.model("joined").stats
            assert (stats.inference_count, stats.joins) == (1, 9)

    on_loop(work)


def test_a_model_drains(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1) as served:
            model = served.model("small")
            assert model.idle
            tasks = [asyncio.create_task(served.infer("small", x=rows([20_000.0]))) for _ in range(5)]
            await asyncio.sleep(0.01)
            assert not model.idle
            await model.drain()
            assert model.idle
            assert all(request.result for request in await asyncio.gather(*tasks))

    on_loop(work)


def test_a_model_whose_last_requests_expire_is_drained(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=1) as served:
            busy = asyncio.create_task(served.infer("slow", x=rows([300_000.0])))
            await asyncio.sleep(0.05)
            last = asyncio.create_task(outcome(served.infer("small", x=rows([1.0]), deadline_ms=30)))
            await asyncio.sleep(0.01)
            async with asyncio.timeout(10):
                await served.model("small").drain()
            assert not busy.done()
            assert isinstance(await last, DeadlinePassed)
            await busy

    on_loop(work)


def test_a_long_run_does_not_block_the_event_loop(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            task = asyncio.create_task(served.infer("slow", x=rows([300_000.0])))
            turns = 0
            while not task.done():
                await asyncio.sleep(0.005)
                turns += 1
            assert turns > 20

    on_loop(work)
