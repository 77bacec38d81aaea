"""Parquet files that stand for far more than they have, or for something else: refused before Arrow decodes them."""

import subprocess
import sys
from collections.abc import Callable
from struct import pack

import pyarrow as pa
import pytest

from shared.domain.batch_formats import Bounds
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, PayloadTooLarge
from shared.domain.signature import TensorSpec
from tests.codecs.batch.files import Batch, numbers, takes
from tests.codecs.batch.forged_parquet import (
    BYTE_ARRAY,
    LIST,
    PLAIN,
    PREFIXES,
    STRUCT,
    Column,
    dictionary,
    ended,
    forged,
    levels,
    many,
    page,
    run,
    struct,
    varint,
)
from tests.codecs.batch.test_parquet_files import parquet_of

ONE = numbers(width=1)
TEXT = takes(TensorSpec("text", DType.BYTES, (None,)))
TEXTS = takes(TensorSpec("text", DType.BYTES, (None, None)))
LISTS = takes(TensorSpec("x", DType.FP32, (None, None)))
NUMBER = pack("<d", 1.0)
HONEST = page(NUMBER, 1)
GIGABYTES = 2_000_000_000


def numbers_of(pages: bytes, values: int = 1, rows: int = 1, **more: object) -> bytes:
    return forged(Column("x", pages, values, **more), rows=rows)  # type: ignore[arg-type]


def lists_of(*pages: bytes, values: int, rows: int) -> bytes:
    return forged(Column("x", b"".join(pages), values, repeated=True), rows=rows)


def texts_of(pages: bytes, values: int, rows: int, *, repeated: bool = False, codec: int = 2) -> bytes:
    return forged(Column("text", pages, values, BYTE_ARRAY, repeated=repeated), rows=rows, codec=codec)


def of_lists(content: bytes, *lengths: int, encoding: int = PLAIN) -> bytes:
    """A page with rows of so many values; the first goes on with the row before if it is negative."""
    runs = [levels_of for length in lengths for levels_of in row_levels(length)]
    count = sum(map(abs, lengths))
    return page(levels(*runs) + levels(run(1, count)) + content, count, encoding)


def row_levels(length: int) -> list[bytes]:
    return [run(1, -length)] if length < 0 else [run(0, 1), run(1, length - 1)] if length > 1 else [run(0, 1)]


def ones(*lengths: int) -> bytes:
    """A page with rows of so many values, all of them a dictionary's first, in some 30 bytes."""
    return of_lists(b"\0" + varint(sum(map(abs, lengths)) << 1), *lengths, encoding=8)


ONES = dictionary(NUMBER, 1)


def empty_footer(groups: int, chunks: int) -> bytes:
    """A footer of columns of which nothing is told: three bytes each."""
    group = struct((1, LIST, many(STRUCT, [b"\x26\0\0"] * chunks)), (2, 6, 0), (3, 6, 0))
    root = struct((4, 8, b"r"), (5, 5, 0))
    return struct((1, 5, 1), (2, LIST, many(STRUCT, [root])), (3, 6, 1), (4, LIST, many(STRUCT, [group] * groups)))


def plain(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text


def test_what_is_forged_honestly_is_read() -> None:
    assert Batch("f.parquet", numbers_of(HONEST), ONE).good() == {0: [1.0]}
    several = numbers_of(HONEST + page(NUMBER * 2, 2), 3, 3)
    assert Batch("f.parquet", several, ONE).good() == {0: [1.0], 1: [1.0], 2: [1.0]}
    lists = lists_of(of_lists(NUMBER * 3, 2, 1), of_lists(NUMBER, -1), values=4, rows=2)
    assert Batch("f.parquet", lists, LISTS, Bounds()).good() == {0: [1.0, 1.0], 1: [1.0, 1.0]}
    text = texts_of(page(plain(b"a") + plain(b"bc"), 2), 2, 2)
    assert Batch("f.parquet", text, TEXT).good("text") == {0: b"a", 1: b"bc"}


WRONG: dict[str, tuple[Callable[[], bytes], type[Exception]]] = {
    "a page claims gigabytes": (lambda: numbers_of(page(NUMBER, 1, claimed=GIGABYTES)), PayloadTooLarge),
    "the metadata says so too": (
        lambda: numbers_of(page(NUMBER, 1, claimed=GIGABYTES), unpacked=GIGABYTES),
        PayloadTooLarge,
    ),
    "the metadata says more": (lambda: numbers_of(HONEST, unpacked=GIGABYTES), InvalidRequest),
    "the metadata says less": (lambda: numbers_of(page(NUMBER, 1, claimed=9000), unpacked=100), InvalidRequest),
    "a dictionary claims gigabytes": (
        lambda: numbers_of(dictionary(NUMBER, 1, claimed=GIGABYTES) + HONEST),
        PayloadTooLarge,
    ),
    "a dictionary has more values than bytes": (lambda: numbers_of(dictionary(NUMBER, 9) + HONEST), InvalidRequest),
    "a negative size": (lambda: numbers_of(page(NUMBER, 1, claimed=-5)), InvalidRequest),
    "many columns of large pages": (
        lambda: forged(
            *(Column(f"x.{at}", page(NUMBER, 1, claimed=100 << 20), 1) for at in range(3)),
            rows=1,
        ),
        PayloadTooLarge,
    ),
    "more values than told": (lambda: numbers_of(page(NUMBER, 500)), InvalidRequest),
    "less values than told": (lambda: numbers_of(HONEST, 2, 2), InvalidRequest),
    "less values than rows": (lambda: numbers_of(HONEST, 1, 2), InvalidRequest),
    "rows that are in no group": (lambda: forged(Column("x", HONEST, 1), rows=2, group_rows=1), InvalidRequest),
    "less rows than none": (lambda: forged(Column("x", HONEST, 1), rows=1, group_rows=-1), InvalidRequest),
    "a column beyond the file": (lambda: numbers_of(HONEST, packed=10_000), InvalidRequest),
    "a column that ends early": (lambda: numbers_of(HONEST, packed=len(HONEST) - 5), InvalidRequest),
    "a header that ends early": (lambda: numbers_of(HONEST, packed=6), InvalidRequest),
    "columns in one place": (
        lambda: forged(Column("x.0", HONEST, 1), Column("x.1", HONEST, 1, start=4), rows=1),
        InvalidRequest,
    ),
    "a footer of millions of columns": (lambda: ended(b"PAR1", empty_footer(4, 900_000)), InvalidRequest),
    "one row of a billion values": (lambda: lists_of(ONES, ones(10**9), values=10**9, rows=1), PayloadTooLarge),
    "one row of many": (
        lambda: lists_of(ONES, ones(*[1] * 1000), ones(5_000_000), ones(1), values=5_001_001, rows=1002),
        PayloadTooLarge,
    ),
    "a row of many pages": (
        lambda: lists_of(ONES, ones(1_000_000), *[ones(-1_000_000)] * 5, values=6_000_000, rows=1),
        PayloadTooLarge,
    ),
    "a text that repeats a list of itself": (
        lambda: texts_of(of_lists(bytes(1 << 20), 10_000, encoding=PREFIXES), 10_000, 1, repeated=True),
        PayloadTooLarge,
    ),
    "lists whose levels end": (
        lambda: lists_of(page(levels(run(0, 1)), 5_000_000), values=5_000_000, rows=1),
        InvalidRequest,
    ),
}


def signature_of(name: str) -> object:
    if "text" in name:
        return TEXTS
    if "many columns" in name:
        return numbers(width=3)
    return numbers() if "columns in one place" in name else LISTS if "list" in name or "row of" in name else ONE


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_not_what_it_says_is_refused(name: str) -> None:
    make, error = WRONG[name]
    with pytest.raises(error):
        Batch("f.parquet", make(), signature_of(name), Bounds())  # type: ignore[arg-type]


def test_a_codec_that_nobody_knows_is_refused_and_does_not_end_the_process() -> None:
    with pytest.raises(InvalidRequest):
        Batch("f.parquet", forged(Column("x", HONEST, 1), rows=1, codec=99), ONE)


def heavy_texts() -> bytes:
    """Texts of 20 MB among many empty ones: none in the mean, and all of them together 200 MB."""
    few, large = page(plain(b"") * 1000, 1000), page(plain(bytes(20 << 20)), 1)
    return texts_of(few + large * 10 + few, 2010, 2010)


def heavy_lists() -> bytes:
    """Rows of 4 million values among many of one: 600 MB together, in some hundred bytes."""
    few, large = ones(*[1] * 1000), ones(4_000_000)
    return lists_of(ONES, few, *[large] * 12, few, values=48_002_000, rows=2012)


def heavy_repeats() -> bytes:
    """Each text is the one before it, which has a megabyte, and each list has that text in each place."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 1_000_000]))
    return parquet_of({"text": texts}, 5000, compression="zstd")


def heavy_prefixes() -> bytes:
    texts = pa.array(["x" * 1_000_000] * 200)
    encoded = {"text": "DELTA_BYTE_ARRAY"}
    return parquet_of({"text": texts}, compression="zstd", use_dictionary=False, column_encoding=encoded)


READER = """
import sys
import pyarrow.parquet
from shared.codecs.batch.files import inspect, plan, read
from shared.codecs.batch.ranges import BytesRanges
from shared.domain.batch_formats import Bounds, file_type
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec
import shared.codecs.batch.parquet_file
inputs = [TensorSpec("x", DType.FP32, (None, None)), TensorSpec("text", DType.BYTES, (None,))]
signature = Signature((inputs["text" in sys.argv],), (TensorSpec("y", DType.FP32, (None,)),), max_batch=64)
file = BytesRanges(sys.stdin.buffer.read())
def peak():  # getrusage would tell of the process that began this one, too
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
layout = inspect(file, file_type("f.parquet"), signature)
count = sum(r.count for part in plan(file, layout) for r in read(file, layout, part, signature, 64))
print(count, (peak() - before) // 1024)
"""


@pytest.mark.parametrize(
    ("make", "name", "rows"),
    [
        (heavy_texts, "text", 2010),
        (heavy_lists, "x", 2012),
        (heavy_repeats, "text", 1000),
        (heavy_prefixes, "text", 200),
    ],
)
def test_what_may_be_read_takes_a_bounded_memory(make: Callable[[], bytes], name: str, rows: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", READER, name], input=make(), stdout=subprocess.PIPE, check=True, timeout=120
    )
    count, megabytes = map(int, ran.stdout.split())
    assert count == rows
    assert megabytes < 350
