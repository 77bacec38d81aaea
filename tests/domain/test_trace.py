import re

import pytest

from shared.domain.trace import trace_id, traceparent

ROOT = "1-5759e988-bd862e3fe1be46a994272793"


def environ(header: str) -> dict[str, str]:
    return {"_X_AMZN_TRACE_ID": header}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=1", "01"),
        (f"Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=0;Lineage=1:a87bd80c:1", "00"),
        (f" Sampled=1 ; Parent=53995c3f42cd8ad8; Root={ROOT} ", "01"),
    ],
)
def test_the_trace_of_an_invocation_in_both_forms(header: str, expected: str) -> None:
    assert trace_id(environ(header)) == ROOT
    assert traceparent(environ(header)) == f"00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-{expected}"


@pytest.mark.parametrize("header", [f"Root={ROOT}", f"Root={ROOT};Parent=0000000000000000", f"Root={ROOT};Parent=x"])
def test_a_parent_that_is_missing_is_made_up(header: str) -> None:
    made = traceparent(environ(header))
    assert made is not None
    assert re.fullmatch(r"00-5759e988bd862e3fe1be46a994272793-[0-9a-f]{16}-00", made)
    assert made != traceparent(environ(header))


@pytest.mark.parametrize("header", ["", ";;", "Root=", "Self=1-5759e988-bd862e3fe1be46a994272793", "Root=a;b=c\nd"])
def test_what_is_no_trace_goes_nowhere(header: str) -> None:
    assert traceparent(environ(header)) is None


def test_outside_of_an_invocation_there_is_none() -> None:
    assert trace_id({}) is None
    assert traceparent({}) is None
