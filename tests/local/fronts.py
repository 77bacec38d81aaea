"""The SageMaker front as a server on a thread of its own."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread

from aiohttp import web

PATIENCE_S = 20


@contextmanager
def listening(app: web.Application) -> Iterator[str]:
    """The address of `app`, which serves until the context ends."""
    loop = asyncio.new_event_loop()
    done = asyncio.Event()
    ready: Future[str] = Future()

    async def serve() -> None:
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        ready.set_result(f"http://{host}:{port}")
        await done.wait()
        await runner.cleanup()

    thread = Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        yield ready.result(PATIENCE_S)
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(PATIENCE_S)
        loop.close()
