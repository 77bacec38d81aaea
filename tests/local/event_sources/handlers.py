"""A function that keeps every event that it gets, and then does what the records in it say."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def work(event: Any, context: Any) -> Any:
    folder = Path(os.environ["INBOX"])
    began = time.time_ns()
    failed: list[dict[str, Any]] = []
    name = f"{began}-{context.aws_request_id}"
    (folder / f"{name}.part").write_text(json.dumps({"event": event, "began": began}))
    (folder / f"{name}.part").rename(folder / f"{name}.json")
    for record, order, attempt in _orders(folder, event):
        if attempt > order.get("times", 1_000_000):
            continue
        time.sleep(order.get("sleep", 0))
        match order.get("do"):
            case "fail":
                raise ValueError(order)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "report":
                failed.append({"itemIdentifier": record})
    (folder / f"{name}.ended").write_text(str(time.time_ns()))
    return {"batchItemFailures": failed}


def _orders(folder: Path, event: Any) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Each record's identifier, what it asks for, and how many times it has come now."""
    for record in event["Records"]:
        if record["eventSource"] == "aws:sqs":
            identifier, text = record["messageId"], record["body"]
            name = identifier
        else:
            identifier = record["dynamodb"]["SequenceNumber"]
            name = record["eventID"]
            text = record["dynamodb"].get("NewImage", {}).get("order", {}).get("S", "{}")
        seen = folder / f"{name}.seen"
        with seen.open("ab") as file:
            file.write(b".")
        yield identifier, json.loads(text) if text.startswith("{") else {}, seen.stat().st_size
