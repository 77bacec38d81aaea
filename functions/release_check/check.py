"""Asks the new version of the predict function what its callers will ask."""

import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from shared.domain.model import ModelVersion, Placement
from shared.domain.ports import ModelRegistry
from shared.domain.principal import Principal
from shared.web.http_event import http_event

# The function believes the principal in the event, since only API Gateway and who holds lambda:InvokeFunction on it can
# send one: the first passes on what the authorizer said, the second could do what they like with the function anyway.
# So no key has to be kept for the check. The tenant is no customer's, and the scope no more than it needs.
PRINCIPAL = Principal(
    tenant="release-check", key_id="release-check", scopes=frozenset({"predict"}), plan="release-check"
)
_MAX_QUOTED = 500

Invoke = Callable[[dict[str, Any]], Any]
"""Invokes the new version with an event; raises BackendError."""


class CheckFailed(Exception):
    """The version must not get traffic; the message says what it did."""


@dataclass(slots=True)
class Findings:
    """What has been asked and answered well, and which models could not be asked."""

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReleaseCheck:
    """`/health`, `/ready`, and a prediction of the example of at most `max_models` models that run in the function.

    `log` has a line for each model that is not asked, and one where none is published.
    """

    invoke: Invoke
    registry: ModelRegistry
    max_models: int
    log: logging.Logger
    clock: Callable[[], float] = monotonic

    def __call__(self, budget_s: float, findings: Findings) -> None:
        """Fill `findings`; no request is begun after `budget_s` seconds. Raises CheckFailed, BackendError."""
        end = self.clock() + budget_s
        published = self.registry.models()
        self._ask("/health", end, http_event("GET", "/health"))
        findings.passed.append("/health")
        self._ready(end, is_empty=not published)
        findings.passed.append("/ready")
        for version in self._to_ask(published, findings):
            self._predict(version, end)
            findings.passed.append(_name(version))

    def _to_ask(self, published: Sequence[ModelVersion], findings: Findings) -> list[ModelVersion]:
        here = [version for version in published if version.placement is Placement.FUNCTION]
        askable = [version for version in here if version.metadata.get("example") is not None]
        asked = askable[: self.max_models]
        findings.skipped = [_name(version) for version in here if version not in asked]
        if findings.skipped:
            self.log.warning("models not asked", extra={"fields": {"models": findings.skipped}})
        if not asked:
            self.log.warning("no model is published that could be asked for a prediction")
        return asked

    def _ready(self, end: float, *, is_empty: bool) -> None:
        status, document = self._answer("/ready", end, http_event("GET", "/ready"))
        missing = document.get("missing") if isinstance(document, dict) else None
        # A stack that is new has no model yet, and says so: nothing that this version could do better.
        only_models = isinstance(missing, list) and len(missing) == 1 and str(missing[0]).startswith("models: no model")
        if status != 200 and not (is_empty and status == 503 and only_models):
            raise _failed("/ready", status, document)

    def _predict(self, version: ModelVersion, end: float) -> None:
        body = json.dumps({"instances": [version.metadata["example"]]})
        document = self._ask(
            _name(version),
            end,
            http_event(
                "POST",
                f"/v1/models/{version.model}/predict",
                route="/v1/models/{model}/predict",
                body=body,
                principal=PRINCIPAL,
            ),
        )
        match document:
            # A higher version may have been published since the registry was asked.
            case {"predictions": [_], "model": {"name": version.model, "version": int(answered)}} if (
                answered >= version.version
            ):
                return
            case _:
                raise _failed(_name(version), 200, document)

    def _ask(self, what: str, end: float, event: dict[str, Any]) -> Any:
        status, document = self._answer(what, end, event)
        if status != 200:
            raise _failed(what, status, document)
        return document

    def _answer(self, what: str, end: float, event: dict[str, Any]) -> tuple[int, Any]:
        if self.clock() >= end:
            raise CheckFailed(f"The time for the check was over before {what} could be asked.")
        answer = self.invoke(event)
        try:
            return int(answer["statusCode"]), json.loads(_body(answer))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckFailed(f"{what} was not answered as HTTP with a JSON body: {_quote(answer)}") from error


def _body(answer: Mapping[str, Any]) -> str | bytes:
    text = str(answer["body"])
    return base64.b64decode(text) if answer.get("isBase64Encoded") else text


def _name(version: ModelVersion) -> str:
    return f"{version.model} version {version.version}"


def _failed(what: str, status: int, document: Any) -> CheckFailed:
    return CheckFailed(f"{what} was answered with {status}: {_quote(document)}")


def _quote(document: Any) -> str:
    text = json.dumps(document, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"
