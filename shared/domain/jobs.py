"""A prediction that is answered later."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

JOB_ID: Final = r"[0-9a-f]{32}"
# As long as SageMaker may keep a request in its queue and run it, and a day to fetch the answer.
KEPT_S: Final = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Job:
    """A job of a tenant, on `backend` by its name in the configuration of the model's endpoint.

    `rows` is the number of instances, None for a model that has no axis of them. `ticket` is what the backend needs to
    find the answer. Times are in seconds since 1970; what comes of the job is kept until `expires_at`.
    """

    job_id: str
    tenant: str
    model: str
    version: int
    variant: str
    backend: str
    rows: int | None
    created_at: int
    expires_at: int
    ticket: Mapping[str, str]


def new_job_id() -> str:
    """An id that nobody guesses: 32 hexadecimal digits."""
    return secrets.token_hex(16)
