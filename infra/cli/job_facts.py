"""What there is to say of one job."""

from collections.abc import Mapping
from typing import Any

from infra.cli.endpoint_text import percent
from infra.cli.job_progress import Job, rows_of
from infra.cli.output import size_text
from infra.cli.problems import said_of_job
from infra.cli.times import time_text


def facts_of(job: Job, url: str, *, explained: bool) -> Mapping[str, Any]:
    """The facts by their names; `url` is the API's, `explained` whether they say what a problem's code means."""
    return {
        "job": job["job_id"],
        "kind": job["kind"],
        "state": job["state"],
        "model": model_text(job),
        "rows": rows_text(job),
        **_of_batch(job),
        "attempts": job["attempts"],
        "created": time_text(job["created_at"]),
        "started": time_text(job.get("started_at")),
        "ended": time_text(job.get("finished_at")),
        "kept until": time_text(job["expires_at"]),
        "problem": _problem(job.get("problem"), explained=explained),
        **_places(job, url),
        "cost": cost_text(job),
    }


def model_text(job: Job) -> str:
    """The model, and what ran it once that is chosen."""
    model = job["model"]
    return " ".join(str(model[part]) for part in ("name", "version", "variant", "backend") if model.get(part))


def rows_text(job: Job) -> str:
    """How many rows are done, of how many."""
    if not job.get("progress"):
        return ""
    done, total = rows_of(job)
    return f"{done}/{'?' if total is None else total}"


def cost_text(job: Job) -> str | None:
    """The cost, once it is known."""
    return None if job.get("cost_usd") is None else f"{job['cost_usd']:.9f} USD"


def _problem(problem: Mapping[str, Any] | None, *, explained: bool) -> str:
    if not problem:
        return ""
    if not explained:
        return str(problem["code"])
    message, places = said_of_job(problem)
    return f"{problem['code']}: {' '.join((message, *places))}"


def _of_batch(job: Job) -> Mapping[str, Any]:
    batch = job.get("batch") or {}
    if not batch:
        return {}
    failed = batch.get("rows_failed")
    size = f", {size_text(batch['size'])}" if batch.get("size") else ""
    most = f"at most {percent(batch['max_error_share'])} of the rows may be"
    return {
        "wrong rows": most if failed is None else f"{failed} ({most})",
        "input": f"{batch['source']} ({batch['format']}{size})",
        "parts": batch.get("parts"),
    }


def _places(job: Job, url: str) -> Mapping[str, str]:
    """Where to get what came of it, with the caller's key."""
    result, batch = job.get("result"), job.get("batch") or {}
    own = f"{url}/v1/jobs/{job['job_id']}"
    places = {}
    if result:
        name = "output" if batch else "result"
        places[name] = f"{url}{result['href']} ({result['media_type']}, {size_text(result['size'])})"
    if batch.get("manifest"):
        places["manifest"] = f"{own}/manifest"
    if batch.get("errors"):
        places["all wrong rows"] = f"{own}/errors"
    return places
