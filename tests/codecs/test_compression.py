"""Content codings: what was packed comes out, and nothing damaged, cut off or far too large does."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.compression import compress, decompress
from shared.domain.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from tests.codecs.signatures import BOUNDED

MAX = 10_000
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}


@BOUNDED
@given(st.binary(max_size=200), st.lists(st.sampled_from(sorted(PACK)), max_size=3))
def test_stacked_codings_round_trip(body: bytes, codings: list[str]) -> None:
    packed = body
    for coding in codings:
        packed = PACK[coding](packed)
    assert decompress(packed, ", ".join(codings).upper(), MAX) == body


@BOUNDED
@given(st.binary(min_size=1, max_size=200), st.sampled_from(["gzip", "deflate"]), st.data())
def test_damage_is_an_invalid_request(body: bytes, coding: str, data: st.DataObject) -> None:
    packed = PACK[coding](body)
    at = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(InvalidRequest):
        decompress(packed[:at], coding, MAX)
    with pytest.raises(InvalidRequest):
        decompress(packed + data.draw(st.binary(min_size=1, max_size=9)), coding, MAX)
    damaged = packed[:at] + data.draw(st.binary(min_size=1, max_size=2)) + packed[at + 1 :]
    with suppress(InvalidRequest):
        assert len(decompress(damaged, coding, MAX)) <= MAX


@BOUNDED
@given(st.binary(max_size=60), st.sampled_from(["gzip", "deflate", "gzip, deflate"]))
def test_any_bytes(body: bytes, coding: str) -> None:
    with pytest.raises(InvalidRequest):
        decompress(body, coding, MAX)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_the_bound_holds_to_the_byte(coding: str) -> None:
    packed = PACK[coding](b"a" * MAX)
    assert decompress(packed, coding, MAX) == b"a" * MAX
    with pytest.raises(PayloadTooLarge, match="9999"):
        decompress(packed, coding, MAX - 1)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_bomb_takes_no_memory(layers: int) -> None:
    bomb = b"\0" * 30_000_000
    for _ in range(layers):
        bomb = gzip.compress(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            decompress(bomb, ",".join(["gzip"] * layers), 100_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_gzip_members_follow_each_other_up_to_a_bound() -> None:
    assert decompress(gzip.compress(b"a") * 3, "gzip", 3) == b"aaa"
    with pytest.raises(PayloadTooLarge):
        decompress(gzip.compress(b"a") * 3, "gzip", 2)
    with pytest.raises(InvalidRequest, match="members"):
        decompress(gzip.compress(b"") * 1000, "gzip", MAX)


@pytest.mark.parametrize("coding", ["br", "zstd, gzip", "gzip;q=1", "x" * 10_000])
def test_unknown_codings_are_named(coding: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="gzip or deflate") as caught:
        decompress(b"", coding, MAX)
    assert len(caught.value.detail) < 300


def test_too_many_codings() -> None:
    with pytest.raises(UnsupportedMediaType, match="At most 3"):
        decompress(b"", "gzip," * 4, MAX)


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("GZIP, deflate", "gzip"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("deflate;q=0.1", "deflate"),
        ("*", "gzip"),
        ("*, gzip;q=0", "deflate"),
        ("", None),
        ("br", None),
        ("identity", None),
        ("gzip;q=0", None),
        ("identity, gzip;q=0.5", None),
        ("*;q=0", None),
    ],
)
def test_the_coding_that_the_client_likes_best(accept: str, coding: str | None) -> None:
    body = b"1.5," * 1000
    packed, used = compress(body, accept)
    assert used == coding
    assert decompress(packed, used or "", MAX) == body
    assert (len(packed) < len(body)) is (coding is not None)


def test_what_does_not_shrink_stays_as_it_is() -> None:
    assert compress(b"a" * 100, "gzip") == (b"a" * 100, None)
    noise = bytes(range(256)) * 4
    packed = gzip.compress(noise)
    assert compress(packed, "gzip", min_size=1) == (packed, None)
