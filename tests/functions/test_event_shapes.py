"""The files in `tests/events` have the shape of what `sam local generate-event` makes."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import ROOT
from tests.functions.support import EVENTS

REFERENCE: Final = EVENTS / "reference" / "apigateway_http-api-proxy.json"
SAM: Final = ROOT / ".venv-tools/sam/bin/sam"
# No HTTP requests: what CodeDeploy sends, for which the SAM CLI has no event, and what has references of its own.
OTHERS: Final = frozenset(
    {
        "release_check",
        "telemetry",
        "async_result",
        "batch_runner",
        "job_sweeper",
        "job_worker",
        "webhook_sender",
    }
)
HTTP_EVENTS: Final = sorted(path for path in EVENTS.glob("*.json") if path.stem not in OTHERS)
# What the gateway sends only where there is some of it, and what holds names of the caller's or the route's own.
OPTIONAL: Final = frozenset(
    {
        "cookies",
        "queryStringParameters",
        "body",
        "pathParameters",
        "stageVariables",
        "requestContext.authentication",
        "requestContext.authorizer",
    }
)
FREE: Final = frozenset({"headers", "queryStringParameters", "pathParameters", "stageVariables"})
# The generated event is one of a JWT authorizer; ours is a Lambda authorizer. And what such an authorizer itself gets.
# Source: API Gateway, "Control access to HTTP APIs with AWS Lambda authorizers", payload format 2.0.
ADDED: Final = frozenset({"requestContext.authorizer.lambda"})
AUTHORIZER_ADDED: Final = frozenset({"type", "routeArn", "identitySource"})
AUTHORIZER_LACKS: Final = frozenset({"isBase64Encoded"})


def shape(value: Any, path: str = "") -> dict[str, type]:
    """Each place of a document with its type, lists as a whole."""
    if not isinstance(value, dict) or path in FREE or path in ADDED:
        return {path: type(value)}
    inside = {
        name: found for key, item in value.items() for name, found in shape(item, f"{path}.{key}".strip(".")).items()
    }
    return inside if not path else {path: dict, **inside}


def is_optional(path: str) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in OPTIONAL)


@pytest.mark.parametrize("file", HTTP_EVENTS, ids=lambda file: file.stem)
def test_an_event_has_the_shape_that_the_sam_cli_generates(file: Path) -> None:
    ours, reference = shape(json.loads(file.read_text())), shape(json.loads(REFERENCE.read_text()))
    is_authorizer = file.stem == "authorizer"
    added = ADDED | (AUTHORIZER_ADDED if is_authorizer else frozenset())
    lacks = AUTHORIZER_LACKS if is_authorizer else frozenset()
    assert {path: type_ for path, type_ in ours.items() if path not in added} == {
        path: type_
        for path, type_ in reference.items()
        if path not in lacks and (path in ours or not is_optional(path))
    }


def test_the_reference_is_what_the_sam_cli_generates(tmp_path: Path) -> None:
    assert SAM.is_file(), "`make tools` prepares the SAM CLI, as `make test` does"
    made = subprocess.run(
        [SAM, "local", "generate-event", "apigateway", "http-api-proxy"],
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(made.stdout) == json.loads(REFERENCE.read_text())
