"""Clients of one `Idempotency-Key` in a process of their own, for the tests that kill it.

It says "ready" once it has imported all, and begins with the next line of its input. With `--hold` its work says
"working" and ends with another line. Each client follows `Retry-After`; at the end there is one line of JSON with
`[status, body in hexadecimal, replayed]` of each. `--journal` is a file with a line for each effect.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Barrier
from uuid import uuid4

from botocore.session import Session

import shared.adapters.idempotency_records  # noqa: F401  # a first request would import it, while others wait
from infra.local.stack import REGION
from shared.adapters.aws import client
from shared.adapters.idempotency import PowertoolsIdempotency
from shared.domain.errors import IdempotencyInFlight
from shared.domain.idempotency import IdempotencyScope, StoredAnswer

SCOPE = IdempotencyScope("acme", "POST /v1/models/{model}/predict", "tumor")
DIGEST = sha256(b"payload").digest()
_PATIENCE_S = 60.0
_WORK_S = 0.2


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--url", "--table", "--bucket", "--key"):
        parser.add_argument(name, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--remaining-ms", type=int, required=True)
    parser.add_argument("--hold", action="store_true")
    options = parser.parse_args()

    session = Session()
    session.set_credentials("test", "test")
    session.set_config_variable("region", REGION)
    dynamodb = client("dynamodb", session=session, endpoint_url=options.url, max_pool=options.clients)
    s3 = client("s3", session=session, endpoint_url=options.url)
    store = PowertoolsIdempotency(dynamodb, options.table, lambda: s3, options.bucket, 24)
    at_once = Barrier(options.clients)

    def work() -> StoredAnswer:
        if options.hold:
            say("working")
            sys.stdin.readline()
        else:
            time.sleep(_WORK_S)
        # An answer that no second execution could give again.
        content = uuid4().hex
        with options.journal.open("a") as journal:
            journal.write(f"{content}\n")
        return StoredAnswer(200, (("x-made-by", content),), content.encode())

    def one(_: int) -> tuple[int, str, bool]:
        at_once.wait(_PATIENCE_S)
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            try:
                answer, replayed = store.run(SCOPE, options.key, DIGEST, options.remaining_ms, work)
            except IdempotencyInFlight as refused:
                if time.monotonic() > give_up or refused.retry_after_s is None:
                    raise
                time.sleep(refused.retry_after_s)
            else:
                return answer.status, (answer.headers[0][1].encode() + b" " + answer.body).hex(), replayed

    say("ready")
    sys.stdin.readline()
    with ThreadPoolExecutor(options.clients) as clients:
        say(json.dumps(list(clients.map(one, range(options.clients)))))


if __name__ == "__main__":
    main()
