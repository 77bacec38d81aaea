"""Header blocks; the examples are RFC 7541's, appendix C."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_service.grpc import huffman
from gpu_service.grpc.hpack import BadBlock, Decoder, Header, literals

LIMIT = 16 * 1024

REQUESTS: list[list[Header]] = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]


@pytest.mark.parametrize(
    "blocks",
    [
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    ],
    ids=["plain", "huffman"],
)
def test_requests_of_the_specification(blocks: list[str]) -> None:
    decoder = Decoder(LIMIT)
    assert [decoder.decode(bytes.fromhex(block)) for block in blocks] == REQUESTS


def test_entries_leave_a_table_that_is_made_smaller() -> None:
    decoder = Decoder(LIMIT)
    decoder.decode(bytes.fromhex("400a637573746f6d2d6b65790c637573746f6d2d76616c7565"))
    assert decoder.decode(b"\xbe") == [(b"custom-key", b"custom-value")]
    decoder.decode(b"\x20\x3f\xe1\x1f")  # to nothing, and to 4096 again
    with pytest.raises(BadBlock):
        decoder.decode(b"\xbe")


def test_changes_tell_when_equal_blocks_may_differ() -> None:
    decoder = Decoder(LIMIT)
    decoder.decode(bytes.fromhex("8286"))
    assert decoder.changes == 0
    decoder.decode(bytes.fromhex("828684410f7777772e6578616d706c652e636f6d"))
    assert decoder.changes == 1


def test_a_list_over_the_limit_keeps_the_tables_in_step() -> None:
    decoder = Decoder(200)
    assert decoder.decode(b"\x40\x01a\x7f\x85\x01" + b"v" * 260) is None
    assert decoder.decode(b"\xbe") is None
    assert decoder.decode(b"\x82") == [(b":method", b"GET")]


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # an empty table's first
        b"\xff\xff\xff\xff\xff\xff\xff",  # an endless integer
        b"\xff\xff\xff\xff\xff\x7f",  # a huge one
        b"\x00",  # no name
        b"\x00\x01a\x05bc",  # a string longer than the block
        b"\x82\x20",  # the table's size after a header
        b"\x3f\xe2\x1f",  # a table larger than allowed
        b"\x00\x81\x00\x00",  # Huffman: ends inside a symbol
        b"\x00\x84\xff\xff\xff\xff\x00",  # Huffman: the end of the string
        b"\x00\x82\xff\xff\x00",  # Huffman: too much padding
    ],
)
def test_broken_blocks(block: bytes) -> None:
    with pytest.raises(BadBlock):
        Decoder(LIMIT).decode(block)


@given(st.binary(max_size=64))
def test_any_block_is_decoded_or_refused(block: bytes) -> None:
    with suppress(BadBlock):
        Decoder(LIMIT).decode(block)


@given(st.binary(max_size=64))
def test_any_huffman_string_is_decoded_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        huffman.decode(data)


names = st.binary(min_size=1, max_size=300)


@given(st.lists(st.tuples(names, names), max_size=5))
def test_what_is_written_is_read_back(headers: list[Header]) -> None:
    assert Decoder(LIMIT).decode(literals(headers)) == headers
