import json
import logging
from collections.abc import Iterator
from decimal import Decimal

import pytest

from shared.web.logs import configure


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("functions", "shared")]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    log = configure("predict", "INFO")
    log.info("two\nlines %s", "é", extra={"fields": {"ms": 1.5, "odd": Decimal("1.1")}})
    log.debug("not this one")
    (text,) = capsys.readouterr().out.splitlines()
    line = json.loads(text)
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {"level": "INFO", "service": "predict", "message": "two\nlines é", "ms": 1.5, "odd": "1.1"}


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
