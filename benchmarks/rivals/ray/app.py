# mypy: ignore-errors
"""Ray Serve with dynamic request batching: one replica a core (its example for batching, with a raw request)."""

import os
import signal
from typing import Any

import orjson
import ray
from onnx_rows import OnnxRows
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

WORKERS = int(os.environ["WORKERS"])


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Rows:
    """Serves one model."""

    def __init__(self) -> None:
        self._model = OnnxRows()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def infer(self, rows: list[Any]) -> list[Any]:
        """Rows that wait at the same time."""
        return list(self._model.run(rows))

    async def __call__(self, request: Request) -> Response:
        """One row as JSON."""
        body = orjson.loads(await request.body())
        output = await self.infer(body["inputs"][0])
        document = orjson.dumps({"outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(document, media_type="application/json")


if __name__ == "__main__":
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=256 << 20,
        _node_ip_address="127.0.0.1",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Rows.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
