"""What staged functions are asked, and what they must answer."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.catalogue import DEFAULT_OUT, VERSION
from infra.local.seed import seed_keys
from shared.adapters.onnx.package import OnnxPackage
from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.domain.validation import conform
from tests.conftest import ROOT, LocalAws
from tests.functions.support import EVENTS, event


@dataclass(frozen=True, slots=True)
class Call:
    """An event for a function."""

    function: str
    event: Mapping[str, Any]


def file(name: str) -> dict[str, Any]:
    """An event from `tests/events`."""
    return dict(json.loads((EVENTS / f"{name}.json").read_text()))


def predict(model: str, request: Path) -> Call:
    """A prediction for the request of an example."""
    path = f"/v1/models/{model}/predict"
    return Call("PredictFunction", event("POST", path, "/v1/models/{model}/predict", request.read_bytes()))


def expected(model: str, request: Path) -> list[dict[str, Any]]:
    """What the model answers in this process, by instance."""
    package = OnnxPackage.load(DEFAULT_OUT / model / str(VERSION), threads=1)
    answer = package.run(
        conform(decode_instances(request.read_bytes(), package.signature, JsonLimits()), package.signature)
    )
    rows = range(len(next(iter(answer.values()))))
    return [{name: _plain(array[row]) for name, array in answer.items()} for row in rows]


def authorize(local_aws: LocalAws) -> Call:
    """The authorizer's event with a key that is in the store."""
    asked = file("authorizer")
    asked["identitySource"] = [f"Bearer {seed_keys(local_aws.stack, local_aws.url).api_key}"]
    return Call("AuthorizerFunction", asked)


def body(answer: Mapping[str, Any]) -> Any:
    """The document in an answer that must be a 200."""
    content = answer["body"]
    assert answer["statusCode"] == 200, content
    return json.loads(base64.b64decode(content) if answer["isBase64Encoded"] else content)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.tolist() if hasattr(value, "tolist") else value


TUMOR = ROOT / "examples" / "tumor" / "request.json"
DIGIT = ROOT / "examples" / "digits" / "image-request.json"
