"""gzip as a stream: any number of members, bounded, and whole."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codecs.batch import gzip_stream
from shared.codecs.batch.gzip_stream import pack, unpack
from shared.domain.batch_formats import Bounds
from shared.domain.errors import InvalidRequest, PayloadTooLarge
from tests.codecs.batch.files import FEW


def pieces_of(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.integers(1, 50), st.integers(0, 5))
@FEW
def test_members_are_one_file(members: list[bytes], size: int, padding: int) -> None:
    packed = b"".join(map(gzip.compress, members)) + b"\0" * padding
    assert b"".join(unpack(pieces_of(packed, size), Bounds())) == b"".join(members)


@given(st.lists(st.binary(max_size=200)))
@FEW
def test_what_is_packed_is_read_by_others(pieces: list[bytes]) -> None:
    assert gzip.decompress(b"".join(pack(pieces))) == b"".join(pieces)


def refused_after(pieces: list[bytes], bounds: Bounds) -> int:
    """How many bytes were given before the rest was refused as too much."""
    taken = 0
    try:
        for piece in unpack(pieces, bounds):
            assert len(piece) <= 1 << 20
            taken += len(piece)
    except PayloadTooLarge:
        return taken
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize("pieces", [1, 500])
def test_bombs_are_not_unpacked(pieces: int) -> None:
    bomb = gzip.compress(bytes(32 << 20), 9)
    assert len(bomb) < 1 << 16
    split = pieces_of(bomb, -(-len(bomb) // pieces))
    assert refused_after(split, Bounds(max_ratio=100)) <= 8 << 20
    assert refused_after(split, Bounds(max_unpacked=3 << 20, max_ratio=10**6)) <= 3 << 20


def test_members_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_stream, "_MOST_MEMBERS", 50)
    empty = gzip.compress(b"", mtime=0)
    assert b"".join(unpack([empty * 49 + gzip.compress(b"a") + bytes(9)], Bounds())) == b"a"
    with pytest.raises(PayloadTooLarge, match="members"):
        list(unpack(pieces_of(empty * 51, 30), Bounds()))


# Without a time in its head: contents are part of the names of tests, which all processes of a run must agree on.
PACKED = gzip.compress(b"a" * 99, mtime=0)


@pytest.mark.parametrize("content", [b"", b"plain text", PACKED[:-1], PACKED[:15]])
def test_what_is_not_whole_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        list(unpack(pieces_of(content, 5), Bounds()))


def test_what_follows_or_is_damaged_is_refused() -> None:
    packed = gzip.compress(b"abc")
    wrong = packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:]
    for content in (packed + b"x", packed + zlib.compress(b"x"), wrong):
        with pytest.raises(InvalidRequest):
            list(unpack([content], Bounds()))
