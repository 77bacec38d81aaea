# mypy: ignore-errors
"""MLServer with adaptive batching and a pool of workers, one a core."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_rows import OnnxRows


class Rows(MLModel):
    """Serves one model."""

    async def load(self) -> bool:
        """Load the model in the worker."""
        self._model = OnnxRows()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the model on what the batcher has merged."""
        feed = {tensor.name: np.asarray(NumpyCodec.decode_input(tensor)) for tensor in payload.inputs}
        outputs = zip(self._model.names, self._model.session.run(self._model.names, feed), strict=True)
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, value) for name, value in outputs],
        )
