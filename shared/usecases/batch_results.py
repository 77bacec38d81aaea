"""What a run over a file leaves beside its output: all errors by row, and the manifest."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from shared.domain.batch_plan import BatchPlan
from shared.domain.batch_ports import BatchObjects
from shared.domain.batches import (
    ERRORS_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_ERRORS,
    BatchState,
    Progress,
    result_prefix,
    work_prefix,
)
from shared.domain.cost import usd_text
from shared.domain.jobs import Job, JobProblem, ObjectRef

JSON: Final = "application/json"
JSON_LINES: Final = "application/jsonl"
_CHUNK: Final = 1024 * 1024

_lines = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Output:
    """The joined output; `sha256` in hexadecimal."""

    ref: ObjectRef
    media_type: str
    size: int
    sha256: str


@dataclass(slots=True)
class RowErrors:
    """The errors of all rows as they pass by, of which the first ones are kept."""

    first: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0

    def pass_on(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces of JSON Lines."""
        rest = b""
        for piece in pieces:
            *whole, rest = (rest + piece).split(b"\n")
            self.count += len(whole)
            wanted = MAX_MANIFEST_ERRORS - len(self.first)
            self.first += [_lines.decode(line) for line in whole[:wanted]]
            yield piece


def write_errors(objects: BatchObjects, job: Job) -> tuple[RowErrors, str | None]:
    """Join what the parts found to `errors.jsonl`, in the order of the rows; its key, None where no row is wrong."""
    found = list(objects.below(work_prefix(job.job_id, "errors")))
    errors = RowErrors()
    if not found:
        return errors, None
    key = f"{result_prefix(job.tenant, job.model, job.job_id)}{ERRORS_NAME}"

    def pieces() -> Iterator[bytes]:
        for stored in found:
            yield from objects.ranges(stored).stream(0, stored.size, _CHUNK)

    objects.write(key, errors.pass_on(pieces()), JSON_LINES, sum(stored.size for stored in found))
    return errors, key


def write_manifest(
    objects: BatchObjects,
    job: Job,
    state: BatchState,
    *,
    plan: BatchPlan | None,
    progress: Progress | None,
    output: Output | None,
    problem: JobProblem | None,
    at: float,
    cost_nusd: int,
) -> BatchState:
    """Write errors and manifest; the batch's state with their keys."""
    errors, errors_key = write_errors(objects, job)
    rows_done = 0 if progress is None else progress.rows_done
    rows_failed = errors.count if progress is None else max(progress.rows_failed, errors.count)
    document = {
        "job_id": job.job_id,
        "state": "failed" if problem is not None else "succeeded",
        "model": {
            "name": job.model,
            "version": plan.pin.version if plan else None,
            "variant": plan.pin.variant if plan else None,
            "backend": plan.pin.backend if plan else None,
        },
        "input": {
            "uri": state.source,
            "version_id": job.request.source.version_id if job.request.source else None,
            "format": state.format,
            "packed": state.packed,
            "size": plan.size if plan else state.size,
            "sha256": plan.sha256 if plan else None,
        },
        "output": None if output is None else _output(output),
        "rows": {
            "total": plan.rows if plan else None,
            "done": rows_done,
            "succeeded": max(0, rows_done - rows_failed),
            "failed": rows_failed,
        },
        "max_error_share": state.max_error_share,
        "errors": errors.first,
        "errors_uri": None if errors_key is None else ObjectRef(objects.bucket, errors_key).uri,
        "parts": {
            "total": len(plan.parts) if plan else None,
            "done": len(progress.parts_done) if progress else 0,
        },
        "created_at": _time(job.created_at),
        "started_at": None if job.started_at is None else _time(job.started_at),
        "finished_at": _time(at),
        "cost_usd": usd_text(cost_nusd),
        "problem": None if problem is None else _problem(problem),
    }
    key = f"{result_prefix(job.tenant, job.model, job.job_id)}{MANIFEST_NAME}"
    objects.put(key, _encode(document), JSON)
    return msgspec.structs.replace(
        state,
        parts=len(plan.parts) if plan else None,
        rows_failed=rows_failed,
        manifest=key,
        errors=errors_key,
    )


def _output(output: Output) -> dict[str, Any]:
    return {
        "uri": output.ref.uri,
        "media_type": output.media_type,
        "size": output.size,
        "sha256": output.sha256,
    }


def _problem(problem: JobProblem) -> dict[str, Any]:
    return {
        "code": problem.code,
        "title": problem.title,
        "detail": problem.detail,
        "errors": [{"pointer": place.pointer, "detail": place.detail} for place in problem.fields],
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
