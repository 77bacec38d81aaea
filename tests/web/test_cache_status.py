import re

import pytest

from shared.usecases.keep_answers import STORE_PAUSED, CacheStatus
from shared.web.cache_status import CacheControl, cache_control, cache_headers, cache_status_header

# RFC 9651: a List of one Token, with parameters that are flags, Tokens or Integers.
_LIST = re.compile(r"[A-Za-z][\w!#$%&'*+.^`|~:/-]*(; [a-z][a-z0-9_.*-]*(=(-?\d{1,15}|[A-Za-z][\w:/.-]*))?)*", re.ASCII)

HEADERS = [
    (CacheStatus("hit", age_s=2.6, ttl_s=57.4), "Sluice; hit; ttl=57", "2"),
    (CacheStatus("hit", age_s=0.0, ttl_s=60.0), "Sluice; hit; ttl=60", "0"),
    (CacheStatus("stale", age_s=61.5, ttl_s=-1.5), "Sluice; hit; ttl=-2", "61"),
    (CacheStatus("joined", age_s=0.1, ttl_s=59.9), "Sluice; fwd=miss; collapsed; ttl=59", "0"),
    (CacheStatus("miss", ttl_s=60, forwarded="miss", stored=True), "Sluice; fwd=miss; stored", None),
    (CacheStatus("miss", forwarded="miss"), "Sluice; fwd=miss", None),
    (CacheStatus("miss", ttl_s=60, forwarded="stale", stored=True), "Sluice; fwd=stale; stored", None),
    (CacheStatus("bypass", ttl_s=60, forwarded="request", stored=True), "Sluice; fwd=request; stored", None),
    (CacheStatus("bypass", forwarded="bypass"), "Sluice; fwd=bypass", None),
    (
        CacheStatus("bypass", forwarded="bypass", detail=STORE_PAUSED),
        "Sluice; fwd=bypass; detail=store-unavailable",
        None,
    ),
]


@pytest.mark.parametrize(("status", "header", "age"), HEADERS)
def test_headers_say_how_an_answer_came_about(status: CacheStatus, header: str, age: str | None) -> None:
    assert cache_status_header(status) == header
    assert _LIST.fullmatch(header)
    assert dict(cache_headers(status)) == {"Cache-Status": header, **({} if age is None else {"Age": age})}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", CacheControl()),
        ("no-cache", CacheControl(no_cache=True)),
        ("max-age=0", CacheControl(no_cache=True)),
        ('max-age="0"', CacheControl(no_cache=True)),
        ("No-Store", CacheControl(no_store=True)),
        ("no-transform, NO-CACHE ,no-store", CacheControl(no_cache=True, no_store=True)),
        ("max-age=60, x-no-cache, public=no-store", CacheControl()),
        ("a" * 2000 + ",no-cache", CacheControl()),
    ],
)
def test_cache_control_of_a_request(header: str, expected: CacheControl) -> None:
    assert cache_control(header) == expected
