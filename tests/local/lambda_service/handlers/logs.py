"""Handlers that log lines, and one that is subscribed to them."""

import json
import os
import time
from pathlib import Path
from typing import Any


def talk(event: dict[str, Any], context: Any) -> str:
    for line in event["lines"]:
        print(line)  # noqa: T201
    return str(context.log_stream_name)


def flood(event: dict[str, Any], context: Any) -> None:
    for number in range(event["lines"]):
        print(json.dumps({"message": "request", "number": number, "filler": "x" * event["bytes"]}))  # noqa: T201


def collect(event: dict[str, Any], context: Any) -> None:
    """Appends the event to a file; fails as often as FAILURES says, and takes SECONDS for it."""
    path = Path(os.environ["COLLECTED"])
    with path.open("a") as file:
        file.write(json.dumps({"event": event, "request_id": context.aws_request_id}) + "\n")
    time.sleep(float(os.environ.get("SECONDS", "0")))
    if len(path.read_text().splitlines()) <= int(os.environ.get("FAILURES", "0")):
        raise RuntimeError("not yet")
