"""The receiver of the documentation gets what the sender sends, and nothing else."""

import inspect
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from examples.webhooks.receiver import Receiver, handler_of
from examples.webhooks.verify import verify
from shared.adapters.webhook_client import WebhookClient
from shared.domain.webhook_signature import headers, new_secret, secret_text
from tests.conftest import ROOT

BODY = b'{"type":"job.failed","timestamp":"2027-01-15T08:00:12.345Z","data":{"job_id":"1"}}'


@contextmanager
def running(receiver: Receiver) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(receiver)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hooks/sluice"
        server.shutdown()
        thread.join()


def test_a_receiver_takes_what_is_signed_once() -> None:
    secret, old = new_secret(), new_secret()
    receiver = Receiver(secret_text(secret))
    post = WebhookClient(allow_loopback=True)
    now = int(time.time())
    with running(receiver) as url:
        assert post(url, headers((secret,), "msg_1", now, BODY), BODY).status == 202
        assert post(url, headers((secret,), "msg_1", now + 1, BODY), BODY).status == 200
        assert post(url, headers((old, secret), "msg_2", now, BODY), BODY).status == 202
        assert post(url, headers((old,), "msg_3", now, BODY), BODY).status == 401
        assert post(url, headers((secret,), "msg_4", now - 301, BODY), BODY).status == 401
        assert post(url, headers((secret,), "msg_5", now, BODY), BODY + b" ").status == 401
        assert post(url, {}, BODY).status == 401
    assert receiver.events.qsize() == 2
    assert receiver.events.get() == json.loads(BODY)


def test_the_page_shows_the_code_that_is_tested() -> None:
    page = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
    assert f"```python\n{inspect.getsource(verify)}```" in page
