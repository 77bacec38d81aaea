import logging

from functions.predict.bootstrap import application
from functions.predict.readiness import Check, Readiness
from shared.domain.errors import BackendUnavailable
from shared.schemas.api import Readiness as Document
from tests.fakes import InMemoryModels
from tests.functions.conftest import LogLines, Serve
from tests.functions.parts import parts
from tests.functions.support import predict_settings

SETTINGS = predict_settings()


def unreachable() -> str | None:
    raise BackendUnavailable("The model registry cannot be reached.")


def get(serve: Serve, log: logging.Logger, checks: dict[str, Check]) -> tuple[int, Document]:
    app = application(SETTINGS, parts(InMemoryModels(), {}, checks=checks), log)
    answer = serve(app)("GET", "/ready", principal=None)
    return answer.status, Document.model_validate_json(answer.body)


def test_ready_with_nothing_missing(serve: Serve, log: logging.Logger) -> None:
    status, document = get(serve, log, {"models": lambda: None, "endpoint": lambda: None})
    assert (status, document.ready, document.missing) == (200, True, ())
    assert document.checks == {"models": "ok", "endpoint": "ok"}


def test_not_ready_names_all_that_is_missing(serve: Serve, log: logging.Logger, log_lines: LogLines) -> None:
    status, document = get(serve, log, {"models": unreachable, "endpoint": lambda: "the endpoint e is Creating"})
    assert (status, document.ready) == (503, False)
    assert document.missing == (
        "models: The model registry cannot be reached.",
        "endpoint: the endpoint e is Creating",
    )
    assert log_lines.lines[0]["check"] == "models"


def test_a_report_is_reused_for_its_time(log: logging.Logger) -> None:
    asked: list[int] = []

    def count() -> str | None:
        asked.append(1)
        return None

    kept, renewed = (
        Readiness({"it": count}, log, within=lambda check: check(), ttl_s=60),
        Readiness({"it": count}, log, within=lambda check: check(), ttl_s=0),
    )
    kept()
    kept()
    assert len(asked) == 1
    renewed()
    renewed()
    assert len(asked) == 3
