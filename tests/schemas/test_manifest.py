"""The manifest: what it turns into, and what it refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from shared.domain.dtypes import DType
from shared.domain.model import Placement
from shared.domain.signature import Content
from shared.schemas.manifest import Manifest, SignatureDocument
from tests.codecs.signatures import ALL


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "dtype": "FP32", "shape": [-1, 64], **fields}


def signature(*inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": list(inputs), "outputs": [{"name": "y", "dtype": "FP32", "shape": [-1, 2]}], **more}


def manifest(**fields: Any) -> dict[str, Any]:
    return {"name": "digits", "version": 1, "signature": signature(tensor()), **fields}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (signature(), "at least 1 item"),
        (signature(tensor(extra=1)), "Extra inputs"),
        (signature(tensor(name="")), "at least 1 character"),
        (signature(tensor(dtype="FLOAT")), "Input should be"),
        (signature(tensor(shape=[-2])), "greater than or equal"),
        (signature(tensor(shape=[1] * 9)), "at most 8 items"),
        (signature(tensor(), tensor()), "inputs holds a name twice"),
        (signature(tensor(shape=[])), "needs an axis of instances"),
        (signature(tensor(), batched=False, outputs=[tensor(), tensor()]), "outputs holds a name twice"),
        (signature(tensor(features=["a"])), "1 features do not fit"),
        (signature(tensor(shape=[-1, 2], features=["a", "a"])), "holds a name twice"),
        (signature(tensor(shape=[-1, 3], classes=["a", "b"])), "2 classes do not fit"),
        (signature(tensor(layouts=[[8, 7]])), r"layout \[8, 7\] does not fit \[64\]"),
        (signature(tensor(layouts=[[8, 8], []])), r"layout \[\] does not fit"),
        (signature(tensor(layouts=[[8, -8]])), "greater than or equal"),
        (signature(tensor(shape=[-1, -1, -1], layouts=[[8]])), r"layout \[8\] does not fit"),
        (signature(tensor(shape=[-1, -1, 3], layouts=[[8]])), r"layout \[8\] does not fit"),
        (signature(tensor(shape=[-1, -1, 0], layouts=[[8]])), r"layout \[8\] does not fit"),
        (
            signature(tensor(shape=[64], layouts=[[8, 8], [9, 9]]), batched=False),
            r"layout \[9, 9\] does not fit \[64\]",
        ),
        (signature(tensor(), max_batch=0), "greater than or equal"),
    ],
)
def test_signature_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SignatureDocument.model_validate(document)


@pytest.mark.parametrize("given", ALL)
def test_signatures_survive_both_ways(given: Any) -> None:
    document = SignatureDocument.from_signature(given)
    assert SignatureDocument.model_validate_json(document.model_dump_json()).to_signature() == given


def test_layouts_that_fit() -> None:
    document = SignatureDocument.model_validate(
        signature(
            tensor(layouts=[[8, 8], [64, 1]]),
            tensor(name="free", shape=[-1, -1, 3], layouts=[[9], [2, 6]]),
            tensor(name="one", shape=[-1, 1], layouts=[[]]),
        )
    )
    assert document.to_signature().inputs[2].layouts == ((),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "Digits"}, "match pattern"),
        ({"name": "../x"}, "match pattern"),
        ({"name": "digits\n"}, "match pattern"),
        ({"name": "a" * 65}, "match pattern"),
        ({"version": 0}, "greater than or equal"),
        ({"stage": "live"}, "Input should be"),
        ({"placement": "gpu"}, "Input should be"),
        ({"preprocessing": [{"kind": "image", "input": "z", "width": 8, "height": 8}]}, "the input 'z'"),
        ({"preprocessing": [{"kind": "image", "input": "x", "width": 0, "height": 8}]}, "greater than or equal"),
        ({"preprocessing": [{"kind": "exec", "input": "x"}]}, "does not match any"),
        ({"preprocessing": [{"kind": "tokenize", "input": "x", "tokenizer": "../secret"}]}, "Input should be"),
        ({"postprocessing": [{"source": "l", "output": "z", "classes": ["a"]}]}, "the output 'z'"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_manifest_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(manifest(**fields))


def test_manifest_is_read() -> None:
    step = {"kind": "image", "input": "x", "width": 8, "height": 8}
    document = manifest(
        signature=signature(tensor(content="image")), preprocessing=[step], metrics={"accuracy": 0.98}, licence="CC0"
    )
    read = Manifest.model_validate(document)
    assert read.placement is Placement.FUNCTION
    spec = read.signature.to_signature().inputs[0]
    assert (spec.shape, spec.dtype, spec.content) == ((None, 64), DType.FP32, Content.IMAGE)
    metadata = read.metadata()
    assert metadata["metrics"] == {"accuracy": 0.98}
    assert metadata["preprocessing"][0]["width"] == 8
    assert not {"name", "version", "signature", "placement"} & metadata.keys()
