"""Metrics of a request as members of its log line, in CloudWatch's embedded metric format.

The line that is written anyway carries them: no call, no second line. Dimensions are bounded by what the stack has, its
functions, routes and published models; a name that a caller made up is never one.
Source: Amazon CloudWatch User Guide, "Specification: Embedded metric format".
"""

from collections.abc import Mapping
from time import time
from typing import Any

_ALL = (("ms", "Milliseconds"), ("errors", "Count"), ("throttled", "Count"), ("limiter_open", "Count"))
_VARIANT = (("errors", "Count"), ("fallbacks", "Count"), ("circuit_open", "Count"))
_MODEL = (("ms", "Milliseconds"), ("rows", "Count"), *_VARIANT)
_CIRCUIT_OPEN = "circuit_open"


class RequestMetrics:
    """Adds the metrics of one function's requests to their lines; an empty namespace switches them off."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._of_route = _directive(namespace, [["service", "route"]], _ALL)
        self._of_model = _directive(namespace, [["model", "variant"]], _MODEL)
        self._of_failure = _directive(namespace, [["model", "variant"]], _VARIANT)

    def add(self, fields: dict[str, Any]) -> None:
        """Complete the members of a request's line; `status` and `ms` are in it."""
        if not self._namespace:
            return
        status = fields["status"]
        fields["errors"] = int(status >= 500)
        fields["throttled"] = int(status == 429)
        fields["limiter_open"] = int(fields.get("limiter") == "open")
        directives = [self._of_route]
        # Only a request that reached a version names a model that there is.
        if "version" in fields and "variant" in fields and ("rows" in fields or status >= 500):
            fields["fallbacks"] = int("fallback" in fields)
            fields["circuit_open"] = int(_CIRCUIT_OPEN in (fields.get("code"), fields.get("reason")))
            # One that failed has no rows, and its time is not the model's.
            directives.append(self._of_model if "rows" in fields else self._of_failure)
        fields["_aws"] = {"Timestamp": int(time() * 1000), "CloudWatchMetrics": directives}


def _directive(namespace: str, dimensions: list[list[str]], metrics: tuple[tuple[str, str], ...]) -> Mapping[str, Any]:
    listed = [{"Name": name, "Unit": unit} for name, unit in metrics]
    return {"Namespace": namespace, "Dimensions": dimensions, "Metrics": listed}
