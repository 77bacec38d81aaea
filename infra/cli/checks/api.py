"""Checks of an API that runs, deployed or local: readiness, and a prediction."""

import json
from collections.abc import Sequence
from typing import Any, Final

from infra.cli.api_client import Api, call
from infra.cli.checks.check import Check, Outcome, failed, ok, warning

# A first prediction of a cold function with a large package may need its whole 30 s.
_SLOW_MS: Final = 5_000


def api_checks(url: str, key: str | None, model: str | None, *, publish_hint: str) -> Sequence[Check]:
    """The checks; without a key there is no prediction, and that is a warning."""
    return [
        Check("ready", lambda: ready(url, publish_hint)),
        Check("prediction", lambda: prediction(url, key, model, publish_hint)),
    ]


def ready(url: str, publish_hint: str) -> Outcome:
    """What `/ready` says."""
    answer = call("GET", f"{url.rstrip('/')}/ready", what="The API")
    try:
        document = answer.document()
    except ValueError:
        return failed(f"/ready answered {answer.status} without JSON.", "Is this the API's address?")
    if answer.status == 200:
        return ok(f"{url} is ready.")
    missing = document.get("missing") or [document.get("message", "no reason given")]
    advice = (
        publish_hint
        if any("no model is published" in str(line) for line in missing)
        else "See the log: `sluice logs PredictFunction`, or CloudWatch's log group of that function."
    )
    return failed(f"{url} is not ready ({answer.status}): {'; '.join(map(str, missing))}.", advice)


def prediction(url: str, key: str | None, model: str | None, publish_hint: str) -> Outcome:
    """Predict with the example of a model's manifest."""
    if not key:
        return warning(
            "No prediction was made: there is no key.",
            "Give one with SLUICE_API_KEY (or --key); `sluice keys create` makes one.",
        )
    api = Api(url.rstrip("/"), key)
    names = [model] if model else [found["name"] for found in api.get("v1", "models").document()["models"]]
    if not names:
        return failed("No model is published.", publish_hint)
    for name in names:
        example = _example(api, name)
        if example is None:
            continue
        body = json.dumps({"instances": [example]}).encode()
        answer = api.post("v1", "models", name, "predict", body=body)
        said = f"{name} answered a prediction in {answer.elapsed_ms:.0f} ms."
        if answer.elapsed_ms > _SLOW_MS:
            return warning(said, "A cold start, most likely: ask again, and see CloudWatch if it stays slow.")
        return ok(said)
    return warning(
        f"No prediction was made: no manifest of {', '.join(names)} has an example.",
        "Give the manifest an `example`, or try `sluice predict`.",
    )


def _example(api: Api, model: str) -> Any:
    return api.get("v1", "models", model).document()["metadata"].get("example")
