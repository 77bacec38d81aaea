"""Post-processing: class indices become class names."""

from collections.abc import Sequence

import numpy as np

from shared.domain.errors import BackendError
from shared.domain.tensors import Array


class Labeler:
    """Turns class indices (any integer dtype, any shape) into BYTES of the same shape."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._names = np.empty(len(classes), dtype=np.object_)
        self._names[:] = [name.encode() for name in classes]

    def __call__(self, indices: Array) -> Array:
        """Look the names up; BackendError if the graph gave an index without a name."""
        # A negative index would silently count from the end.
        if indices.size and (indices.min() < 0 or indices.max() >= len(self._names)):
            raise BackendError(f"The model gave a class index outside of its {len(self._names)} classes.")
        names = np.empty(indices.shape, dtype=np.object_)
        names[...] = self._names[indices]
        return names
