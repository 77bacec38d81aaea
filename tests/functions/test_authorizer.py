import json
import logging
from typing import Any

import pytest

from functions.authorizer.bootstrap import Handler, authorizer
from shared.domain.credentials import new_key
from shared.domain.errors import BackendUnavailable
from shared.domain.ports import ApiKey
from shared.domain.principal import Principal
from shared.usecases.authorize import Authorize
from tests.fakes import InMemoryKeys
from tests.functions.conftest import LogLines
from tests.functions.support import EVENTS

TEXT, KEY = new_key("acme", frozenset({"predict"}), "demo")


@pytest.fixture
def handler(log: logging.Logger) -> Handler:
    return authorizer(Authorize(InMemoryKeys(KEY)), log)


def request(credential: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / "authorizer.json").read_text())
    event["identitySource"] = [credential]
    return event


def test_a_key_is_answered_with_its_principal(handler: Handler, log_lines: LogLines) -> None:
    answer = handler(request(f"Bearer {TEXT}"), None)
    assert answer["isAuthorized"] is True
    assert Principal.from_context(answer["context"]) == Principal("acme", KEY.key_id, frozenset({"predict"}), "demo")
    (line,) = log_lines.lines
    assert (line["authorized"], line["tenant"], line["key_id"]) == (True, "acme", KEY.key_id)


def test_the_sample_event_has_an_unknown_key(handler: Handler, log_lines: LogLines) -> None:
    event = json.loads((EVENTS / "authorizer.json").read_text())
    assert handler(event, None) == {"isAuthorized": False}
    (line,) = log_lines.lines
    assert (line["authorized"], line["reason"]) == (False, "unknown_key")
    assert line["request_id"] == event["requestContext"]["requestId"]


def test_the_secret_is_never_logged(handler: Handler, log_lines: LogLines) -> None:
    handler(request(f"Bearer {TEXT}"), None)
    handler(request(f"Bearer {TEXT[:-1]}a"), None)
    handler(request(f"Basic {TEXT}"), None)
    assert TEXT.split("_")[2][:20] not in log_lines.text


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        None,
        "event",
        {"identitySource": None},
        {"identitySource": []},
        {"identitySource": f"Bearer {TEXT}"},
        {"identitySource": [None]},
        {"identitySource": [f"Bearer {TEXT}", "more"]},
        {"headers": {"authorization": f"Bearer {TEXT}"}},
        {"identitySource": [""], "requestContext": 3},
    ],
)
def test_a_malformed_event_is_not_authorized(handler: Handler, event: Any) -> None:
    assert handler(event, None) == {"isAuthorized": False}


def test_a_failing_store_fails_the_function(log: logging.Logger) -> None:
    class Broken(InMemoryKeys):
        def get(self, key_id: str) -> ApiKey | None:
            raise BackendUnavailable("The key store cannot be reached.")

    with pytest.raises(BackendUnavailable):
        authorizer(Authorize(Broken()), log)(request(f"Bearer {TEXT}"), None)
