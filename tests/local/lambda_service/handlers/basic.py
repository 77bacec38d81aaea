"""Handlers that the tests of the Lambda service run in real environments."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_ticks = 0


def echo(event: Any, context: Any) -> Any:
    return {"event": event, "pid": os.getpid(), "remaining_ms": context.get_remaining_time_in_millis()}


def describe(event: Any, context: Any) -> Any:
    client = context.client_context
    return {
        "environment": dict(os.environ),
        "request_id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "memory": context.memory_limit_in_mb,
        "cwd": str(Path.cwd()),
        "custom": client.custom if client else None,
    }


def talk(event: Any, context: Any) -> str:
    sys.stdout.write("to stdout\n")
    sys.stderr.write("to stderr, no line end")
    return "done"


def sleep(event: Any, context: Any) -> int:
    time.sleep(event["seconds"])
    return os.getpid()


def fail(event: Any, context: Any) -> None:
    raise ValueError("bad luck")


def leave(event: Any, context: Any) -> None:
    os._exit(event["status"])


def kill(event: Any, context: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def large(event: dict[str, int], context: Any) -> str:
    return "x" * event["size"]


def hoard(event: Any, context: Any) -> int:
    held = bytearray(event["mb"] * 1024 * 1024)
    held[::4096] = b"\1" * len(held[::4096])
    time.sleep(event["seconds"])
    return len(held)


def tick(event: Any, context: Any) -> int:
    """Counts in a background thread from the first call on."""
    if _ticks == 0:
        threading.Thread(target=_count, daemon=True).start()
        time.sleep(0.05)
    return _ticks


def _count() -> None:
    global _ticks  # noqa: PLW0603
    while True:
        _ticks += 1
        time.sleep(0.005)


def adopt(event: Any, context: Any) -> int:
    """Leaves a child behind."""
    return subprocess.Popen(["sleep", "60"]).pid
