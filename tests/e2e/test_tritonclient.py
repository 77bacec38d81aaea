"""NVIDIA's own HTTP clients, unchanged, against the API: through gateway, authorizer and function."""

import asyncio
import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]
import tritonclient.http.aio as triton_aio  # type: ignore[import-untyped]
from sklearn.datasets import load_breast_cancer, load_digits
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from tests.e2e.conftest import ROOT, Sluice

pytestmark = pytest.mark.e2e

ROWS = load_breast_cancer().data[:3].astype(np.float32)
TEXTS = np.array([b"A man is eating food.", "Ein Mann isst Öl.".encode()], dtype=np.object_)
CODINGS = [None, "gzip", "deflate"]


class Key:
    """The caller's credential, for the clients' `register_plugin`."""

    def __init__(self, sluice: Sluice) -> None:
        self._value = f"Bearer {sluice.local['api_key']}"

    @property
    def headers(self) -> dict[str, str]:
        # The clients write into the dictionary that they are given: each call needs its own.
        return {"Authorization": self._value}

    def __call__(self, request: Any) -> None:
        request.headers.update(self.headers)


@pytest.fixture
def key(sluice: Sluice) -> Key:
    return Key(sluice)


@pytest.fixture
def address(sluice: Sluice) -> str:
    return str(sluice.local["api_url"]).removeprefix("http://")


@pytest.fixture
def client(address: str, key: Key) -> Iterator[Any]:
    with triton.InferenceServerClient(address, concurrency=4) as client:
        client.register_plugin(key)
        yield client


def given(name: str, datatype: str, array: Any, *, binary: bool = True) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def features(*, binary: bool = True) -> list[Any]:
    return [given("features", "FP32", ROWS, binary=binary)]


def by_v1(api: httpx.Client) -> list[dict[str, Any]]:
    answer = api.post("/v1/models/tumor/predict", json={"instances": ROWS.tolist()})
    return list(answer.json()["predictions"])


def test_the_key_is_an_ordinary_header(address: str, key: Key) -> None:
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live(headers=key.headers)
        assert client.is_server_ready(headers=key.headers)
        assert client.is_model_ready("tumor", headers=key.headers)
        assert client.get_server_metadata(headers=key.headers)["name"] == "sluice"
        assert client.get_model_metadata("tumor", headers=key.headers)["name"] == "tumor"
        answer = client.infer("tumor", features(), headers=key.headers)
        assert answer.as_numpy("probabilities").shape == (3, 2)
        # The gateway lets nobody in without one, and its own answers are not the protocol's.
        assert not client.is_server_live()
        with pytest.raises(InferenceServerException, match="Unauthorized") as refused:
            client.get_model_metadata("tumor")
        assert refused.value.status() == "401"


def test_health_and_descriptions(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    for model in ("tumor", "digits", "embed"):
        assert client.is_model_ready(model)
        assert client.is_model_ready(model, "1")
    assert not client.is_model_ready("tumor", "2")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    tumor = client.get_model_metadata("tumor", "1")
    assert tumor == client.get_model_metadata("tumor")
    assert tumor["versions"] == ["1"]
    assert tumor["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 30]}]
    assert {output["name"]: output["datatype"] for output in tumor["outputs"]} == {
        "label": "BYTES",
        "probabilities": "FP32",
    }


def test_the_container_describes_its_model_in_the_same_words(client: Any, sluice: Sluice) -> None:
    address = str(sluice.local["container_url"]).removeprefix("http://")
    with triton.InferenceServerClient(address) as container:
        assert container.get_model_metadata("embed", "1") == client.get_model_metadata("embed", "1")
        there, here = container.get_server_metadata(), client.get_server_metadata()
        assert (there["name"], there["version"]) == (here["name"], here["version"])


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("binary", [True, False])
def test_tensors_in_and_out_agree_with_v1(client: Any, api: httpx.Client, binary: bool, coding: str | None) -> None:
    expected = by_v1(api)
    answer = client.infer(
        "tumor",
        features(binary=binary),
        outputs=[triton.InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "label")],
        request_id="r-1",
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    document = answer.get_response()
    assert (document["model_name"], document["model_version"], document["id"]) == ("tumor", "1", "r-1")
    labels = [label.decode() if binary else label for label in answer.as_numpy("label")]
    assert labels == [prediction["label"] for prediction in expected]
    probabilities = [list(prediction["probabilities"].values()) for prediction in expected]
    assert answer.as_numpy("probabilities") == pytest.approx(np.array(probabilities), abs=1e-6)


@pytest.mark.parametrize("coding", CODINGS)
def test_an_answer_is_compressed_on_the_wire(client: Any, coding: str | None) -> None:
    rows = np.tile(ROWS, (200, 1))
    plain = client.infer("tumor", [given("features", "FP32", rows)]).as_numpy("probabilities")
    packed = client.infer(
        "tumor",
        [given("features", "FP32", rows)],
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert packed.as_numpy("probabilities").tolist() == plain.tolist()


def test_requested_outputs_are_all_that_comes_back(client: Any) -> None:
    answer = client.infer("digits", [given("pixels", "FP32", load_digits().data[:1].astype(np.float32))], outputs=[
        triton.InferRequestedOutput("label"),
    ])  # fmt: skip
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["label"]
    assert answer.as_numpy("label").tolist() == [load_digits().target[0]]
    assert answer.as_numpy("probabilities") is None


@pytest.mark.parametrize("binary", [True, False])
def test_texts_go_to_the_container(client: Any, api: httpx.Client, binary: bool) -> None:
    answer = client.infer("embed", [given("text", "BYTES", TEXTS, binary=binary)], model_version="1")
    vectors = answer.as_numpy("embedding")
    instances = [text.decode() for text in TEXTS]
    expected = api.post("/v1/models/embed/predict", json={"instances": instances}).json()["predictions"]
    assert vectors == pytest.approx(np.array(expected), abs=1e-5)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_picture_travels_as_bytes(client: Any) -> None:
    document = json.loads((ROOT / "examples/digits/image-request.json").read_text())
    image = np.array([base64.b64decode(document["instances"][0]["b64"])], dtype=np.object_)
    answer = client.infer("digits", [given("pixels", "BYTES", image)])
    assert answer.as_numpy("label").shape == (1,)


def test_calls_in_parallel_get_their_own_answers(client: Any) -> None:
    rows = load_digits().data[:8].astype(np.float32)
    pending = [
        client.async_infer("digits", [given("pixels", "FP32", rows[at : at + 1])], request_id=str(at))
        for at in range(len(rows))
    ]
    answers = [each.get_result(timeout=60) for each in pending]
    assert [answer.get_response()["id"] for answer in answers] == [str(at) for at in range(len(rows))]
    alone = [client.infer("digits", [given("pixels", "FP32", rows[at : at + 1])]) for at in range(2)]
    for answer, same in zip(answers, alone, strict=False):
        assert answer.as_numpy("probabilities").tolist() == same.as_numpy("probabilities").tolist()


def test_what_is_wrong_is_told_in_our_words(client: Any) -> None:
    wrong_dtype = [given("features", "FP64", ROWS.astype(np.float64))]
    classes = triton.InferRequestedOutput("probabilities", class_count=2)
    shared = triton.InferInput("features", [3, 30], "FP32")
    shared.set_shared_memory("region", ROWS.nbytes)
    calls: list[tuple[str, str, Any]] = [
        ("404", "nothing", lambda: client.infer("nothing", features())),
        ("404", "version 9", lambda: client.infer("tumor", features(), model_version="9")),
        ("404", "nothing", lambda: client.get_model_metadata("nothing")),
        ("422", "is not an input of this model", lambda: client.infer("tumor", [given("x", "FP32", ROWS)])),
        ("422", "must be FP32, not FP64", lambda: client.infer("tumor", wrong_dtype)),
        ("422", "is not an output", lambda: client.infer(
            "tumor", features(), outputs=[triton.InferRequestedOutput("z")]
        )),
        ("422", "all classes", lambda: client.infer("tumor", features(), outputs=[classes])),
        ("422", "send tensors in the message", lambda: client.infer("tumor", [shared])),
        ("422", "priority", lambda: client.infer("tumor", features(), priority=1000)),
    ]  # fmt: skip
    for status, message, call in calls:
        with pytest.raises(InferenceServerException, match=message) as refused:
            call()
        assert refused.value.status() == status
        assert "exception occurred in the client" not in refused.value.message()


def test_extensions_of_the_container_are_not_the_api_s(client: Any) -> None:
    for call in (client.get_inference_statistics, client.get_model_repository_index, client.get_trace_settings):
        with pytest.raises(InferenceServerException) as refused:
            call()
        assert refused.value.status() == "404"


def test_the_asynchronous_client(address: str, key: Key) -> None:
    async def calls() -> None:
        client = triton_aio.InferenceServerClient(address)
        client.register_plugin(key)
        try:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("tumor")
            assert (await client.get_server_metadata())["name"] == "sluice"
            assert (await client.get_model_metadata("embed"))["versions"] == ["1"]
            for binary in (True, False):
                for coding in CODINGS:
                    outputs = [triton_aio.InferRequestedOutput("probabilities", binary_data=binary)]
                    answer = await client.infer(
                        "tumor",
                        features(binary=binary),
                        outputs=outputs,
                        request_compression_algorithm=coding,
                        response_compression_algorithm=coding,
                    )
                    assert answer.as_numpy("probabilities").shape == (3, 2)
            answers = await asyncio.gather(
                *(client.infer("embed", [given("text", "BYTES", TEXTS)], request_id=str(at)) for at in range(4))
            )
            assert [answer.get_response()["id"] for answer in answers] == ["0", "1", "2", "3"]
            with pytest.raises(InferenceServerException, match="No model 'nothing' is published") as refused:
                await client.infer("nothing", features())
            assert "404" in refused.value.status()
        finally:
            await client.close()

    asyncio.run(calls())


def test_the_page_s_example_prints_what_it_shows(sluice: Sluice) -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    (example,) = [text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "tritonclient.http" in text]
    shown = "".join(f"{line}\n" for line in re.findall(r"# prints (.*)", example))
    script = example.replace(".sluice/local.json", str(sluice.home / "local.json"))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == (shown, "")
