"""`/_sluice/trigger` over HTTP, as `sluice trigger` calls it."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from infra.local.events import api
from infra.local.lambda_service import invoke_api
from tests.local.events.conftest import Stack


def post(stack: Stack, name: str, body: bytes = b"") -> tuple[int, Any]:
    async def ask() -> tuple[int, Any]:
        app = invoke_api.create_app(stack.functions)
        api.add_routes(app, stack.events)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0]
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"http://{host}:{port}/_sluice/trigger/{name}", data=body) as answer,
            ):
                return answer.status, await answer.json()
        finally:
            await runner.cleanup()

    return stack.runner.run(asyncio.wait_for(ask(), 30))


def test_it_answers_with_what_came_of_each_target(stack: Stack) -> None:
    status, document = post(stack, "ClockedTick")
    (target,) = document["targets"]
    assert (status, target["target"], target["function_error"]) == (200, "Clocked", None)


@pytest.mark.parametrize(
    ("name", "body", "status", "said"),
    [
        ("Orders", b"", 400, "waits for events"),
        ("Orders", b"[1]", 400, "object"),
        ("Orders", b"{", 400, "truncated"),
        ("ticks", b"{}", 400, "its own event"),
    ],
)
def test_what_cannot_be_fired_is_told(stack: Stack, name: str, body: bytes, status: int, said: str) -> None:
    answer = post(stack, name, body)
    assert answer[0] == status
    assert said in answer[1]["message"]


def test_an_unknown_name_lists_the_known(stack: Stack) -> None:
    status, document = post(stack, "Nope")
    assert status == 404
    assert {"Orders", "ClockedTick", "Queued"} < set(document["known"])
