"""What injects the faults: a process with faulty model servers, and a proxy between the functions and AWS.

`python -m benchmarks.faults.injectors UPSTREAMS` takes the addresses of what works, and prints those of what may fail,
both as JSON by name. `PUT /-/faults` at the address of `aws` sets what fails (`Faults`), until stdin ends.
"""

import json
import sys
from contextlib import ExitStack
from typing import Any, Final

import psutil
from aiohttp import ClientSession, web

from tests.adapters.backends.faulty import Faulty
from tests.faults import BROKEN, SILENT, FaultProxy

CONTROL: Final = "/-/faults"
READ: Final = "BatchGetItem"
_MOST_KEPT = 1000


class ConfigurationProxy(FaultProxy):
    """Between the functions and AWS: reads of configurations fail, hang, or are old for half of those who ask.

    `servers` are the faulty ones by name, which the same request sets.
    """

    def __init__(self, upstream: str, servers: dict[str, Faulty]) -> None:
        super().__init__(upstream)
        self._servers = servers
        self._table = ""
        self._stale = False
        self._answers: dict[bytes, tuple[dict[str, str], bytes]] = {}
        self._processes: list[int] = []
        self._process_of: dict[int, int] = {}

    def set(self, wanted: dict[str, Any]) -> None:
        """Faults of servers by their names; `configuration` is `fail`, `hang` or `stale`, for the reads of `table`."""
        for name, server in self._servers.items():
            server.switch.apply(json.dumps(wanted.get(name, {})).encode())
        self.heal()
        self._table = wanted["table"]
        kind = wanted.get("configuration", "")
        self._stale = kind == "stale"
        self._processes.clear()
        self._process_of.clear()
        if kind in {"fail", "hang"}:
            self.fail(BROKEN if kind == "fail" else SILENT, operation=READ, table=self._table)

    async def _answer(self, request: web.BaseRequest, upstream: ClientSession) -> web.StreamResponse:
        if request.path == CONTROL:
            self.set(json.loads(await request.content.read()))
            return web.Response()
        return await super()._answer(request, upstream)

    async def _pass_on(self, request: web.BaseRequest, body: bytes, upstream: ClientSession) -> web.Response | None:
        """Keep what configurations are now, and give it again later to every other process."""
        is_read = request.headers.get("X-Amz-Target", "").endswith(READ) and self._table.encode() in body
        if is_read and self._stale and body in self._answers and self._is_behind(request):
            headers, content = self._answers[body]
            return web.Response(headers=headers, body=content)
        answer = await super()._pass_on(request, body, upstream)
        if is_read and not self._stale and answer is not None and isinstance(answer.body, bytes):
            if len(self._answers) >= _MOST_KEPT:
                self._answers.clear()
            self._answers[body] = dict(answer.headers), answer.body
        return answer

    def _is_behind(self, request: web.BaseRequest) -> bool:
        """Whether the process at the other end is one of those that are kept behind, which every other one is."""
        address = request.transport.get_extra_info("peername") if request.transport is not None else None
        if address is None:
            return False
        port = int(address[1])
        if port not in self._process_of:
            ends = psutil.net_connections("tcp4")
            self._process_of[port] = next((end.pid or 0 for end in ends if end.laddr and end.laddr.port == port), 0)
        process = self._process_of[port]
        if process not in self._processes:
            self._processes.append(process)
        return self._processes.index(process) % 2 == 0


def main() -> None:
    """Serve until stdin ends."""
    upstreams: dict[str, str] = json.loads(sys.argv[1])
    servers = {
        "http": Faulty(upstreams["http"]),
        "grpc": Faulty("", upstreams["grpc"]),
        "sagemaker": Faulty(upstreams["sagemaker"]),
    }
    with ExitStack() as opened:
        for server in servers.values():
            opened.enter_context(server)
        proxy = opened.enter_context(ConfigurationProxy(upstreams["aws"], servers))
        addresses = {name: server.url or server.grpc_target for name, server in servers.items()}
        sys.stdout.write(json.dumps({**addresses, "aws": proxy.url}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
