"""The contract of `Backend`, on the fake, in this process, and through SageMaker Runtime's protocol."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.backends.sagemaker_realtime import SageMakerBackend
from shared.adapters.function_backend import FunctionBackend
from shared.adapters.package_cache import PackageCache
from shared.domain.errors import BackendError, BackendTimeout, BadImage, FieldError
from shared.domain.model import ModelVersion
from shared.domain.ports import Backend, InferenceContext
from shared.domain.tensors import Tensors, bytes_tensor
from tests.adapters.sagemaker_server import SageMakerServer, container
from tests.adapters.samples import version_of, write_files
from tests.fakes import FakeBackend, InMemoryPackages

CONTEXT = InferenceContext("request-1", "tenant", 20_000)
VERSION = version_of("m", 7)


def run(version: ModelVersion, inputs: Tensors) -> Tensors:
    """Twice `x`, and the note in capitals; two notes are special."""
    notes = [bytes(note) for note in inputs["note"]]
    if b"no image" in notes:
        place = f"/instances/{notes.index(b'no image')}"
        raise BadImage("Row is not an image.", fields=[FieldError(place, "is not an image")])
    if b"fail" in notes:
        raise BackendError("The graph failed.")
    return {"label": bytes_tensor([note.upper() for note in notes]), "y": inputs["x"] * np.float32(2)}


class _Package:
    def __init__(self, version: ModelVersion) -> None:
        self._version = version

    def run(self, inputs: Tensors, *, options: object = None) -> Tensors:
        return run(self._version, inputs)


Make = Callable[[], Backend]


def _in_function(tmp_path: Path) -> Backend:
    store = InMemoryPackages()
    store.upload(VERSION, write_files(tmp_path / "source"))
    cache = PackageCache(store, tmp_path / "cache", 10**6, lambda _folder, version: _Package(version))
    return FunctionBackend(cache)


@pytest.fixture(params=["fake", "function", "sagemaker"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if request.param == "sagemaker":
        server = SageMakerServer()
        server.script = container(VERSION, run)
        session: Session = request.getfixturevalue("aws_session")
        runtime = client("sagemaker-runtime", session=session, endpoint_url=server.url, retries=0, read_timeout=20)
        yield SageMakerBackend(lambda _seconds: runtime, "endpoint")
        runtime.close()
        server.close()
    else:
        yield FakeBackend(run) if request.param == "fake" else _in_function(tmp_path)


def _inputs(*notes: bytes) -> Tensors:
    x = np.arange(2 * len(notes), dtype=np.float32).reshape(-1, 2)
    return {"x": x, "note": bytes_tensor(list(notes))}


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_outputs_have_the_signatures_dtypes_and_a_row_for_each_instance(backend: Backend, rows: int) -> None:
    notes = [f"ü {n}".encode() for n in range(rows)]
    outputs = backend.infer(VERSION, _inputs(*notes), CONTEXT)
    assert set(outputs) == {"y", "label"}
    assert outputs["y"].dtype == np.float32
    np.testing.assert_array_equal(outputs["y"], 2 * np.arange(2 * rows, dtype=np.float32).reshape(rows, 2))
    assert list(outputs["label"]) == [note.upper() for note in notes]


def test_faulty_content_is_the_callers_fault_wherever_it_is_found(backend: Backend) -> None:
    with pytest.raises(BadImage, match="not an image") as caught:
        backend.infer(VERSION, _inputs(b"a", b"no image"), CONTEXT)
    assert caught.value.fields == (FieldError("/instances/1", "is not an image"),)


def test_a_model_that_fails_is_the_backends_fault(backend: Backend) -> None:
    with pytest.raises(BackendError, match="graph failed"):
        backend.infer(VERSION, _inputs(b"fail"), CONTEXT)


@pytest.mark.parametrize("deadline_ms", [0, -5])
def test_nothing_runs_after_the_deadline(backend: Backend, deadline_ms: int) -> None:
    with pytest.raises(BackendTimeout):
        backend.infer(VERSION, _inputs(b"fail"), InferenceContext("r", "t", deadline_ms))
