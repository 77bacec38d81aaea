"""The events have the shape of what `sam local generate-event` makes."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from infra.local.events.shapes import bucket_event, rule_event, topic_event
from tests.conftest import ROOT

REFERENCE: Final = ROOT / "tests" / "events" / "reference"
SAM: Final = ROOT / ".venv-tools/sam/bin/sam"
GENERATED: Final = ("cloudwatch scheduled-event", "s3 delete", "s3 put", "sns notification")
WRITTEN: Final = {
    "kind": "object",
    "name": "ObjectCreated:Put",
    "bucket": "b",
    "key": "k",
    "at": "2026-11-21T12:00:00.000Z",
    "sequencer": "0A1B2C3D4E5F678901",
    "request_id": "EXAMPLE123456789",
    "size": 1024,
    "etag": "0123456789abcdef0123456789abcdef",
}
REMOVED: Final = {name: value for name, value in WRITTEN.items() if name not in {"size", "etag"}}
MESSAGE: Final = {
    "kind": "message",
    "topic": "arn:aws:sns:us-east-1:000000000000:t",
    "id": "95df01b4-ee98-5cb9-9903-4c221d41eb5e",
    "message": "example message",
    "subject": "example subject",
    "attributes": {"Test": {"Type": "String", "Value": "TestString"}},
    "at": "2026-11-21T12:00:00.000Z",
}
# The generated event is one of long ago; today's has the envelope that all events of EventBridge have.
ADDED: Final = frozenset({"version"})
# Names of the caller's own.
FREE: Final = frozenset({"Records.Sns.MessageAttributes"})


def shape(value: Any, path: str = "") -> dict[str, type]:
    """Each place of a document with its type; the items of a list share theirs."""
    if isinstance(value, dict) and path not in FREE:
        inside = {
            name: kind for key, item in value.items() for name, kind in shape(item, f"{path}.{key}".strip(".")).items()
        }
        return {path: dict, **inside}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return shape(value[0], path)
    return {path: type(value)}


@pytest.mark.parametrize(
    ("event", "reference"),
    [
        (bucket_event(WRITTEN, "configuration"), "s3_put"),
        (bucket_event({**REMOVED, "name": "ObjectRemoved:Delete"}, "configuration"), "s3_delete"),
        (topic_event(MESSAGE, "arn:aws:sns:us-east-1:000000000000:t:1"), "sns_notification"),
        (rule_event("arn:aws:events:us-east-1:000000000000:rule/r", datetime.now(UTC)), "cloudwatch_scheduled-event"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_event_has_the_shape_that_the_sam_cli_generates(event: dict[str, Any], reference: str) -> None:
    wanted = shape(json.loads((REFERENCE / f"{reference}.json").read_text()))
    ours = shape(event)
    assert {path: kind for path, kind in ours.items() if path not in ADDED} == wanted


def test_the_references_are_what_the_sam_cli_generates(tmp_path: Path) -> None:
    assert SAM.is_file(), "`make tools` prepares the SAM CLI, as `make test` does"

    def generate(name: str) -> Any:
        made = subprocess.run(
            [SAM, "local", "generate-event", *name.split()],
            env={**os.environ, "SAM_CLI_TELEMETRY": "0", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return json.loads(made.stdout)

    with ThreadPoolExecutor(2) as pool:
        for name, made in zip(GENERATED, pool.map(generate, GENERATED), strict=True):
            assert made == json.loads((REFERENCE / f"{name.replace(' ', '_')}.json").read_text()), name
