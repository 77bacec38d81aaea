"""JSON Lines: as if the lines were a list of instances, with places that name the line."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_lines import decode_lines, encode_lines
from shared.codecs.json_tensors import decode_instances
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, PayloadTooLarge, TooDeep
from shared.domain.signature import Signature
from shared.domain.validation import conform
from tests.codecs.signatures import ALL, BOUNDED, LIMITS, NAMED, PAIR, SCALAR, TEXT, row, spec
from tests.codecs.test_json_properties import documents


@BOUNDED
@given(st.sampled_from(ALL), st.sampled_from([b"\n", b"\r\n", b"\n\n \n"]), st.data())
def test_lines_are_instances(signature: Signature, newline: bytes, data: st.DataObject) -> None:
    document = data.draw(documents(signature).filter(lambda document: "instances" in document))
    wanted = decode_instances(orjson.dumps(document), signature, LIMITS)
    body = newline.join(orjson.dumps(instance) for instance in document["instances"]) + newline
    inputs = decode_lines(body, signature, LIMITS)
    assert list(inputs.tensors) == list(wanted.tensors)
    for name, array in wanted.tensors.items():
        assert inputs.tensors[name].dtype == array.dtype
        assert inputs.tensors[name].tolist() == array.tolist()


@pytest.mark.parametrize(
    ("body", "signature", "code", "place"),
    [
        (b"[1,2]\n\n[1,]\n", row(), "not_json", "/lines/3"),
        (b"[1,2],[3,4]", row(), "not_json", "/lines/1"),
        (b"[1,2]\n[3,4]],[[5,6]", row(), "not_json", "/lines/2"),
        (b"[1,2]\n\n[1,true]\n", row(), "wrong_dtype", "/lines/3/1"),
        (b"\n[1,2]\n[1]\n", row(), "wrong_shape", "/lines/3"),
        (b'{"a":1,"b/c":2,"d~e":3}\n{"a":1,"b/c":2}', NAMED, "missing_field", "/lines/2/d~0e"),
        (b'{"i/d":1,"x":[1,2]}\n{"i/d":1,"x":[1,"2"]}', PAIR, "wrong_dtype", "/lines/2/x/1"),
        (b"[1,1e39]", row(), "not_finite", "/lines/1/1"),
        (b"1\n2", SCALAR, "batch_too_large", "/lines"),
        (b"[1,2]\n" * 5, row(), "batch_too_large", "/lines"),
        (b'"\xff"', TEXT, "not_json", "/lines/1"),
        (b"NaN", SCALAR, "not_json", "/lines/1"),
    ],
)
def test_errors_name_the_line(body: bytes, signature: Signature, code: str, place: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_lines(body, signature, LIMITS)
    assert (caught.value.code, [field.pointer for field in caught.value.fields]) == (code, [place])
    assert place in caught.value.detail


def test_later_checks_name_the_line_too() -> None:
    with pytest.raises(InvalidRequest) as caught:
        conform(decode_lines(b'\n"short"\n\n"far too long a text"', TEXT, LIMITS), TEXT)
    assert caught.value.fields[0].pointer == "/lines/4"
    with pytest.raises(InvalidRequest) as caught:
        conform(decode_lines(b"[1,2,3]", row(), LIMITS), row())
    assert caught.value.fields[0].pointer == "/lines"


@pytest.mark.parametrize("body", [b"", b"\n\n", b" \r\n\t"])
def test_no_line_is_an_empty_batch(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_lines(body, row(), LIMITS)
    assert caught.value.code == "empty_batch"


def test_limits() -> None:
    with pytest.raises(PayloadTooLarge):
        decode_lines(b"[1,2]\n", row(), JsonLimits(max_bytes=5))
    with pytest.raises(PayloadTooLarge):
        decode_lines(b"[1,2]\n", row(), JsonLimits(max_values=2))
    with pytest.raises(TooDeep):
        decode_lines(b"[" * 40 + b"]" * 40, row(), LIMITS)


@BOUNDED
@given(
    st.binary(max_size=60) | st.text('[]{},:"1.5e \n\\truenlbfas', max_size=60).map(str.encode), st.sampled_from(ALL)
)
def test_any_bytes(body: bytes, signature: Signature) -> None:
    refusal: InvalidRequest | None = None
    try:
        conform(decode_lines(body, signature, LIMITS), signature)
    except InvalidRequest as error:
        refusal = error
    assert refusal is None or all(field.pointer.startswith("/lines") for field in refusal.fields)


def test_answers_have_a_line_for_each_row() -> None:
    signature = Signature((), (spec("y", DType.FP32, (None, 2)), spec("label", DType.BYTES, (None,))))
    outputs: dict[str, Any] = {
        "y": np.array([[1, 2], [3, np.nan]], np.float32),
        "label": np.array([b"a", b"b"], object),
    }
    lines = encode_lines(outputs, signature).split(b"\n")
    assert lines.pop() == b""
    assert [orjson.loads(line) for line in lines] == [
        {"y": [1.0, 2.0], "label": "a"},
        {"y": [3.0, None], "label": "b"},
    ]
