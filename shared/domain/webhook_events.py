"""The bodies of webhooks: `{"type", "timestamp", "data"}` (Standard Webhooks 1.0, "Payload structure").

They say what ended and where more is found: ids, the model, states, times, a problem's code. Neither what was sent for
a prediction nor what came of it is in them.
"""

import json
from datetime import UTC, datetime
from typing import Any

from shared.domain.webhooks import TEST_EVENT, FinishedJob, Webhook


def job_payload(job: FinishedJob) -> bytes:
    """The body that tells of a finished job or batch; its links are paths of the API."""
    served = {"version": job.version, "variant": job.variant, "backend": job.backend}
    path = f"/v1/jobs/{job.job_id}"
    data: dict[str, Any] = {
        "job_id": job.job_id,
        "kind": job.kind,
        "model": {"name": job.model, **{name: value for name, value in served.items() if value is not None}},
        "state": job.state,
        "created_at": moment(job.created_at),
        "started_at": None if job.started_at is None else moment(job.started_at),
        "finished_at": moment(job.finished_at),
        "progress": None
        if job.rows_total is None and not job.rows_done
        else {"rows_done": job.rows_done, "rows_total": job.rows_total},
        "problem": None if job.code is None else {"code": job.code},
        "links": {"job": path, **({"result": f"{path}/result"} if job.state == "succeeded" else {})},
    }
    return _payload(job.event, job.finished_at, data)


def probe_payload(webhook: Webhook, now: float) -> bytes:
    """The body of an event that only shows whether the receiver works."""
    return _payload(TEST_EVENT, now, {"webhook_id": webhook.webhook_id})


def moment(seconds: float) -> str:
    """A time as RFC 3339 has it, in UTC and milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _payload(event: str, at: float, data: dict[str, Any]) -> bytes:
    # Members in a fixed order, so that one event has one body.
    return json.dumps({"type": event, "timestamp": moment(at), "data": data}, separators=(",", ":")).encode()
