"""A model server that fails as it is told, in front of one that works: over HTTP, and over gRPC.

In a test, on a thread of its own:

    with Faulty(container.url, container.grpc_target) as faulty:
        faulty.switch.set(Fault("hang"))            # every call of both hangs until …
        faulty.switch.heal()

As a process of its own, whose first line on stdout is `{"url": …, "grpc_target": …}`:

    python -m tests.adapters.backends.faulty --upstream http://127.0.0.1:8080 [--upstream-grpc 127.0.0.1:8081]

There, `PUT /-/faults` with `{"kind": "slow", "seconds": 0.3}` turns the switch of both, `{}` heals them, and `GET`
tells what has come. Kinds of faults: `tests.adapters.backends.faults`.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from concurrent.futures import Future
from threading import Thread
from types import TracebackType
from typing import Self

from tests.adapters.backends.faults import Switch
from tests.adapters.backends.faulty_grpc import FaultyGrpc
from tests.adapters.backends.faulty_http import FaultyHttp

_PATIENCE_S = 30.0


class Faulty:
    """A context manager: `url` and `grpc_target` are where clients go (empty for what has no upstream)."""

    def __init__(self, upstream: str, upstream_grpc: str = "", *, port: int = 0, grpc_port: int = 0) -> None:
        self.switch = Switch()
        self.url = ""
        self.grpc_target = ""
        self._ports = port, grpc_port
        self._http = FaultyHttp(self.switch, upstream) if upstream else None
        self._grpc = FaultyGrpc(self.switch, upstream_grpc) if upstream_grpc else None
        self._ready: Future[None] = Future()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = Thread(target=self._run, name="faulty", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result(_PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE_S)

    def wait(self) -> None:
        """Serve until the process ends."""
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            if self._http is not None:
                self.url = f"http://127.0.0.1:{await self._http.start(self._ports[0])}"
            if self._grpc is not None:
                self.grpc_target = f"127.0.0.1:{await self._grpc.start(self._ports[1])}"
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for the addresses
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        await self._end.wait()
        for server in (self._http, self._grpc):
            if server is not None:
                await server.stop()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--upstream-grpc", default="")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--grpc-port", type=int, default=0)
    chosen = parser.parse_args()
    with (
        contextlib.suppress(KeyboardInterrupt),
        Faulty(chosen.upstream, chosen.upstream_grpc, port=chosen.port, grpc_port=chosen.grpc_port) as faulty,
    ):
        sys.stdout.write(json.dumps({"url": faulty.url, "grpc_target": faulty.grpc_target}) + "\n")
        sys.stdout.flush()
        faulty.wait()


if __name__ == "__main__":
    main()
