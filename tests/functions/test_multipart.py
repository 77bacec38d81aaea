"""Forms: images, files and numbers as parts."""

import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, SluiceError
from shared.domain.signature import Content
from shared.domain.validation import conform
from shared.web.multipart import MultipartFormat, PartLimits, read_parts
from tests.codecs.signatures import LIMITS, MANY, PAIR, PIXELS, TEXT, assert_fits, spec, takes
from tests.functions.conftest import Serve
from tests.functions.served import ROUTE, serving
from tests.functions.support import Answer, Function
from tests.models import add_model, biased_model, identity_model, image_package, sum_model, text_package, write_package

BOUNDARY = "----a-boundary"
Field = tuple[str, bytes, dict[str, str]]


def png(*values: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.array(values, np.uint8).reshape(2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def field(name: str, content: bytes | str, **more: str) -> Field:
    return name, content if isinstance(content, bytes) else content.encode(), more


def form(fields: Sequence[Field]) -> bytes:
    body = b""
    for name, content, more in fields:
        file = f'; filename="{more["filename"]}"' if "filename" in more else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'
        if "type" in more:
            head += f"Content-Type: {more['type']}\r\n"
        if "encoding" in more:
            head += f"Content-Transfer-Encoding: {more['encoding']}\r\n"
        body += head.encode() + b"\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture
def function(serve: Serve, tmp_path: Path, log: logging.Logger) -> Function:
    folders = [
        image_package(tmp_path / "images"),
        text_package(tmp_path / "texts"),
        write_package(tmp_path / "plus/1", add_model()),
        write_package(tmp_path / "sum/1", sum_model()),
        write_package(tmp_path / "biased/1", biased_model()),
        write_package(tmp_path / "raw/1", identity_model(DType.BYTES, ["n"])),
        write_package(tmp_path / "one/1", identity_model(DType.INT64, [2])),
    ]
    return serve(serving(log, *folders))


def post(function: Function, model: str, *fields: Field, body: bytes | None = None, **headers: str) -> Answer:
    content = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"} | headers
    sent = form(fields) if body is None else body
    return function("POST", f"/v1/models/{model}/predict", route=ROUTE, body=sent, headers=content)


def predictions(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    return answer.json["predictions"]


@pytest.mark.parametrize("name", ["x", "file"])
def test_images_are_the_rows_of_a_batch(function: Function, name: str) -> None:
    images: list[bytes] = [png(0, 51, 102, 255), png(255, 0, 0, 0)]
    answer = post(function, "images", *(field(name, image, filename="a.png", type="image/png") for image in images))
    assert predictions(answer) == [pytest.approx([0, 0.2, 0.4, 1]), [1, 0, 0, 0]]
    bare = post(function, "images", field(name, images[0]))  # `curl -F 'x=<a.png'` names neither
    assert predictions(bare) == [pytest.approx([0, 0.2, 0.4, 1])]


def test_an_image_may_come_as_numbers_or_as_base64(function: Function) -> None:
    assert predictions(post(function, "images", field("x", "[0, 0.25, 0.5, 1]"))) == [[0, 0.25, 0.5, 1]]
    mixed = post(function, "images", field("x", png(0, 0, 0, 0)), field("x", "[0, 0, 0, 0]"))
    assert (mixed.status, mixed.json["code"], mixed.json["errors"][0]["pointer"]) == (422, "wrong_dtype", "/x/1")


def test_text_and_files_are_taken_as_they_are(function: Function) -> None:
    answer = post(function, "texts", field("text", "one two"), field("file", b"three", filename="t.txt"))
    assert len(predictions(answer)) == 2
    assert predictions(post(function, "raw", field("file", b"[1]\r\n--x", filename="f"))) == ["[1]\r\n--x"]
    assert predictions(post(function, "raw", field("x", b""), field("x", b'"q"'))) == ["", '"q"']
    assert predictions(post(function, "raw", field("x", b'"q"', type="application/json"))) == ["q"]


def test_numbers_are_json(function: Function) -> None:
    assert predictions(post(function, "plus", field("x", "[1, 2]"), field("x", " [3,4.5] "))) == [[2, 3], [4, 5.5]]
    answer = post(function, "sum", field("a", "[1]"), field("b", "[2]"), field("a", "[3]"), field("b", "[5]"))
    assert predictions(answer) == [{"total": [3], "difference": [-1]}, {"total": [8], "difference": [-2]}]
    csv = post(function, "plus", field("x", "[1, 2]"), accept="text/csv")
    assert csv.body == b"2.0,3.0\r\n"


def test_one_value_for_the_whole_request(function: Function) -> None:
    answer = post(function, "biased", field("x", "[1, 2]"), field("x", "[3, 4]"), field("bias", "[10, 20]"))
    assert predictions(answer) == [[11, 22], [13, 24]]
    twice = post(function, "biased", field("x", "[1, 2]"), field("bias", "[1, 2]"), field("bias", "[1, 2]"))
    assert (twice.status, twice.json["errors"][0]["pointer"]) == (422, "/bias")
    assert predictions(post(function, "one", field("x", "[1, 2]"))) == [[1, 2]]
    wrong = post(function, "one", field("x", "[1, 2, 3]"))
    assert (wrong.status, wrong.json["code"]) == (422, "wrong_shape")


@pytest.mark.parametrize(
    ("model", "fields", "status", "code", "pointer"),
    [
        ("plus", [field("z", "[1, 2]")], 422, "unknown_field", "/z"),
        ("sum", [field("file", "[1]")], 422, "unknown_field", "/file"),
        ("sum", [field("a", "[1]")], 422, "missing_field", "/b"),
        ("sum", [field("a", "[1]"), field("b", "[1]"), field("b", "[1]")], 422, "wrong_shape", "/b"),
        ("plus", [field("x", "[1, 2")], 400, "not_json", "/x/0"),
        ("plus", [field("x", "[1, NaN]")], 422, "not_finite", "/x/0"),
        ("plus", [field("x", "[1, 2]"), field("x", '[1, "2"]')], 422, "wrong_dtype", "/x/1/1"),
        ("plus", [field("x", "[1, 2]"), field("x", "[1]")], 422, "wrong_shape", "/x/1"),
        ("plus", [field("x", "[1, 2, 3]")], 422, "wrong_shape", "/x"),
        ("plus", [field("x", "[" * 50 + "]" * 50)], 400, "too_deep", None),
        ("images", [field("x", b"\x89PNG not", filename="a.png")], 422, "bad_image", "/instances/0"),
        ("texts", [field("text", b"\xff\xfe")], 422, "wrong_dtype", "/text/0"),
        ("plus", [field("x", "[1, 2]", encoding="base64")], 415, "unsupported_media_type", None),
        ("plus", [field("x" * 300, "[1, 2]")], 413, "payload_too_large", None),
        ("plus", [field("x", "[1, 2]")] * 1025, 413, None, None),
        ("plus", [], 422, "empty_batch", None),
    ],
)
def test_bad_forms_are_refused_with_the_place(
    function: Function, model: str, fields: list[Field], status: int, code: str | None, pointer: str | None
) -> None:
    answer = post(function, model, *fields)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    if code is not None:
        assert answer.json["code"] == code
        assert [item["pointer"] for item in answer.json["errors"]] == ([] if pointer is None else [pointer])


WHOLE = form([field("x", "[1, 2]"), field("x", "[3, 4]", filename="f", type="application/json")])


@pytest.mark.parametrize("size", range(0, len(WHOLE) - 4, 7))
def test_a_form_that_is_cut_off_is_refused(function: Function, size: int) -> None:
    answer = post(function, "plus", body=WHOLE[:size])
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"Content-Disposition: attachment; name=x\r\n",
        b"Content-Disposition: form-data\r\n",
        b"Content-Disposition form-data\r\n",
        b"X: y\r\n" * 9 + b'Content-Disposition: form-data; name="x"\r\n',
        b"X: " + b"y" * 5000 + b'\r\nContent-Disposition: form-data; name="x"\r\n',
        b"\x00: y\r\n",
    ],
)
def test_parts_with_odd_headers_are_refused(function: Function, head: bytes) -> None:
    body = f"--{BOUNDARY}\r\n".encode() + head + b"\r\n[1, 2]" + f"\r\n--{BOUNDARY}--\r\n".encode()
    answer = post(function, "plus", body=body)
    assert 400 <= answer.status < 500
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("boundary", ["", "b" * 71, "other"])
def test_the_boundary_must_be_the_bodys(function: Function, boundary: str) -> None:
    answer = post(function, "plus", body=WHOLE, **{"content-type": f"multipart/form-data; boundary={boundary}"})
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


def test_a_quoted_boundary_and_what_surrounds_the_form(function: Function) -> None:
    content_type = {"content-type": f'multipart/form-data; boundary="{BOUNDARY}"; charset=utf-8'}
    assert predictions(post(function, "plus", body=WHOLE + b"epilogue", **content_type)) == [[2, 3], [4, 5]]


def test_parts_have_bounds() -> None:
    limits = PartLimits(max_parts=2, max_part_bytes=10)
    assert len(read_parts(form([field("x", b"y" * 10)] * 2), BOUNDARY, limits)) == 2
    for fields in ([field("x", "1")] * 3, [field("x", b"y" * 11)]):
        with pytest.raises(SluiceError) as caught:
            read_parts(form(fields), BOUNDARY, limits)
        assert caught.value.code == "payload_too_large"


def test_a_body_full_of_almost_boundaries_costs_little() -> None:
    almost = (f"\r\n--{BOUNDARY[:-1]}".encode() * 200_000)[:4_000_000]
    (part,) = read_parts(form([field("x", almost)]), BOUNDARY, PartLimits())
    assert part.data == almost


SIGNATURES = (PAIR, PIXELS, TEXT, takes(spec("x", DType.FP32, (None, 2), content=Content.IMAGE)))
NAMES = st.sampled_from(["x", "text", "i/d", "file", "é", ""])
VALUES = st.one_of(
    st.binary(max_size=40),
    st.recursive(st.integers() | st.floats() | st.text(max_size=5) | st.none(), st.lists, max_leaves=8).map(
        lambda value: json.dumps(value).encode()
    ),
    st.just(png(1, 2, 3, 4)),
)
FIELDS = st.tuples(
    NAMES,
    VALUES,
    st.fixed_dictionaries(
        {}, optional={"filename": st.text(max_size=5), "type": st.sampled_from(["image/png", "application/json", "x"])}
    ),
)


def refused_or_right(body: bytes) -> None:
    for signature in SIGNATURES:
        try:
            decoded = MultipartFormat(BOUNDARY).decode(body, signature, LIMITS)
            tensors = conform(decoded.inputs, signature)
        except InvalidRequest:
            continue
        if signature is TEXT or all(array.dtype != np.object_ for array in tensors.values()):
            assert_fits(tensors, signature)  # not for encoded images in place of numbers


@MANY
@given(st.lists(FIELDS, max_size=4))
def test_any_form_is_refused_or_right(fields: list[Field]) -> None:
    refused_or_right(form(fields))


@MANY
@given(st.binary(max_size=60), st.integers(0, len(WHOLE)), st.integers(0, 20))
def test_any_damage_is_refused_or_right(noise: bytes, at: int, cut: int) -> None:
    refused_or_right(WHOLE[:at] + noise + WHOLE[at + cut :])
