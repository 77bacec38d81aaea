"""The job worker in a process of its own: an event a line on standard input, its answer a line on standard output."""

import json
import os
import sys

from functions.job_worker.bootstrap import build
from tests.functions.support import LambdaContextStub

if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the log must not come between the answers
    handler = build(os.environ)
    out.write("ready\n")
    for line in sys.stdin:
        out.write(json.dumps(handler(json.loads(line), LambdaContextStub(left_ms=60_000))) + "\n")
