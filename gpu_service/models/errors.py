"""Refusals of the model repository."""

from typing import TYPE_CHECKING

from shared.domain.errors import BackendUnavailable, InvalidRequest

if TYPE_CHECKING:
    from gpu_service.models.served_model import ModelKey


class ModelUnavailable(BackendUnavailable):
    """The model is known here and cannot answer now: it is being loaded, was unloaded, or could not be loaded."""

    code = "model_unavailable"
    title = "Model not ready"


class ModelEvicted(ModelUnavailable):
    """The model `key` gave its memory to others; `ModelManager.ensure` loads it again."""

    code = "model_evicted"
    title = "Model not in memory"

    def __init__(self, detail: str, key: "ModelKey") -> None:
        super().__init__(detail)
        self.key = key


class OutOfMemory(BackendUnavailable):
    """The model does not fit into the memory budget beside what must stay loaded."""

    code = "out_of_memory"
    title = "Not enough memory for the model"


class AlreadyLoaded(InvalidRequest):
    """A model of this name is loaded: unload it first."""

    code = "already_loaded"
    title = "Model is loaded already"
