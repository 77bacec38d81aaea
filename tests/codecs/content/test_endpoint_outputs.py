"""What an endpoint makes of outputs goes into every answer format as its signature says."""

import io
from typing import Any

import numpy as np
import orjson
import pytest

from shared.codecs.content.answers import AnswerFormat, BinaryAnswer, JsonAnswer, ProtobufAnswer
from shared.codecs.content.arrays import NpyAnswer, NpzAnswer
from shared.codecs.content.decoded import Decoded, PlainDecoded
from shared.codecs.content.media import BINARY
from shared.codecs.content.tables import CsvAnswer, JsonLinesAnswer
from shared.codecs.json_documents import JsonLimits
from shared.codecs.protobuf.inference_pb2 import ModelInferResponse
from shared.codecs.v2 import decode_response
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig, ResponseFilter, Threshold
from shared.domain.endpoint.outputs import OutputPlan
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, bytes_tensor
from shared.domain.validation import Inputs

NO_INPUTS = Inputs({}, lambda _name, _index: "")
SIGNATURE = Signature(
    (TensorSpec("x", DType.FP32, (None, 4)),),
    (
        TensorSpec("label", DType.BYTES, (None,), classes=("a", "b")),
        TensorSpec("probabilities", DType.FP32, (None, 3), classes=("a", "b", "c")),
    ),
)
OUTPUTS: dict[str, Array] = {
    "label": bytes_tensor([b"a", b"b"]),
    "probabilities": np.array([[0.5, 0.25, 0.25], [0.125, np.nan, 0.375]], np.float32),
}
CONFIG = EndpointConfig(
    "iris",
    thresholds={"b?": Threshold("probabilities", 0.25, below="no", above="yes", class_name="b")},
    class_labels={"label": {"a": "Setosa"}, "probabilities": {"a": "Setosa"}},
    response=ResponseFilter(outputs=("b?", "probabilities", "label"), classes={"probabilities": ("c", "a")}),
)
PLAN = OutputPlan.of(CONFIG, SIGNATURE)


class _Version:
    name = "iris"
    version = 1


def encode(
    answer: AnswerFormat, plan: OutputPlan = PLAN, decoded: Decoded | None = None, outputs: dict[str, Array] = OUTPUTS
) -> bytes:
    assert plan.problems == ()
    asked = PlainDecoded(NO_INPUTS) if decoded is None else decoded
    return answer.encode(_Version(), plan.signature, plan.apply(outputs), asked)[0]


def narrow(name: str) -> OutputPlan:
    fields = {"thresholds": CONFIG.thresholds, "response": ResponseFilter((name,), CONFIG.response.classes)}
    return OutputPlan.of(EndpointConfig("iris", **fields), SIGNATURE)  # type: ignore[arg-type]


def test_json_by_rows() -> None:
    assert orjson.loads(encode(JsonAnswer(None)))["predictions"] == [
        {"b?": "yes", "probabilities": {"c": 0.25, "Setosa": 0.5}, "label": "Setosa"},
        {"b?": "", "probabilities": {"c": 0.375, "Setosa": 0.125}, "label": "b"},
    ]
    assert orjson.loads(encode(JsonAnswer(None), narrow("b?")))["predictions"] == ["yes", ""]


def test_json_lines() -> None:
    lines = [orjson.loads(line) for line in encode(JsonLinesAnswer(), narrow("probabilities")).splitlines()]
    assert lines == [{"c": 0.25, "a": 0.5}, {"c": 0.375, "a": 0.125}]


def test_csv() -> None:
    assert encode(CsvAnswer(True)).decode().splitlines() == [
        "b?,probabilities.c,probabilities.Setosa,label",
        "yes,0.25,0.5,Setosa",
        ",0.375,0.125,b",
    ]


def test_csv_columns_of_text_are_not_called_by_what_it_may_say() -> None:
    config = EndpointConfig(
        "iris",
        thresholds={"always": Threshold("probabilities", 0.5, below="yes", above="yes", class_name="a")},
        class_labels={"label": {"a": "b"}},
        response=ResponseFilter(outputs=("always", "label")),
    )
    plan = OutputPlan.of(config, SIGNATURE)
    assert [spec.classes for spec in plan.signature.outputs] == [("yes",), ("b",)]
    assert encode(CsvAnswer(True), plan).decode().splitlines()[0] == "always,label"


def test_numpy_files() -> None:
    assert np.load(io.BytesIO(encode(NpyAnswer(False), narrow("b?")))).tolist() == [b"yes", b""]
    archive = np.load(io.BytesIO(encode(NpzAnswer())))
    assert {name: archive[name].tolist() for name in archive} == {
        "b?": [b"yes", b""],
        "probabilities": [[0.25, 0.5], [0.375, 0.125]],
        "label": [b"Setosa", b"b"],
    }
    nothing = {**OUTPUTS, "probabilities": np.full((2, 3), np.nan, np.float32)}
    assert np.load(io.BytesIO(encode(NpyAnswer(False), narrow("b?"), outputs=nothing))).tolist() == [b"", b""]


def v2(decoded: Decoded) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(encode(JsonAnswer(None), decoded=decoded))
    return {entry["name"]: (entry["datatype"], entry["shape"], entry["data"]) for entry in document["outputs"]}


def test_v2_json() -> None:
    all_of_them = {
        "b?": ("BYTES", [2], ["yes", ""]),
        "probabilities": ("FP32", [2, 2], [0.25, 0.5, 0.375, 0.125]),
        "label": ("BYTES", [2], ["Setosa", "b"]),
    }
    assert v2(Decoded(NO_INPUTS)) == all_of_them
    assert v2(Decoded(NO_INPUTS, outputs=("b?",))) == {"b?": all_of_them["b?"]}


@pytest.mark.parametrize("name", ["b?", "probabilities", "label"])
def test_v2_binary(name: str) -> None:
    plan = PLAN.apply(OUTPUTS)
    body, _, headers = BinaryAnswer(BINARY).encode(_Version(), PLAN.signature, plan, Decoded(NO_INPUTS, (name,)))
    decoded = decode_response(body, int(dict(headers)["Inference-Header-Content-Length"]), JsonLimits())
    assert decoded.outputs[name].array.tolist() == plan[name].tolist()


def test_protobuf() -> None:
    message = ModelInferResponse.FromString(encode(ProtobufAnswer()))
    assert [(each.name, each.datatype, list(each.shape)) for each in message.outputs] == [
        ("b?", "BYTES", [2]),
        ("probabilities", "FP32", [2, 2]),
        ("label", "BYTES", [2]),
    ]


def test_a_model_without_rows() -> None:
    signature = Signature(SIGNATURE.inputs, (TensorSpec("score", DType.FP32, ()),), batched=False)
    config = EndpointConfig("iris", thresholds={"decision": Threshold("score", 0.5, "no", "yes")})
    plan = OutputPlan.of(config, signature)
    outputs: dict[str, Array] = {"score": np.array(0.75, np.float32)}
    predictions = orjson.loads(encode(JsonAnswer(None), plan, outputs=outputs))["predictions"]
    assert predictions == [{"score": 0.75, "decision": ["yes"]}]
    document = orjson.loads(encode(JsonAnswer(None), plan, Decoded(NO_INPUTS), outputs))
    assert [entry["shape"] for entry in document["outputs"]] == [[], [1]]
    assert encode(CsvAnswer(True), plan, outputs=outputs).decode().splitlines() == ["score,decision", "0.75,yes"]
