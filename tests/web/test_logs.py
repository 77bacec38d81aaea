import json
import logging
from decimal import Decimal

import pytest

from shared.web.logs import configure

pytestmark = pytest.mark.usefixtures("keep_loggers")


def test_a_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    log = configure("predict", "INFO")
    log.info("two\nlines %s", "é", extra={"fields": {"ms": 1.5, "odd": Decimal("1.1")}})
    log.debug("not this one")
    (text,) = capsys.readouterr().out.splitlines()
    line = json.loads(text)
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {"level": "INFO", "service": "predict", "message": "two\nlines é", "ms": 1.5, "odd": "1.1"}


def test_a_line_names_the_trace_of_its_invocation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = configure("predict", "INFO")
    for trace in ("1-5759e988-bd862e3fe1be46a994272793", "1-5759e988-bd862e3fe1be46a994272794"):
        monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={trace};Parent=53995c3f42cd8ad8;Sampled=1")
        log.info("line")
        assert json.loads(capsys.readouterr().out)["trace_id"] == trace


@pytest.mark.parametrize("library", ["botocore.endpoint", "urllib3.connectionpool"])
def test_the_libraries_write_no_requests_even_at_debug(library: str, caplog: pytest.LogCaptureFixture) -> None:
    configure("predict", "DEBUG")
    with caplog.at_level(logging.DEBUG):  # as Lambda sets the root logger
        logging.getLogger(library).debug("the whole request")
        logging.getLogger(library).warning("a connection was lost")
    assert caplog.messages == ["a connection was lost"]


def test_a_traceback_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    log = configure("predict", "INFO")
    try:
        int("gone")
    except ValueError:
        log.exception("failed")
    (text,) = capsys.readouterr().out.splitlines()
    assert "ValueError: invalid literal" in json.loads(text)["exception"]


def test_what_the_adapters_log_is_written_the_same_way_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure("predict", "ERROR")
    configure("predict", "WARNING")
    logging.getLogger("shared.adapters.cached_models").warning("stale")
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [(line["service"], line["message"]) for line in lines] == [("predict", "stale")]
