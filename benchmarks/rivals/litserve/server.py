# mypy: ignore-errors
"""LitServe with batching: one worker process a core. Its fast queue was slower on two cores, so it is off."""

import os
from typing import Any

import litserve
import numpy as np
from onnx_rows import OnnxRows


class Rows(litserve.LitAPI):
    """Serves one model."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        del device
        self._model = OnnxRows()

    def decode_request(self, request: dict[str, Any], **_: Any) -> Any:
        """The row of a request."""
        return np.asarray(request["inputs"][0])

    def batch(self, inputs: list[Any]) -> Any:
        """Rows that wait at the same time."""
        return np.stack(inputs)

    def predict(self, x: Any, **_: Any) -> Any:
        """Run the model."""
        return self._model.run(x)

    def unbatch(self, output: Any) -> Any:
        """One answer for each row."""
        return list(output)

    def encode_response(self, output: Any, **_: Any) -> dict[str, Any]:
        """The answer as JSON."""
        return {"outputs": [output.tolist()]}


if __name__ == "__main__":
    workers = int(os.environ["WORKERS"])
    api = Rows(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=60)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=workers,
        generate_client_file=False,
        log_level="warning",
    )
