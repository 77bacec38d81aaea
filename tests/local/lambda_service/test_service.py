import asyncio
import json
import os
import signal
from typing import Any

import psutil
import pytest

from infra.local.lambda_service.errors import (
    RequestTooLargeError,
    ResourceNotFoundError,
    ServiceError,
    TooManyRequestsError,
)
from infra.local.lambda_service.invocation import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, InvokeResult
from tests.local.lambda_service.conftest import Lambda, function, gone


def answer(result: InvokeResult) -> Any:
    assert result.function_error is None, result.payload
    return json.loads(result.payload)


def error(result: InvokeResult) -> tuple[str, str]:
    assert result.function_error == "Unhandled"
    document = json.loads(result.payload)
    return document["errorType"], document["errorMessage"].replace(result.request_id, "ID")


def test_the_first_call_starts_a_process_and_the_next_ones_reuse_it(start: Any) -> None:
    service = start(function("echo"))
    results = [service.invoke("echo", {"n": n}) for n in range(10)]
    assert [answer(result)["event"] for result in results] == [{"n": n} for n in range(10)]
    assert len({answer(result)["pid"] for result in results}) == 1
    assert results[0].init_duration_ms > 0
    assert {result.init_duration_ms for result in results[1:]} == {None}
    assert [each["count"] for each in service.environments("echo")] == [10]


def test_a_function_is_found_by_logical_id_name_and_arn(functions: Lambda) -> None:
    spec = function("echo")
    partial = f"000000000000:function:{spec.name}"
    for name in ("echo", spec.name, spec.arn, f"{spec.arn}:$LATEST", partial):
        assert answer(functions.invoke(name, name))["event"] == name
    with pytest.raises(ResourceNotFoundError, match=r"^Function not found: arn:aws:lambda:.*:nothing$"):
        functions.invoke("nothing")


def test_the_function_sees_lambdas_variables_and_nothing_of_the_user(
    functions: Lambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME_SECRET", "hidden")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREAL")
    monkeypatch.setenv("AWS_PROFILE", "production")
    seen = answer(functions.invoke("describe", client_context='{"custom": {"a": "b"}}'))
    variables = seen["environment"]
    assert "HOME_SECRET" not in variables
    assert "AWS_PROFILE" not in variables
    assert variables["AWS_ACCESS_KEY_ID"] == "local"
    assert (variables["OWN"], variables["SHARED"]) == ("1", "function")
    assert variables["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert variables["AWS_REGION"] == "us-east-1", "a reserved variable cannot be set by the function"
    assert variables["AWS_LAMBDA_FUNCTION_NAME"] == "stack-describe"
    assert variables["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == seen["memory"] == "128"
    assert variables["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert variables["LAMBDA_TASK_ROOT"] == seen["cwd"]
    assert seen["arn"] == "arn:aws:lambda:us-east-1:000000000000:function:stack-describe"
    assert seen["custom"] == {"a": "b"}


def test_the_log_holds_the_output_between_start_end_and_report(functions: Lambda) -> None:
    result = functions.invoke("talk")
    lines = result.log_tail.decode().splitlines()
    assert lines[-5] == f"START RequestId: {result.request_id} Version: $LATEST"
    assert lines[-4:-2] == ["to stdout", "to stderr, no line end"]
    assert lines[-2] == f"END RequestId: {result.request_id}"
    report = dict(field.split(": ", 1) for field in lines[-1].removeprefix("REPORT ").split("\t"))
    assert report["Memory Size"] == "128 MB"
    assert float(report["Init Duration"].removesuffix(" ms")) > 0
    assert int(report["Max Memory Used"].removesuffix(" MB")) > 5
    assert result.log_tail.decode() in functions.log("talk")
    assert "Init Duration" not in functions.invoke("talk").log_tail.decode()


def test_a_handlers_exception_is_answered_and_leaves_the_environment_alive(functions: Lambda) -> None:
    first, second = functions.invoke("fail"), functions.invoke("fail")
    assert error(first) == error(second) == ("ValueError", "bad luck")
    assert second.init_duration_ms is None
    assert "Traceback (most recent call last):\n" in first.log_tail.decode()


def test_a_timeout_kills_the_process_and_the_next_call_is_a_cold_start(functions: Lambda) -> None:
    before = answer(functions.invoke("sleep", {"seconds": 0}))
    late = functions.invoke("sleep", {"seconds": 30})
    assert error(late) == ("Sandbox.Timedout", "RequestId: ID Error: Task timed out after 0.50 seconds")
    assert b"Status: timeout" in late.log_tail
    assert gone(before)
    after = functions.invoke("sleep", {"seconds": 0})
    assert answer(after) != before
    assert after.init_duration_ms is not None


@pytest.mark.parametrize(
    ("name", "event", "message"),
    [
        ("kill", None, "Runtime exited with error: signal: killed"),
        ("leave", {"status": 3}, "Runtime exited with error: exit status 3"),
        ("leave", {"status": 0}, "Runtime exited without providing a reason"),
        ("exits_in_init", None, "Runtime exited with error: exit status 7"),
    ],
)
def test_a_process_that_ends_in_the_middle_is_reported(functions: Lambda, name: str, event: Any, message: str) -> None:
    result = functions.invoke(name, event)
    assert error(result) == ("Runtime.ExitError", f"RequestId: ID Error: {message}")
    assert b"Status: error\tError Type: Runtime.ExitError" in result.log_tail
    assert functions.environments(name) == []


@pytest.mark.parametrize(
    ("name", "error_type", "message"),
    [
        ("missing", "Runtime.ImportModuleError", "Unable to import module"),
        ("broken_init", "RuntimeError", "no such table"),
    ],
)
def test_an_init_error_is_answered_with_its_cause(functions: Lambda, name: str, error_type: str, message: str) -> None:
    for _ in range(2):  # it is no lasting state: every call tries again
        result = functions.invoke(name)
        kind, text = error(result)
        assert kind == error_type
        assert message in text
        assert message.encode() in result.log_tail
    assert functions.environments(name) == []


def test_a_slow_init_begins_again_inside_the_timeout_of_the_invocation(start: Any) -> None:
    spec = function("slow", "slow_init.handler", timeout_s=5.0)
    hopeless = function("hopeless", "slow_init.handler", timeout_s=0.4)
    service = start(spec, hopeless, init_limit_s=0.3)
    result = service.invoke("slow")
    assert answer(result) == "loaded"
    assert result.duration_ms > 900, "the second init counts as part of the invocation"
    assert result.init_duration_ms is None
    assert "Phase: init\tStatus: timeout" in service.log("slow")
    assert error(service.invoke("hopeless"))[0] == "Sandbox.Timedout"


def test_a_process_over_its_memory_is_killed(functions: Lambda) -> None:
    assert answer(functions.invoke("hoard", {"mb": 1, "seconds": 0})) == 1024 * 1024
    result = functions.invoke("hoard", {"mb": 100, "seconds": 20})
    assert error(result) == ("Runtime.OutOfMemory", "RequestId: ID Error: Runtime exited with error: signal: killed")
    assert b"Max Memory Used: 64 MB" in result.log_tail
    assert answer(functions.invoke("hoard", {"mb": 1, "seconds": 0})) == 1024 * 1024


def test_an_answer_up_to_the_limit_passes_and_a_larger_one_is_replaced(functions: Lambda) -> None:
    quotes = 2
    assert len(functions.invoke("large", {"size": MAX_RESPONSE_BYTES - quotes}).payload) == MAX_RESPONSE_BYTES
    result = functions.invoke("large", {"size": MAX_RESPONSE_BYTES - quotes + 1})
    message = "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
    assert error(result) == ("Function.ResponseSizeTooLarge", message)
    assert answer(functions.invoke("large", {"size": 1})) == "x"


def test_a_payload_over_the_limit_is_refused_before_any_process(start: Any) -> None:
    service = start(function("echo"))
    with pytest.raises(RequestTooLargeError):
        service.invoke("echo", "x" * MAX_REQUEST_BYTES)
    with pytest.raises(RequestTooLargeError):
        service.invoke("echo", "x" * 1024 * 1024, invocation_type="Event")
    assert service.environments("echo") == []


def test_parallel_requests_use_environments_up_to_the_bound_then_queue_then_are_throttled(start: Any) -> None:
    service = start(function("sleep", timeout_s=10.0), max_environments=2, queue_limit=2)

    async def five() -> list[Any]:
        calls = [service.service.invoke("sleep", b'{"seconds": 0.3}') for _ in range(5)]
        return await asyncio.gather(*calls, return_exceptions=True)

    *served, refused = service.runner.run(five())
    pids = [answer(result) for result in served]
    assert isinstance(refused, TooManyRequestsError)
    assert len(set(pids)) == 2, "one request at a time for each environment"
    assert sorted(pids.count(pid) for pid in set(pids)) == [2, 2]
    assert [each["count"] for each in service.environments("sleep")] == [2, 2]


def test_a_caller_that_gives_up_leaves_the_queue_but_not_a_running_invocation(start: Any) -> None:
    service = start(function("sleep", timeout_s=10.0), function("echo"), max_environments=1)

    async def give_up() -> None:
        running = asyncio.create_task(service.service.invoke("sleep", b'{"seconds": 0.4}'))
        queued = asyncio.create_task(service.service.invoke("sleep", b'{"seconds": 60}'))
        await asyncio.sleep(0.2)
        running.cancel()
        queued.cancel()
        await asyncio.wait([running, queued])

    warm = answer(service.invoke("sleep", {"seconds": 0}))
    service.runner.run(give_up())
    assert answer(service.invoke("sleep", {"seconds": 0})) == warm
    assert [each["count"] for each in service.environments("sleep")] == [3]


def test_nothing_runs_between_two_invocations(functions: Lambda) -> None:
    before = answer(functions.invoke("tick"))
    functions.runner.run(asyncio.sleep(0.5))
    (environment,) = functions.environments("tick")
    assert environment["state"] == "frozen"
    assert psutil.Process(environment["pid"]).status() == psutil.STATUS_STOPPED
    after = answer(functions.invoke("tick"))
    assert before <= after < before + 50, "half a second awake would be 100 ticks"


def test_a_frozen_environment_that_is_killed_is_replaced(functions: Lambda) -> None:
    pid = answer(functions.invoke("echo"))["pid"]
    functions.runner.run(asyncio.sleep(0.1))
    os.kill(pid, signal.SIGKILL)
    functions.runner.run(asyncio.sleep(0.3))
    assert functions.environments("echo") == []
    assert answer(functions.invoke("echo"))["pid"] != pid


def test_idle_environments_end(start: Any) -> None:
    service = start(function("echo"), idle_s=0.2)
    pid = answer(service.invoke("echo"))["pid"]
    service.runner.run(asyncio.sleep(1.0))
    assert service.environments("echo") == []
    assert not psutil.pid_exists(pid)


def test_close_ends_running_and_frozen_processes_and_what_they_left_behind(start: Any) -> None:
    service = start(function("sleep", timeout_s=60.0), function("adopt"))
    orphan = answer(service.invoke("adopt"))

    async def close_in_the_middle() -> Any:
        running = asyncio.create_task(service.service.invoke("sleep", b'{"seconds": 60}'))
        await asyncio.sleep(0.5)
        pids = [each["pid"] for name in ("sleep", "adopt") for each in service.environments(name)]
        await service.service.close()
        return pids, (await asyncio.gather(running, return_exceptions=True))[0]

    pids, outcome = service.runner.run(close_in_the_middle())
    assert isinstance(outcome, ServiceError)
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids), "close returns when they are reaped"
    assert gone(orphan)
    with pytest.raises(ServiceError):
        service.invoke("adopt")


def test_an_event_is_accepted_at_once_and_runs_later(start: Any) -> None:
    service = start(function("talk"))
    accepted = service.invoke("talk", {}, invocation_type="Event")
    assert accepted.payload == b""
    assert "to stdout" not in service.log("talk")

    async def until_done() -> None:
        while "REPORT" not in service.log("talk"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    service.runner.run(asyncio.wait_for(until_done(), 10))
    assert f"END RequestId: {accepted.request_id}" in service.log("talk")


def test_an_interpreter_that_is_not_there_is_a_service_error(start: Any, tmp_path: Any) -> None:
    service = start(function("echo"), python=tmp_path / "python")
    with pytest.raises(ServiceError, match="echo does not start"):
        service.invoke("echo")
    assert service.environments("echo") == []
