import asyncio
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from infra.local.gateway.app import create_app
from infra.local.lambda_service.service import LambdaService
from infra.local.stack import AuthorizerSpec
from tests.local.gateway.conftest import api, route
from tests.local.lambda_service.conftest import function

AUTHORIZER = AuthorizerSpec("Key", "allow", ("$request.header.Authorization",), 60)


def test_many_requests_at_once_through_gateway_authorizer_and_function(tmp_path: Path) -> None:
    specs = {
        "allow": function("allow", "gateway.allow"),
        "answer": function("answer", "gateway.answer"),
        "sleep": function("sleep", timeout_s=0.3),
    }
    routes = [route("POST /{name}", "answer", "Key", 20.0), route("GET /late", "sleep"), route("GET /fail", "allow")]

    async def run() -> tuple[list[Any], int, int]:
        service = LambdaService(specs, base_environment={}, log_dir=tmp_path, max_environments=2)
        runner = web.AppRunner(create_app(api(*routes, Key=AUTHORIZER), service.invoke))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession() as session:

                async def send(number: int) -> Any:
                    headers = {"Authorization": f"key {number % 3}"}
                    async with session.post(f"{url}/{number}", data=f"{number}", headers=headers) as response:
                        return response.status, await response.json()

                replies = await asyncio.gather(*(send(number) for number in range(100)))
                async with session.get(f"{url}/late") as late, session.get(f"{url}/fail") as failed:
                    return replies, late.status, failed.status
        finally:
            await runner.cleanup()
            await service.close()

    replies, late, failed = asyncio.run(run())
    for number, (status, document) in enumerate(replies):
        assert status == 200
        assert document == {"name": str(number), "key": f"key {number % 3}", "body": str(number)}
    assert late == 500, "a function's own timeout is a function error"
    assert failed == 500
