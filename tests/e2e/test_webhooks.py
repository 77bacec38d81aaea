"""A job that ends is told to a receiver: through the table's stream, the queue and the sender of the local stack."""

import json
import time
from collections.abc import Iterator

from shared.domain.webhook_signature import secret_of, verified
from tests.conftest import ROOT
from tests.e2e.conftest import Sluice
from tests.receivers import Got, Receiver, receiving


def waited_for(receiver: Receiver) -> Iterator[Got]:
    """What a receiver gets, as it comes, for a minute."""
    seen, end = 0, time.monotonic() + 60
    while time.monotonic() < end:
        yield from receiver.got[seen : (seen := len(receiver.got))]
        time.sleep(0.1)


def test_a_webhook_from_its_first_test_to_a_finished_job(sluice: Sluice) -> None:
    with receiving() as receiver:
        made = sluice.json("webhooks", "add", receiver.url, "--event", "job.succeeded")
        tested = sluice.run("webhooks", "test", made["webhook_id"], "--timeout", "60")
        assert tested.returncode == 0, tested.stderr
        assert "answered 204" in tested.stdout
        job = sluice.run("jobs", "submit", "tumor", str(ROOT / "examples/tumor/request.json"), "--json")
        assert job.returncode == 0, job.stderr
        job_id = json.loads(job.stdout)["job_id"]
        # Other tests' jobs are told of, too.
        got = next((each for each in waited_for(receiver) if job_id.encode() in each.body), None)
        assert got is not None
        told = json.loads(got.body)
        assert (told["type"], told["data"]["job_id"]) == ("job.succeeded", job_id)
        assert verified(secret_of(made["secret"]), got.headers, got.body, time.time())
        log = sluice.json("webhooks", "deliveries", made["webhook_id"])["deliveries"]
        assert {"webhook.test", "job.succeeded"} == {each["event"] for each in log}
        sluice.json("webhooks", "remove", made["webhook_id"])
