"""Every example of the contract, pasted: the predict application takes it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from functions.api.examples import examples
from shared.codecs.content.media import CSV, JSON, JSON_LINES, MULTIPART
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec
from tests.fakes import InMemoryModels
from tests.functions.api_parts import api_application
from tests.functions.conftest import Serve
from tests.functions.served import serving
from tests.functions.support import Function
from tests.models import (
    biased_model,
    image_package,
    label_package,
    manifest,
    sum_model,
    tensor,
    text_package,
    write_package,
)

EXAMPLES = Path(__file__).parents[2] / "build" / "models"
BOUNDARY = "a-boundary"
TEXTS = {JSON, JSON_LINES, CSV, MULTIPART}


def packages(folder: Path) -> Iterator[Path]:
    """The example models, and kinds of signatures that they have not."""
    yield from sorted(EXAMPLES.glob("*/1"))
    yield with_example(text_package(folder / "texts"), 'one two, "three"')
    yield with_example(image_package(folder / "images"), [0.25, 0.5, 0.75, 1])
    yield with_example(label_package(folder / "labels"), {"f3": 3, "f1": 1, "f2": 2})
    columns = [[tensor(name, "FP32", [-1, -1]) for name in names] for names in (("a", "b"), ("total", "difference"))]
    pair = write_package(folder / "pair", sum_model(), manifest("pair", 1, *columns))
    yield with_example(pair, {"a": [1, 2], "b": [3, 4.5]})
    inputs = [tensor("x", "FP32", [-1, 2]), tensor("bias", "FP32", [2], optional=True)]
    biased = write_package(folder / "b", biased_model(), manifest("biased", 1, inputs, [tensor("y", "FP32", [-1, 2])]))
    yield with_example(biased, {"x": [1, 2]})


def with_example(folder: Path, instance: Any) -> Path:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "example": instance}))
    return folder


def body_of(kind: str, value: Any) -> bytes:
    if kind == JSON:
        return json.dumps(value).encode()
    if kind != MULTIPART:
        return str(value).encode()
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        f"{item if isinstance(item, str) else json.dumps(item)}\r\n"
        for name, item in value.items()
    ]
    return "".join([*parts, f"--{BOUNDARY}--\r\n"]).encode()


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return list(packages(tmp_path))


def test_every_example_is_answered(serve: Serve, models: list[Path], log: logging.Logger) -> None:
    predict_app = serving(log, *models)
    function: Function = serve(predict_app)
    registry = predict_app.state.services.registry
    known = InMemoryModels(*registry.models())
    document = serve(api_application(log, known, contract_ttl_s=60))("GET", "/openapi.json", principal=None).json
    names = {version.model for version in known.models()}
    assert {"tumor", "digits", "embed"} <= names
    seen = set()
    for name in names:
        path = f"/v1/models/{name}/predict"
        for kind, media in document["paths"][path]["post"]["requestBody"]["content"].items():
            for title, example in media.get("examples", {}).items():
                body = body_of(kind, example["value"])
                content_type = f"{kind}; boundary={BOUNDARY}" if kind == MULTIPART else kind
                headers = {"content-type": content_type, "accept": JSON}
                answer = function("POST", path, body=body, headers=headers)
                assert answer.status == 200, (name, kind, title, answer.body)
                seen.add((name, kind))
    assert seen == {(name, kind) for name in names for kind in TEXTS}


@pytest.mark.parametrize("instance", [{"other": 1}, [1, 2], "text", None])
def test_what_is_no_instance_of_the_model_is_shown_as_it_stands(instance: Any) -> None:
    specs = tuple(TensorSpec(name, DType.FP32, (None, 2)) for name in ("a", "b"))
    found = examples(Signature(inputs=specs, outputs=specs), instance)
    assert found == {JSON: {"rows": {"summary": "By row", "value": {"instances": [instance]}}}}
