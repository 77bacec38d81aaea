import logging
from datetime import UTC, datetime

from fastapi import APIRouter

from shared.web.app import create_app
from shared.web.deprecation import Deprecation
from shared.web.middleware import Observed
from tests.functions.conftest import Serve

OLD = Deprecation(
    datetime(2026, 11, 21, tzinfo=UTC), datetime(2027, 6, 30, 12, tzinfo=UTC), "https://example.com/moving"
)


def test_every_answer_of_a_deprecated_route_says_so(serve: Serve, log: logging.Logger) -> None:
    routes = APIRouter()

    @routes.get("/old/{number}")
    async def old(number: int) -> int:
        return number

    @routes.get("/new")
    async def new() -> int:
        return 1

    function = serve(create_app([routes], None, log, Observed(deprecated={"GET /old/{number}": OLD})))
    for path in ("/old/1", "/old/one"):
        headers = function("GET", path).headers
        assert headers["deprecation"] == "@1795219200"
        assert headers["sunset"] == "Wed, 30 Jun 2027 12:00:00 GMT"
        assert headers["link"] == '<https://example.com/moving>; rel="deprecation"'
    assert not {"deprecation", "sunset", "link"} & set(function("GET", "/new").headers)


def test_what_has_no_end_yet_has_no_sunset() -> None:
    assert set(Deprecation(OLD.since).headers()) == {"Deprecation"}
