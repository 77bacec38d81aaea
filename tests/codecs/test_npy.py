"""NPY and NPZ: what NumPy writes is read exactly; what is damaged, pickled or a bomb is refused."""

import io
import tracemalloc
import warnings
import zipfile
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.codecs.json_documents import JsonLimits
from shared.codecs.npy import decode_npy, decode_npz, encode_npy, encode_npz
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, PayloadTooLarge
from shared.domain.signature import Signature
from shared.domain.tensors import NUMPY_DTYPES, Array
from tests.codecs.signatures import ALL, BOUNDED, LIMITS, MANY, PAIR, row, spec, takes

TYPES = [dtype for dtype in DType if dtype is not DType.BYTES]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)


def npy(array: Any, **more: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **more)
    return file.getvalue()


def with_header(header: str, data: bytes = b"", version: int = 1) -> bytes:
    raw = header.encode("latin-1")
    length = len(raw).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + raw + data


@MANY
@given(st.sampled_from(TYPES), SHAPES, st.sampled_from("<>"), st.sampled_from("CF"), st.data())
def test_numbers_are_read_as_numpy_wrote_them(
    dtype: DType, shape: tuple[int, ...], byte_order: Any, order: Any, data: st.DataObject
) -> None:
    array = data.draw(hnp.arrays(NUMPY_DTYPES[dtype], shape))
    body = npy(np.asarray(array.astype(array.dtype.newbyteorder(byte_order)), order=order))
    read = decode_npy(body, takes(spec("x", dtype, (None,))), LIMITS).tensors["x"]
    assert read.dtype is NUMPY_DTYPES[dtype]
    assert read.shape == array.shape
    assert read.flags.c_contiguous
    assert read.tobytes() == array.tobytes()


@BOUNDED
@given(
    hnp.arrays(np.dtype("S5"), SHAPES)
    | hnp.arrays(
        np.dtype("U4"), SHAPES, elements=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)
    )
)
def test_strings_become_bytes(array: Array) -> None:
    read = decode_npy(npy(array), row(DType.BYTES), LIMITS).tensors["x"]
    assert read.shape == array.shape
    assert read.ravel().tolist() == [v if isinstance(v, bytes) else v.encode() for v in array.ravel().tolist()]


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_versions(version: tuple[int, int]) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ones((1, 2), np.float32), version=version)
    assert decode_npy(file.getvalue(), row(), LIMITS).tensors["x"].tolist() == [[1, 1]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00",
        npy(np.array([{"a": 1}], object), allow_pickle=True),
        npy(np.array([1 + 2j])),
        npy(np.array(["2020-01-01"], "M8[D]")),
        npy(np.zeros(2, [("a", "<f4")])),
        npy(np.ones((1, 2), np.float64)),
        npy(np.ones((1, 2), np.int32)),
        npy(np.array([[b"a", b"b"]])),
        npy(np.ones((1, 2), np.float32))[:-1],
        npy(np.ones((1, 2), np.float32)) + b"\0",
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }", b"\0" * 8),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4294967296), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2), }", b"\0" * 8),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), 'x': 1}", b"\0" * 8),
        with_header("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}", b"\0" * 8),
        with_header("{'descr': '<f4', 'fortran_order': False}", b"\0" * 8),
        with_header("{'descr': '<f3', 'fortran_order': False, 'shape': (1, 2)}", b"\0" * 6),
        with_header("{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (1, 2)}", b"\0" * 8),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}" + " " * 5000, b"\0" * 8),
        with_header("[" * 3000, b""),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}", b"\0" * 8, version=4),
        with_header("{'descr': '<U2', 'fortran_order': False, 'shape': (1, 1)}", b"\xff" * 8),
    ],
)
def test_refused(body: bytes) -> None:
    for signature in (row(), row(DType.BYTES)):
        if signature == row(DType.BYTES) and b"'|S" in body[:90]:
            continue
        with pytest.raises(InvalidRequest):
            decode_npy(body, signature, LIMITS)


def test_bool_bytes_and_bf16() -> None:
    header = "{'descr': '|b1', 'fortran_order': False, 'shape': (1, 2), }"
    with pytest.raises(InvalidRequest, match="neither 0 nor 1"):
        decode_npy(with_header(header, b"\1\2"), row(DType.BOOL), LIMITS)
    header = "{'descr': '|V2', 'fortran_order': False, 'shape': (1, 2), }"
    read = decode_npy(with_header(header, b"\x80\x3f\x00\x40"), row(DType.BF16), LIMITS).tensors["x"]
    assert read.tolist() == [[0x3F80, 0x4000]]


def test_wide_strings_of_nothing_are_bounded() -> None:
    body = with_header("{'descr': '|S0', 'fortran_order': False, 'shape': (2000000000,), }")
    with pytest.raises(PayloadTooLarge):
        decode_npy(body, row(DType.BYTES), LIMITS)


def test_several_inputs_need_npz() -> None:
    with pytest.raises(InvalidRequest, match="application/x-npz"):
        decode_npy(npy(np.ones(2)), PAIR, LIMITS)


def test_places() -> None:
    locate = decode_npy(npy(np.ones((1, 2), np.float32)), row(), LIMITS).locate
    assert (locate("x", ()), locate("x", (0, 1))) == ("/x", "/x/0/1")


def archive(members: dict[str, bytes] | list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as made:
        warnings.simplefilter("ignore")  # of names that are there already
        for name, content in members.items() if isinstance(members, dict) else members:
            made.writestr(name, content)
    return file.getvalue()


IDS, X = npy(np.array([7, 8])), npy(np.ones((2, 2), np.float32))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_hold_tensors_by_name(save: Any) -> None:
    file = io.BytesIO()
    save(file, **{"x": np.ones((2, 2), np.float32), "i/d": np.array([7, 8])})
    read = decode_npz(file.getvalue(), PAIR, LIMITS).tensors
    assert {name: array.tolist() for name, array in read.items()} == {"x": [[1, 1], [1, 1]], "i/d": [7, 8]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"PK\x05\x06",
        archive({"i/d.npy": IDS}),
        archive({"i/d.npy": IDS, "x.npy": X, "other.npy": X}),
        archive({"i/d.npy": IDS, "x": X}),
        archive({"i/d.npy": IDS, "../x.npy": X}),
        archive({"i/d.npy": IDS, "/x.npy": X}),
        archive([("i/d.npy", IDS), ("x.npy", X), ("x.npy", X)]),
        archive({"i/d.npy": IDS, "x.npy": X}, zipfile.ZIP_BZIP2),
        archive({"i/d.npy": IDS, "x.npy": X}, zipfile.ZIP_LZMA),
        archive({"i/d.npy": IDS, "x.npy": X})[:-5],
        archive({"i/d.npy": IDS, "x.npy": X}).replace(b"\x00\x00\x80\x3f", b"\x00\x00\x80\x4f"),
        archive({f"{at}.npy": b"" for at in range(100)}),
    ],
)
def test_refused_archives(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_npz(body, PAIR, LIMITS)


def test_a_zip_bomb_takes_no_memory() -> None:
    bomb = archive({"i/d.npy": b"\0" * 50_000_000, "x.npy": b"\0"}, zipfile.ZIP_DEFLATED)
    lying = bomb.replace((50_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    tracemalloc.start()
    try:
        for body in (bomb, lying):
            with pytest.raises(InvalidRequest):
                decode_npz(body, PAIR, JsonLimits(max_bytes=100_000))
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_members_share_one_bound() -> None:
    body = archive({"i/d.npy": IDS, "x.npy": X})
    assert decode_npz(body, PAIR, JsonLimits(max_bytes=len(IDS) + len(X))).tensors["x"].shape == (2, 2)
    with pytest.raises(PayloadTooLarge):
        decode_npz(body, PAIR, JsonLimits(max_bytes=len(IDS) + len(X) - 1))


JUNK = st.binary(min_size=1, max_size=3) | st.sampled_from([b"'O'", b"<U9", b">f8", b"(9,", b"True", b"{", b"PK\1\2"])


@MANY
@given(
    st.sampled_from([X, IDS, npy(np.array(["ab"])), archive({"i/d.npy": IDS, "x.npy": X}, zipfile.ZIP_DEFLATED)]),
    st.sampled_from([PAIR, row(), row(DType.BYTES), row(DType.INT64)]),
    JUNK,
    st.data(),
)
def test_damaged_files(body: bytes, signature: Signature, junk: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body)))
    for damaged in (body[:at], body[:at] + junk + body[at + len(junk) :], body[:at] + junk + body[at:]):
        for decode in (decode_npy, decode_npz):
            with suppress(InvalidRequest):
                decode(damaged, signature, LIMITS)


@BOUNDED
@given(st.binary(max_size=100), st.sampled_from(ALL))
def test_any_bytes(body: bytes, signature: Signature) -> None:
    for start in (b"", b"\x93NUMPY\x01\0", b"PK\x03\x04"):
        for decode in (decode_npy, decode_npz):
            with pytest.raises(InvalidRequest):
                decode(start + body, signature, LIMITS)


@BOUNDED
@given(st.sampled_from(TYPES), SHAPES, st.data())
def test_answers_are_what_numpy_reads(dtype: DType, shape: tuple[int, ...], data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(NUMPY_DTYPES[dtype], shape)).T
    read = np.load(io.BytesIO(encode_npy(array)), allow_pickle=False)
    assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())
    with np.load(io.BytesIO(encode_npz({"y": array, "z/1": array})), allow_pickle=False) as members:
        assert sorted(members) == ["y", "z/1"]
        assert members["z/1"].tobytes() == array.tobytes()


def test_text_answers_are_bytes_of_one_width() -> None:
    array = np.array([[b"a", b"long\xff"]], object)
    read = np.load(io.BytesIO(encode_npy(array)), allow_pickle=False)
    assert (read.dtype, read.tolist()) == (np.dtype("S5"), [[b"a", b"long\xff"]])
