"""Where an answer came from: what its headers and its log line say of it."""

from typing import Any

from shared.domain.endpoint.target import Target
from shared.domain.endpoint.traffic import Exposure
from shared.usecases.prediction import Prediction
from shared.usecases.shadow import Shadowed
from shared.web.cache_status import cache_headers

FALLBACK_HEADER = "X-Sluice-Fallback"


def origin_headers(made: Prediction) -> list[tuple[str, str]]:
    """`X-Sluice-Fallback` of a stand-in; `Cache-Status` and `Age` where answers are kept."""
    headers = []
    if made.ran is not None and made.ran.fallback is not None:
        headers.append((FALLBACK_HEADER, f"{made.ran.fallback}; reason={made.ran.reason}"))
    if made.cache is not None:
        headers.extend(cache_headers(made.cache))
    return headers


def note_route(log: dict[str, Any], target: Target, exposure: Exposure | None) -> None:
    """Say in a request's log line where it goes: what fails there counts for that variant and that arm."""
    log.update(version=target.version.version, variant=target.variant)
    if exposure is not None:
        log["experiment"] = {"name": exposure.experiment, "arm": exposure.arm, "unit": exposure.unit}


def note(log: dict[str, Any], made: Prediction) -> None:
    """Complete the members of the request's log line."""
    log.update(
        version=made.version.version,
        variant=made.variant,
        backend=made.backend,
        rows=made.rows,
        prediction_id=made.prediction_id,
    )
    if made.ran is not None:
        if made.ran.fallback is not None:
            log.update(fallback=made.ran.fallback, reason=made.ran.reason)
        if made.ran.attempts > 1:
            log.update(attempts=made.ran.attempts, hedged=made.ran.hedged)
    if made.cache is not None:
        log["cache"] = made.cache.hit
    if made.shadow is not None:
        log["shadow"] = _shadow(made.shadow, made.timings_ms["run"])
    if made.features is not None:
        log["features"] = made.features.used


def _shadow(shadow: Shadowed, primary_ms: float) -> dict[str, Any]:
    line: dict[str, Any] = {
        "variant": shadow.target.variant,
        "version": shadow.target.version.version,
        "backend": shadow.target.backend,
        "state": shadow.state,
    }
    if shadow.state != "dropped":
        line.update(ms=round(shadow.ms, 3), primary_ms=round(primary_ms, 3))
    if shadow.code is not None:
        line["code"] = shadow.code
    if shadow.comparison is not None:
        compared = shadow.comparison
        line.update(
            rows=compared.rows, agreeing=compared.agreeing, distance=compared.distance, largest=compared.largest
        )
    return line
