"""Takes a second to load."""

import time
from typing import Any

time.sleep(1.0)


def handler(event: Any, context: Any) -> str:
    return "loaded"
