"""Keys, names of records, and answers as they are written down."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import InvalidIdempotencyKey
from shared.domain.idempotency import IdempotencyScope, StoredAnswer, check_key, record_id, retry_after_s

_TEXT = st.text(max_size=12)


@pytest.mark.parametrize("key", ["a", "!~", '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "k" * 255])
def test_a_key_is_taken_as_it_is(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "\x7f", "ü", "k" * 256])
def test_a_key_that_is_none_is_refused_with_the_limit(key: str) -> None:
    with pytest.raises(InvalidIdempotencyKey, match="1 to 255 visible ASCII"):
        check_key(key)


@given(st.tuples(_TEXT, _TEXT, _TEXT, _TEXT), st.tuples(_TEXT, _TEXT, _TEXT, _TEXT))
def test_a_record_has_its_own_name(first: tuple[str, str, str, str], second: tuple[str, str, str, str]) -> None:
    names = [record_id(IdempotencyScope(*parts[:3]), parts[3]) for parts in (first, second)]
    assert (names[0] == names[1]) == (first == second)
    assert all(re.fullmatch(r"[0-9a-f]{64}", name) for name in names)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("ab", "c", "", "k"), ("a", "bc", "", "k")),
        (("a", "r", "m", "k"), ("a", "r", "mk", "")),
        (("a", 'r","m', "", "k"), ("a", "r", "m", "k")),
        (("a\0r", "", "", "k"), ("a", "r", "", "k")),
    ],
)
def test_parts_do_not_run_into_one_another(first: tuple[str, str, str, str], second: tuple[str, str, str, str]) -> None:
    assert record_id(IdempotencyScope(*first[:3]), first[3]) != record_id(IdempotencyScope(*second[:3]), second[3])


@given(
    st.builds(
        StoredAnswer,
        st.integers(100, 599),
        st.lists(st.tuples(st.text(), st.text())).map(tuple),
        st.binary() | st.text().map(str.encode),
    )
)
def test_an_answer_survives_json_byte_for_byte(answer: StoredAnswer) -> None:
    assert StoredAnswer.from_document(json.loads(json.dumps(answer.to_document(), sort_keys=True))) == answer


def test_a_body_in_utf8_is_stored_readable() -> None:
    assert StoredAnswer(200, (), '{"größe": 1}'.encode()).to_document()["text"] == '{"größe": 1}'


@pytest.mark.parametrize(("status", "kept"), [(200, True), (202, True), (304, True), (400, False), (503, False)])
def test_refusals_and_failures_are_not_kept(status: int, kept: bool) -> None:
    assert StoredAnswer(status, (), b"").is_kept is kept


@pytest.mark.parametrize(
    ("waited_ms", "left_ms", "seconds"),
    [
        (0, 29_000, 1),
        (900, 29_000, 1),
        (1_001, 29_000, 2),
        (3_000, 26_000, 3),
        (20_000, 9_000, 5),
        (20_000, 2_500, 3),
        (20_000, 10, 1),
        (20_000, -5_000, 1),
        (-2_000, 31_000, 1),
    ],
)
def test_the_wait_grows_with_the_work_and_ends_with_it(waited_ms: int, left_ms: int, seconds: int) -> None:
    now_ms = 1_800_000_000_000
    assert retry_after_s(now_ms - waited_ms, now_ms + left_ms, now_ms) == seconds
