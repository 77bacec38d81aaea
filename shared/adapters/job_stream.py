"""Records of the jobs table's stream: which job has ended.

Source: AWS Lambda Developer Guide, "Using AWS Lambda with Amazon DynamoDB"; the attributes are those of `job_items`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

from shared.domain.jobs import FINISHED, JOB_ID, JobKind
from shared.domain.webhooks import FinishedJob

_ID: Final = re.compile(JOB_ID)
# The year 10000, which no calendar here goes to.
_END_OF_TIME: Final = 253_402_300_800


class UnreadableRecord(ValueError):
    """A record that is not one of a job: another attempt would not make it one."""


def finished_job(record: Mapping[str, Any]) -> FinishedJob | None:
    """The job of a record, None if it has not ended or was deleted. Raises UnreadableRecord.

    Nothing is read but what events tell.
    """
    if record.get("eventName") == "REMOVE":
        return None
    try:
        return _read(record["dynamodb"]["NewImage"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnreadableRecord(f"not the image of a job: {error!r}") from error


def _read(image: Mapping[str, Any]) -> FinishedJob | None:
    state, kind, job_id = (image[name]["S"] for name in ("state", "kind", "job_id"))
    if state not in FINISHED:
        return None
    if kind not in {"prediction", "batch"} or not _ID.fullmatch(job_id):
        raise ValueError("neither a prediction nor a batch")
    return FinishedJob(
        job_id=job_id,
        kind=cast("JobKind", kind),
        tenant=image["tenant"]["S"],
        model=image["model"]["S"],
        state=cast("Literal['succeeded', 'failed', 'cancelled']", state),
        created_at=_time(image, "created_at"),
        finished_at=_time(image, "finished_at"),
        started_at=_time(image, "started_at") if "started_at" in image else None,
        version=_count(image, "version"),
        variant=_text(image, "variant"),
        backend=_text(image, "backend"),
        rows_total=_count(image, "rows_total"),
        rows_done=_count(image, "rows_done") or 0,
        # A job that has succeeded may still have the problem of an attempt before.
        code=_text(image, "problem_code") if state == "failed" else None,
    )


def _time(image: Mapping[str, Any], name: str) -> float:
    seconds = float(image[name]["N"])
    if not 0 <= seconds < _END_OF_TIME:
        raise ValueError(f"{name} is no time")
    return seconds


def _text(image: Mapping[str, Any], name: str) -> str | None:
    return str(image[name]["S"]) if name in image else None


def _count(image: Mapping[str, Any], name: str) -> int | None:
    return int(image[name]["N"]) if name in image else None
