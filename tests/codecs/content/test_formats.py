"""Content types: what is read, what is written, and that an answer comes in its request's own kind."""

import io
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.content.answers import Members
from shared.codecs.content.decoded import CsvDecoded, Decoded
from shared.codecs.content.formats import answer_format, request_format, v2_format
from shared.codecs.content.media import ALIASES, KNOWN
from shared.codecs.npy import encode_npy, encode_npz
from shared.codecs.protobuf.inference_pb2 import ModelInferRequest, ModelInferResponse
from shared.codecs.v2 import V2Tensor, decode_response, encode_request
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, NotAcceptable, UnsupportedMediaType
from shared.domain.signature import Signature
from shared.domain.tensors import Array
from shared.domain.validation import conform
from tests.codecs.signatures import ALL, LIMITS, MANY, assert_fits, spec


class Key(NamedTuple):
    name: str
    version: int


KEY = Key("m", 3)
SIGNATURE = Signature(
    (spec("x", DType.FP32, (None, 2)),),
    (spec("y", DType.FP32, (None, 2)), spec("label", DType.BYTES, (None,))),
)
ONE = Signature(SIGNATURE.inputs, SIGNATURE.outputs[:1])
X = np.array([[1, 2], [3, 4]], np.float32)
OUTPUTS: dict[str, Array] = {"y": X * 2, "label": np.array([b"a", b"b"], object)}

BINARY_BODY, BINARY_LENGTH = encode_request({"x": V2Tensor(DType.FP32, X)}, request_id="r")
SAGEMAKER = f"application/vnd.sagemaker-triton.binary+json;json-header-size={BINARY_LENGTH}"
TRITON = {"inference-header-content-length": str(BINARY_LENGTH)}
V2_JSON = b'{"id":"r","inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,2,3,4]}]}'


def protobuf() -> bytes:
    message = ModelInferRequest(model_name="m", id="r", raw_input_contents=[X.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    return message.SerializeToString()


BODIES: list[tuple[str, dict[str, str], bytes]] = [
    ("", {}, b'{"instances":[[1,2],[3,4]]}'),
    ("application/json", {}, b'{"instances": [{"x": [1,2]}, {"x": [3,4]}]}'),
    ("Application/JSON; charset=utf-8", {}, b'{"inputs":{"x":[[1,2],[3,4]]}}'),
    ("application/json", {}, V2_JSON),
    ("application/json", TRITON, BINARY_BODY),
    ("text/csv", {}, b"1,2\n3,4\n"),
    ("text/csv; charset=utf-16; header=present", {}, "x.1,x.0\n2,1\n4,3".encode("utf-16")),
    ("application/jsonlines", {}, b"[1,2]\n[3,4]\n"),
    ("application/x-ndjson", {}, b'{"x":[1,2]}\n{"x":[3,4]}'),
    ("application/x-npy", {}, encode_npy(X)),
    ("application/x-npz", {}, encode_npz({"x": X})),
    ("application/octet-stream", TRITON, BINARY_BODY),
    (SAGEMAKER, {}, BINARY_BODY),
    (SAGEMAKER.replace(";json", " ; JSON"), TRITON, BINARY_BODY),
    ("application/x-protobuf", {}, protobuf()),
    ("application/protobuf", {}, protobuf()),
]


def answer(
    content_type: str, headers: dict[str, str], body: bytes, accept: str = "", signature: Signature = SIGNATURE
) -> tuple[bytes, str, dict[str, str]]:
    request = request_format(content_type, headers)
    decoded = request.decode(body, signature, LIMITS)
    outputs = {spec.name: OUTPUTS[spec.name] for spec in signature.outputs}
    written, media_type, more = answer_format(accept, request).encode(KEY, signature, outputs, decoded)
    return written, media_type, dict(more)


@pytest.mark.parametrize(("content_type", "headers", "body"), BODIES)
def test_every_type_gives_the_same_tensors(content_type: str, headers: dict[str, str], body: bytes) -> None:
    for _ in range(2):  # what is learned from the first must not change the second
        decoded = request_format(content_type, headers).decode(body, SIGNATURE, LIMITS)
        tensors = conform(decoded.inputs, SIGNATURE)
        assert tensors["x"].dtype == np.float32
        assert tensors["x"].tolist() == X.tolist()
        if body in (V2_JSON, BINARY_BODY):
            assert decoded.id == "r"


def read_v2(body: bytes, length: int | None) -> dict[str, Any]:
    response = decode_response(body, length, LIMITS)
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "r")
    return {name: tensor.array.tolist() for name, tensor in response.outputs.items()}


Y, LABEL = (X * 2).tolist(), [b"a", b"b"]


@pytest.mark.parametrize("accept", ["", "*/*", "*/*;q=0.1, image/png"])
def test_answers_come_in_kind(accept: str) -> None:
    for content_type, headers, body in BODIES:
        written, media_type, more = answer(content_type, headers, body, accept)
        kind = content_type.partition(";")[0].strip().lower()
        if media_type.startswith("application/vnd.sagemaker"):
            assert kind.startswith("application/vnd.sagemaker")
            assert read_v2(written, int(media_type.partition("json-header-size=")[2])) == {"y": Y, "label": LABEL}
        elif media_type == "application/octet-stream":
            assert headers
            assert read_v2(written, int(more["Inference-Header-Content-Length"])) == {"y": Y, "label": LABEL}
        elif body == V2_JSON:
            assert read_v2(written, None) == {"y": Y, "label": LABEL}
        elif media_type == "application/json":
            predictions = [{"y": y, "label": label.decode()} for y, label in zip(Y, LABEL, strict=True)]
            assert orjson.loads(written) == {"predictions": predictions, "model": {"name": "m", "version": 3}}
        elif media_type == "application/x-protobuf":
            message = ModelInferResponse.FromString(written)
            assert (message.model_name, message.id) == ("m", "r")
            assert message.raw_output_contents[0] == (X * 2).tobytes()
        elif media_type == "application/x-npz":
            assert "x-np" in kind
            with np.load(io.BytesIO(written), allow_pickle=False) as members:
                assert members["y"].tolist() == Y
                assert members["label"].tolist() == LABEL
        else:
            assert (kind, media_type) in [
                ("text/csv", f"text/csv; charset=utf-8; header={'present' if b'x' in body else 'absent'}"),
                ("application/jsonlines", "application/jsonlines"),
                ("application/x-ndjson", "application/jsonlines"),
            ]


@pytest.mark.parametrize(
    ("accept", "media_type", "body"),
    [
        ("text/csv", "text/csv; charset=utf-8; header=absent", b"2.0,4.0\r\n6.0,8.0\r\n"),
        ("text/csv;header=present", "text/csv; charset=utf-8; header=present", b"y.0,y.1\r\n2.0,4.0\r\n6.0,8.0\r\n"),
        ("text/*", "text/csv; charset=utf-8; header=absent", b"2.0,4.0\r\n6.0,8.0\r\n"),
        ("application/x-ndjson", "application/jsonlines", b"[2.0,4.0]\n[6.0,8.0]\n"),
        ("application/jsonl, text/html", "application/jsonlines", b"[2.0,4.0]\n[6.0,8.0]\n"),
        ("application/x-npy, */*;q=0.1", "application/x-npy", encode_npy(X * 2)),
        ("text/html, application/x-npz;q=0.2", "application/x-npz", encode_npz({"y": X * 2})),
    ],
)
def test_accept_picks_the_type(accept: str, media_type: str, body: bytes) -> None:
    for content_type, headers, sent in BODIES:
        written, got, _ = answer(content_type, headers, sent, accept, ONE)
        # A header row follows the request's only where the answer's type does not say so itself.
        if "header=" in content_type and "header=" not in accept and "csv" in got:
            continue
        assert (got, written) == (media_type, body)


def test_requested_outputs_are_the_only_ones_in_every_type() -> None:
    body = V2_JSON.replace(b'"inputs"', b'"outputs":[{"name":"y"}],"inputs"')
    for accept in KNOWN:
        written, media_type, more = answer("application/json", {}, body, accept)
        assert b"label" not in written
        if accept == "application/octet-stream":
            assert read_v2(written, int(more["Inference-Header-Content-Length"])) == {"y": Y}
        if accept == "application/x-npy":
            assert media_type == accept


def test_binary_outputs_come_only_where_asked_for() -> None:
    asked = V2_JSON.replace(
        b'"inputs"', b'"outputs":[{"name":"y","parameters":{"binary_data":true}},{"name":"label"}],"inputs"'
    )
    written, media_type, _ = answer("application/json", {}, asked)
    length = int(media_type.partition("json-header-size=")[2])
    assert read_v2(written, length) == {"y": Y, "label": LABEL}
    assert orjson.loads(written[:length])["outputs"][1]["data"] == ["a", "b"]
    written, media_type, _ = answer("application/json", {}, asked, "application/json")
    assert (media_type, read_v2(written, None)) == ("application/json", {"y": Y, "label": LABEL})


def test_several_outputs_do_not_fit_npy() -> None:
    with pytest.raises(NotAcceptable, match="application/x-npz"):
        answer("application/x-npy", {}, encode_npy(X), "application/x-npy")


@pytest.mark.parametrize("content_type", ["text/html", "application/xml; a=b", "x" * 5000, "application/", "*/*", ";;"])
def test_unknown_types_are_refused_with_the_known_ones(content_type: str) -> None:
    if content_type == ";;":
        assert request_format(content_type, {}) is not None  # no type at all
        return
    with pytest.raises(UnsupportedMediaType) as caught:
        request_format(content_type, {})
    assert all(known in caught.value.detail for known in KNOWN)
    assert len(caught.value.detail) < 600


@pytest.mark.parametrize("accept", ["text/html", "image/*, text/html;q=0.5", "*/*;q=0", "application/json;q=0"])
def test_unknown_answers_are_refused_with_the_known_ones(accept: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        answer_format(accept, request_format("", {}))
    assert all(known in caught.value.detail for known in KNOWN)


@pytest.mark.parametrize(
    ("content_type", "headers"),
    [
        ("application/octet-stream", {}),
        ("application/octet-stream", {"inference-header-content-length": "-1"}),
        ("application/octet-stream", {"inference-header-content-length": "1e3"}),
        ("application/json", {"inference-header-content-length": ""}),
        ("application/vnd.sagemaker-triton.binary+json", {}),
        ("application/vnd.sagemaker-triton.binary+json;json-header-size=x", {}),
        ("application/vnd.sagemaker-triton.binary+json;json-header-size=9999999999", {}),
    ],
)
def test_header_lengths_must_be_numbers(content_type: str, headers: dict[str, str]) -> None:
    for negotiate in (request_format, v2_format):
        if negotiate is v2_format and not headers and "octet" in content_type:
            continue
        with pytest.raises(InvalidRequest):
            negotiate(content_type, headers)


@pytest.mark.parametrize("content_type", ["", "application/json", "application/octet-stream", "text/anything"])
def test_the_protocols_own_routes_go_by_the_header_length(content_type: str) -> None:
    request = v2_format(content_type, TRITON)
    decoded = request.decode(BINARY_BODY, SIGNATURE, LIMITS)
    written, media_type, more = answer_format("*/*", request).encode(KEY, SIGNATURE, dict(OUTPUTS), decoded)
    assert media_type == "application/octet-stream"
    assert read_v2(written, int(dict(more)["Inference-Header-Content-Length"])) == {"y": Y, "label": LABEL}


def test_the_protocols_own_routes_read_no_other_format() -> None:
    with pytest.raises(UnsupportedMediaType):
        v2_format("text/csv", {})
    with pytest.raises(InvalidRequest):
        v2_format("application/json", {}).decode(b'{"instances":[[1,2]]}', SIGNATURE, LIMITS)


def test_rows_remember_their_header() -> None:
    decoded = request_format("text/csv", {}).decode(b"x.0,x.1\n1,2", SIGNATURE, LIMITS)
    assert isinstance(decoded, CsvDecoded)
    assert decoded.header


JUNK = st.binary(max_size=3) | st.sampled_from([b"NaN", b"1e999", b"[", b'"', b"\n", b"{", b"\xff\xff\xff\xff\x7f"])
TYPES = [*KNOWN, *ALIASES, f"{KNOWN[6]};json-header-size={BINARY_LENGTH}"]


def check(content_type: str, headers: dict[str, str], body: bytes, signature: Signature) -> None:
    try:
        decoded = request_format(content_type, headers).decode(body, signature, LIMITS)
        assert isinstance(decoded, Decoded)
        tensors = conform(decoded.inputs, signature)
    except InvalidRequest as error:
        refusal = error
    else:
        assert_fits(tensors, signature)
        return
    assert len(refusal.detail) < 2000


@MANY
@given(st.sampled_from(BODIES), st.data())
def test_damaged_bodies(case: tuple[str, dict[str, str], bytes], data: st.DataObject) -> None:
    content_type, headers, body = case
    at = data.draw(st.integers(0, len(body)))
    junk = data.draw(JUNK)
    for damaged in (body[:at], body[:at] + junk + body[at:], body[:at] + junk + body[at + len(junk) :]):
        check(content_type, headers, damaged, SIGNATURE)


@MANY
@given(
    st.sampled_from(TYPES), st.sampled_from([{}, TRITON]), st.binary(max_size=90), st.sampled_from([*ALL, SIGNATURE])
)
def test_any_bytes(content_type: str, headers: dict[str, str], body: bytes, signature: Signature) -> None:
    check(content_type, headers, body, signature)


@MANY
@given(st.text(max_size=60), st.text(max_size=60), st.none() | st.text(max_size=9))
def test_any_headers(content_type: str, accept: str, length: str | None) -> None:
    headers = {} if length is None else {"inference-header-content-length": length}
    for negotiate in (request_format, v2_format):
        detail = ""
        try:
            answer_format(accept, negotiate(content_type, headers))
        except InvalidRequest as error:
            detail = error.detail
        assert len(detail) < 600


def test_a_plain_answer_may_have_further_members() -> None:
    request = request_format("", {})
    decoded = request.decode(b'{"instances":[[1,2],[3,4]]}', ONE, LIMITS)
    more = Members({"variant": "main"}, {"prediction_id": "p"})
    written, _, _ = answer_format("", request).encode(KEY, ONE, {"y": X}, decoded, more)
    assert orjson.loads(written) == {
        "predictions": X.tolist(),
        "model": {"name": "m", "version": 3, "variant": "main"},
        "prediction_id": "p",
    }
    for accept in KNOWN[1:]:
        plain = answer_format(accept, request).encode(KEY, ONE, {"y": X}, decoded)
        assert answer_format(accept, request).encode(KEY, ONE, {"y": X}, decoded, more) == plain
