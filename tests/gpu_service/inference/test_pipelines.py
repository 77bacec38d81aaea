"""Pipelines in the container: real models, real queues; the numbers are those of the steps run by hand."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from gpu_service.inference.request import Call, InferenceRequest
from gpu_service.models.errors import ModelUnavailable
from gpu_service.models.served_model import ModelKey
from gpu_service.scheduling.errors import CallerGone, DeadlinePassed, Overloaded
from shared.codecs.content.decoded import Decoded
from shared.domain.dtypes import DType
from shared.domain.errors import (
    BackendError,
    BackendTimeout,
    BatchTooLarge,
    InvalidRequest,
    NotFinite,
    OutOfRange,
    UnknownField,
    WrongDtype,
)
from shared.domain.model import digest_of
from shared.domain.validation import Inputs
from shared.usecases.publish_model import package_files
from tests.gpu_service.models.support import until
from tests.gpu_service.serving import on_loop, outcome, serving
from tests.models import (
    add_model,
    argmax_model,
    gather_model,
    identity_model,
    manifest,
    slow_model,
    sum_model,
    tensor,
    write_package,
)
from tests.pipelines import (
    flow_document,
    pipeline_document,
    shift_package,
    step,
    write_pipeline,
    write_steps,
    write_text_flow,
)


def rows(*values: Sequence[float]) -> Any:
    return np.array(values, dtype=np.float32)


def by_hand(x: Any) -> tuple[list[bytes], Any]:
    return [b"abc"[i : i + 1] for i in (x + 1).argmax(axis=1)], x + 11


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_steps(folder)
    write_text_flow(folder)
    write_pipeline(folder / "flow/1", flow_document())
    write_pipeline(folder / "kept/1", flow_document(name="kept", serving={"cache": {"max_bytes": 65536}, "join": True}))
    write_package(folder / "sum/1", sum_model())
    write_package(folder / "slow/1", slow_model())
    write_package(folder / "gather/1", gather_model())
    column = [tensor("x", "FP32", [-1, 3])], [tensor("class", "INT64", [-1]), tensor("scores", "FP32", [-1, 3])]
    write_package(folder / "pick/1", argmax_model(), manifest("pick", 1, *column))
    fork = pipeline_document(
        [
            step("pre", {"x": "x"}),
            step("post", {"x": "x"}),
            step("sum", {"a": "pre.y", "b": "post.y"}),
        ],
        {"total": "sum.total", "difference": "sum.difference", "early": "pre.y"},
        name="fork",
    )
    write_pipeline(folder / "fork/1", fork)
    twice = [step("slow", {"x": "x"}), step("slow", {"x": "slow.y"}, name="again")]
    write_pipeline(folder / "twice/1", pipeline_document(twice, {"y": "again.y"}, name="twice"))
    document = pipeline_document(
        [step("whole", {"x": "x"}), step("gather", {"x": "whole.y"})], {"y": "gather.y"}, name="fetch"
    )
    write_pipeline(folder / "fetch/1", document)
    integers = [tensor("x", "INT64", [-1])], [tensor("y", "INT64", [-1])]
    write_package(folder / "whole/1", identity_model(DType.INT64, ["n"]), manifest("whole", 1, *integers))
    return folder


def test_the_numbers_are_those_of_the_steps(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            x = rows([1, 2, 3], [9, 2, 3])
            request = await served.infer("flow", values=x)
            label, shifted = by_hand(x)
            assert request.result is not None
            assert list(request.result) == ["label", "shifted"]
            assert list(request.result["label"]) == label
            np.testing.assert_array_equal(request.result["shifted"], shifted)
            assert request.arrived <= request.decoded_at <= request.started <= request.finished
            words = await served.infer("words", text=np.array([b"one two", b"three"], dtype=object))
            assert words.result is not None
            np.testing.assert_array_equal(words.result["pooled"], [[5, 1], [6, 1]])

    on_loop(work)


def test_rows_of_requests_never_mix_and_their_steps_share_batches(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            inputs = [rows(*[[i % 90, -(i % 7), n] for n in range(1 + i % 4)]) for i in range(200)]
            alone = [served.infer("labels", x=x) for x in inputs[:50]]
            requests = await asyncio.gather(*(served.infer("flow", values=x) for x in inputs), *alone)
            for x, request in zip(inputs, requests[:200], strict=True):
                label, shifted = by_hand(x)
                assert request.result is not None
                assert list(request.result["label"]) == label
                np.testing.assert_array_equal(request.result["shifted"], shifted)
            for name in ("pre", "labels", "post"):
                stats = served.model(name).stats
                assert stats.execution_count < 40
                assert stats.inference_count == sum(map(len, inputs)) + (name == "labels") * sum(map(len, inputs[:50]))
                assert stats.codes == {"": 200}  # those that a door answers are counted there
            assert served.model("flow").stats.inference_count == sum(map(len, inputs))

    on_loop(work)


def test_only_what_is_needed_is_run(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            request = await served.infer("flow", ("label",), values=rows([1, 2, 3]))
            assert request.result is not None
            assert list(request.result) == ["label"]
            assert served.model("post").stats.execution_count == 0
            request = await served.infer("fork", ("early",), x=rows([1, 2, 3]))
            assert request.result is not None
            np.testing.assert_array_equal(request.result["early"], [[2, 3, 4]])
            assert served.model("sum").stats.execution_count == 0
            with pytest.raises(UnknownField):
                await served.infer("flow", ("nothing",), values=rows([1, 2, 3]))

    on_loop(work)


def test_steps_that_do_not_need_each_other_come_together_again(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            inputs = [rows([i, i + 1, 0]) for i in range(40)]
            requests = await asyncio.gather(*(served.infer("fork", x=x) for x in inputs))
            for x, request in zip(inputs, requests, strict=True):
                assert request.result is not None
                np.testing.assert_array_equal(request.result["total"], 2 * x + 11)
                np.testing.assert_array_equal(request.result["difference"], np.full((1, 3), -9))

    on_loop(work)


def test_a_callers_fault_is_told_by_the_callers_names(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            for x, error in (
                (rows([1, 2, 101]), OutOfRange),
                (rows([1, np.nan, 3]), NotFinite),
                (np.zeros((1, 3)), WrongDtype),
                (np.zeros((2000, 3), np.float32), BatchTooLarge),
            ):
                refused = await outcome(served.infer("flow", values=x))
                assert isinstance(refused, error)
                assert refused.fields[0].pointer.startswith("/inputs/values")
            assert served.model("pre").stats.execution_count == 0

    on_loop(work)


def test_a_poisoned_row_fails_alone_wherever_it_goes_wrong(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            inputs = [rows([i, 0, 0]) for i in range(30)]
            inputs[7] = rows([100, 0, 0])  # 101 after the first step: more than the last one takes
            outcomes = await asyncio.gather(*(outcome(served.infer("flow", values=x)) for x in inputs))
            for x, answer in zip(inputs, outcomes, strict=True):
                if x[0, 0] == 100:
                    assert type(answer) is BackendError
                    assert (
                        "Step 'post' (post version 1) cannot work with what the steps before it gave" in answer.detail
                    )
                    assert "100" in answer.detail
                else:
                    assert isinstance(answer, InferenceRequest)
                    assert answer.result is not None
                    np.testing.assert_array_equal(answer.result["shifted"], x + 11)

    on_loop(work)


def test_a_step_that_fails_names_itself(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            answers = await asyncio.gather(
                *(outcome(served.infer("fetch", x=np.array([n], dtype=np.int64))) for n in (0, 1, 9, 2))
            )
            assert type(answers[2]) is BackendError
            assert "'gather' (gather version 1)" in answers[2].detail
            for n, answer in zip((0, 1, 2), (answers[0], answers[1], answers[3]), strict=True):
                assert isinstance(answer, InferenceRequest)
                assert answer.result is not None
                np.testing.assert_array_equal(answer.result["y"], [[2 * n, 2 * n + 1]])
            assert served.model("gather").stats.codes == {"": 3, "backend_error": 1} or served.model(
                "gather"
            ).stats.codes == {"": 3, "invalid_request": 1}

    on_loop(work)


def test_the_deadline_holds_for_all_steps_together(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            late = await outcome(served.infer("twice", x=rows([300_000_000]), deadline_ms=150))
            assert isinstance(late, DeadlinePassed)
            assert "Step 'slow' (slow version 1)" in late.detail
            assert served.model("twice").queue.running.count == 0
            await until(lambda: not list(served.executor.running()))
            passed = await outcome(served.infer("flow", values=rows([1, 2, 3]), deadline_ms=0))
            assert isinstance(passed, BackendTimeout)

    on_loop(work)


def test_what_would_be_late_is_refused_before_it_runs(models: Path) -> None:
    async def work() -> None:
        async with serving(models, threads=2) as served:
            queue = served.model("slow").queue
            for count in [1, 16] * 100:  # the sizes that it was warmed up with
                queue.cost.observe(count, 0.2)
            busy = asyncio.ensure_future(served.infer("slow", x=rows([300_000])))
            await until(lambda: list(served.executor.running()))
            queue.check_deadline(monotonic() + 0.4, "", 128)  # time enough for one of them
            refused = await outcome(served.infer("twice", x=rows([1]), deadline_ms=400))
            assert isinstance(refused, Overloaded)
            assert "Step 'slow' (slow version 1): The answer would take" in refused.detail
            assert refused.retry_after_s > 0
            assert (len(queue.fair), served.model("twice").stats.codes) == (0, {"overloaded": 1})
            await busy

    on_loop(work)


def test_a_caller_that_goes_ends_all_steps(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            done: list[InferenceRequest] = []
            decoded = Decoded(Inputs({"x": rows([300_000_000])}))
            request = served.dataplane.submit(Call("twice"), lambda _: decoded, done.append)
            await until(lambda: list(served.executor.running()))
            request.cancelled = True
            await until(lambda: done)
            assert isinstance(request.error, CallerGone | BackendTimeout)
            assert served.model("slow").holds.count == 0
            assert served.model("slow").stats.execution_count == 0
            await until(lambda: not list(served.executor.running()))

    on_loop(work)


def test_the_bound_of_a_steps_queue_is_the_pipelines(models: Path) -> None:
    async def work() -> None:
        async with serving(models, queue_size=4, threads=1) as served:
            long = [asyncio.ensure_future(served.infer("slow", x=rows([2_000_000])))]
            await until(lambda: list(served.executor.running()))
            long += [asyncio.ensure_future(served.infer("slow", x=rows([2_000_000]))) for _ in range(4)]
            await until(lambda: len(served.model("slow").queue.fair) == 4)
            refused = await outcome(served.infer("twice", x=rows([1])))
            assert isinstance(refused, Overloaded)
            assert "(slow version 1): The queue of this model is full." in refused.detail
            for task in long:
                task.cancel()
            await asyncio.gather(*long, return_exceptions=True)
            await until(lambda: not list(served.executor.running()))

    on_loop(work)


def test_answers_of_a_pipeline_are_cached_and_joined(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            requests = await asyncio.gather(*(served.infer("kept", values=rows([1, 2, 3])) for _ in range(5)))
            again = await served.infer("kept", values=rows([1, 2, 3]))
            for request in (*requests, again):
                assert request.result is not None
                np.testing.assert_array_equal(request.result["shifted"], [[12, 13, 14]])
            other = await served.infer("kept", values=rows([1, 2, 3]), tenant="another")
            assert other.result is not None
            stats = served.model("kept").stats
            assert (stats.inference_count, stats.joins, stats.cache_hit.count) == (2, 4, 1)

    on_loop(work)


def test_without_a_step_a_pipeline_is_not_ready_and_with_it_again_it_is(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            repository = served.dataplane.repository
            await served.manager.unload("labels")
            assert not repository.ready("flow")
            assert repository.ready("fork")
            states = {row["name"]: row for row in served.manager.index()}
            assert states["flow"]["state"] == "UNAVAILABLE"
            assert "its step labels version 1 is not served here" in states["flow"]["reason"]
            refused = await outcome(served.infer("flow", values=rows([1, 2, 3])))
            assert isinstance(refused, ModelUnavailable)
            assert "labels" in refused.detail
            await served.manager.load("labels")
            assert repository.ready("flow")
            assert (await served.infer("flow", values=rows([1, 2, 3]))).result is not None

    on_loop(work)


def test_a_step_waits_for_what_is_on_its_way_before_it_is_unloaded(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            running = [asyncio.ensure_future(served.infer("flow", values=rows([i, 0, 0]))) for i in range(20)]
            await asyncio.sleep(0)
            await served.manager.unload("post")
            for i, request in enumerate(await asyncio.gather(*running)):
                assert request.result is not None
                np.testing.assert_array_equal(request.result["shifted"], [[i + 11, 11, 11]])

    on_loop(work)


def test_unloading_with_dependents_takes_the_steps_that_nobody_else_needs(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            await served.manager.unload("words", unload_dependents=True)
            assert [served.dataplane.repository.ready(name) for name in ("words", "texts", "pool")] == [False] * 3
            await served.manager.unload("kept", unload_dependents=True)
            assert not served.dataplane.repository.ready("kept")
            assert served.dataplane.repository.ready("flow")  # which has the same steps

    on_loop(work)


def test_a_step_that_is_not_what_was_published_is_refused(tmp_path: Path) -> None:
    for name in ("pre", "post"):
        folder = shift_package(tmp_path / name / "1", name, 1)
        files = package_files(folder)
        index = {"model": name, "version": 1, "digest": digest_of(files), "placement": "container"}
        index["files"] = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in files]  # type: ignore[assignment]
        (folder / "package.json").write_text(json.dumps(index))
    digest = json.loads((tmp_path / "pre/1/package.json").read_text())["digest"]
    good = [step("pre", {"x": "x"}, digest=digest)]
    write_pipeline(tmp_path / "good/1", pipeline_document(good, {"y": "pre.y"}, name="good"))

    async def work() -> None:
        async with serving(tmp_path) as served:
            assert (await served.infer("good", x=rows([1, 2, 3]))).result is not None
            bad = [step("post", {"x": "x"}, digest=digest)]
            write_pipeline(tmp_path / "bad/1", pipeline_document(bad, {"y": "post.y"}, name="bad"))
            await served.manager.load("bad")
            refused = await outcome(served.infer("bad", x=rows([1, 2, 3])))
            assert isinstance(refused, ModelUnavailable)
            assert "is not the one that the pipeline was published with" in refused.detail

    on_loop(work)


def test_a_pipeline_whose_steps_do_not_fit_says_so(tmp_path: Path) -> None:
    write_steps(tmp_path)
    write_package(tmp_path / "two/1", add_model(1))
    wrong = pipeline_document([step("two", {"x": "x"}), step("post", {"x": "two.y"})], {"y": "post.y"}, name="wrong")
    nested = pipeline_document([step("flow", {"values": "x"})], {"y": "flow.shifted"}, name="nested")
    lonely = pipeline_document([step("nobody", {"x": "x"})], {"y": "nobody.y"}, name="lonely")
    write_pipeline(tmp_path / "flow/1", flow_document())

    async def work() -> None:
        async with serving(tmp_path) as served:
            for document, message in (
                (wrong, "Step 'post' (post version 1), input 'x': has the shape [-1, 3]"),
                (nested, "is a pipeline itself"),
                (lonely, "its step nobody version 1 is not served here"),
            ):
                write_pipeline(tmp_path / document["name"] / "1", document)
                await served.manager.load(document["name"])
                refused = await outcome(served.infer(document["name"], x=rows([1, 2, 3])))
                assert isinstance(refused, ModelUnavailable | InvalidRequest)
                assert message in refused.detail

    on_loop(work)


def test_steps_that_gave_their_memory_to_others_are_loaded_again(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            repository = served.dataplane.repository
            for name in ("pre", "post"):
                entry = repository.entry(ModelKey(name, 1))
                assert entry is not None
                served.lifecycle.withdraw(entry, "evicted", evicted=True)
            assert repository.ready("flow")
            assert {row["name"]: row["state"] for row in served.manager.index()}["flow"] == "READY"
            requests = await asyncio.gather(*(served.infer("flow", values=rows([i, 0, 0])) for i in range(5)))
            for i, request in enumerate(requests):
                assert request.result is not None
                np.testing.assert_array_equal(request.result["shifted"], [[i + 11, 11, 11]])

    on_loop(work)


def test_a_step_that_a_request_is_on_its_way_to_is_not_idle(models: Path) -> None:
    async def work() -> None:
        async with serving(models) as served:
            request = asyncio.ensure_future(served.infer("flow", values=rows([1, 2, 3])))
            await asyncio.sleep(0)
            last = served.model("post")
            assert (last.queue.idle, last.idle) == (True, False)
            await request
            assert last.idle

    on_loop(work)
