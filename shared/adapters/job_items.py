"""Jobs as items of a DynamoDB table; `dynamodb_jobs` says what each attribute is for."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from shared.domain.errors import FieldError
from shared.domain.jobs import Job, JobProblem, JobRequest, JobResult, JobSummary, ObjectRef

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = dict[str, AttributeValueTypeDef]

SHARDS: Final = 8
_TEXTS: Final = ("traceparent", "owner", "variant", "backend")
_TIMES: Final = ("lease_until", "due_at", "started_at", "finished_at")
_COUNTS: Final = ("version", "rows_total", "cost_nusd")


def shard_of(job_id: str) -> str:
    """The part of the index `unfinished` that a job is in."""
    return str(int(job_id[-1], 16) % SHARDS)


def item_of(job: Job) -> "Item":
    """The item of a job; what is None is not in it."""
    return {
        "job_id": text(job.job_id),
        "kind": text(job.kind),
        "tenant": text(job.tenant),
        "key_id": text(job.key_id),
        "model": text(job.model),
        "request": _request(job.request),
        "created_at": number(job.created_at),
        "start_by": number(job.start_by),
        "expires_at": number(job.expires_at),
        "request_id": text(job.request_id),
        "state": text(job.state),
        "attempts": number(job.attempts),
        "rows_done": number(job.rows_done),
        **_given(job, _TEXTS, text),
        **_given(job, _TIMES + _COUNTS, number),
        **({} if job.due_at is None else {"due_shard": text(shard_of(job.job_id))}),
        **({} if job.ticket is None else {"ticket": texts(job.ticket)}),
        **({} if job.result is None else {"result": result_value(job.result)}),
        **({} if job.problem is None else problem_attributes(job.problem)),
        **({} if job.batch is None else {"batch": {"B": job.batch}}),
    }


def job_of(item: "Mapping[str, Any]") -> Job:
    """Read back what `item_of` wrote, and what updates made of it."""
    ticket, result, problem = (item.get(name, {}).get("M") for name in ("ticket", "result", "problem"))
    given: dict[str, Any] = {name: item[name]["S"] for name in _TEXTS if name in item}
    given |= {name: float(item[name]["N"]) for name in _TIMES if name in item}
    given |= {name: int(item[name]["N"]) for name in _COUNTS if name in item}
    return Job(
        job_id=item["job_id"]["S"],
        kind=item["kind"]["S"],
        tenant=item["tenant"]["S"],
        key_id=item["key_id"]["S"],
        model=item["model"]["S"],
        request=_request_of(item["request"]["M"]),
        created_at=float(item["created_at"]["N"]),
        start_by=float(item["start_by"]["N"]),
        expires_at=int(item["expires_at"]["N"]),
        request_id=item["request_id"]["S"],
        state=item["state"]["S"],
        attempts=int(item["attempts"]["N"]),
        rows_done=int(item["rows_done"]["N"]),
        **given,
        ticket=None if ticket is None else _texts_of(ticket),
        result=None if result is None else _result_of(result),
        problem=None if problem is None else _problem_of(problem),
        batch=item["batch"]["B"] if "batch" in item else None,
    )


def summary_of(item: "Mapping[str, Any]") -> JobSummary:
    """A job as the index `by_tenant` has it."""
    return JobSummary(
        job_id=item["job_id"]["S"],
        kind=item["kind"]["S"],
        model=item["model"]["S"],
        state=item["state"]["S"],
        created_at=float(item["created_at"]["N"]),
        finished_at=float(item["finished_at"]["N"]) if "finished_at" in item else None,
        rows_total=int(item["rows_total"]["N"]) if "rows_total" in item else None,
        rows_done=int(item["rows_done"]["N"]),
        code=item["problem_code"]["S"] if "problem_code" in item and item["state"]["S"] == "failed" else None,
    )


def text(value: str) -> "AttributeValueTypeDef":
    """A text as an attribute."""
    return {"S": value}


def number(value: float) -> "AttributeValueTypeDef":
    """A number as an attribute; times are kept to the millisecond."""
    return {"N": str(value) if isinstance(value, int) else repr(round(value, 3))}


def texts(values: Mapping[str, str]) -> "AttributeValueTypeDef":
    """Texts by name as an attribute."""
    return {"M": {name: text(value) for name, value in values.items()}}


def problem_attributes(problem: JobProblem) -> "Item":
    """A problem, and its code for the index."""
    fields: Sequence[AttributeValueTypeDef] = [
        {"M": {"pointer": text(field.pointer), "detail": text(field.detail)}} for field in problem.fields
    ]
    told = {"code": problem.code, "title": problem.title, "detail": problem.detail}
    members: Item = {**{name: text(value) for name, value in told.items()}, "fields": {"L": fields}}
    return {"problem": {"M": members}, "problem_code": text(problem.code)}


def result_value(result: JobResult) -> "AttributeValueTypeDef":
    """A result as an attribute; headers may repeat, so they are a list."""
    headers: Sequence[AttributeValueTypeDef] = [{"L": [text(name), text(value)]} for name, value in result.headers]
    members: Item = {"media_type": text(result.media_type), "size": number(result.size), "headers": {"L": headers}}
    return {"M": {**members, **_content(result.inline, result.stored, "stored")}}


def _given(job: Job, names: Sequence[str], write: "Callable[[Any], AttributeValueTypeDef]") -> "Item":
    values = {name: getattr(job, name) for name in names}
    return {name: write(value) for name, value in values.items() if value is not None}


def _request(request: JobRequest) -> "AttributeValueTypeDef":
    members: Item = {"headers": texts(request.headers), **_content(request.inline, request.source, "source")}
    if request.version is not None:
        members["version"] = number(request.version) if isinstance(request.version, int) else text(request.version)
    return {"M": members}


def _request_of(found: Mapping[str, Any]) -> JobRequest:
    version = found.get("version")
    return JobRequest(
        version=None if version is None else int(version["N"]) if "N" in version else version["S"],
        headers=_texts_of(found["headers"]["M"]),
        inline=found["inline"]["B"] if "inline" in found else None,
        source=_ref_of(found, "source"),
    )


def _result_of(found: Mapping[str, Any]) -> JobResult:
    return JobResult(
        media_type=found["media_type"]["S"],
        size=int(found["size"]["N"]),
        headers=tuple((pair["L"][0]["S"], pair["L"][1]["S"]) for pair in found["headers"]["L"]),
        inline=found["inline"]["B"] if "inline" in found else None,
        stored=_ref_of(found, "stored"),
    )


def _problem_of(found: Mapping[str, Any]) -> JobProblem:
    fields = [FieldError(field["M"]["pointer"]["S"], field["M"]["detail"]["S"]) for field in found["fields"]["L"]]
    return JobProblem(found["code"]["S"], found["title"]["S"], found["detail"]["S"], tuple(fields))


def _content(inline: bytes | None, ref: ObjectRef | None, name: str) -> "Item":
    """Bytes as they are, or the object that has them."""
    members: Item = {} if inline is None else {"inline": {"B": inline}}
    if ref is not None:
        version = {} if ref.version_id is None else {"version_id": ref.version_id}
        members[name] = texts({"bucket": ref.bucket, "key": ref.key, **version})
    return members


def _ref_of(found: Mapping[str, Any], name: str) -> ObjectRef | None:
    return ObjectRef(**_texts_of(found[name]["M"])) if name in found else None


def _texts_of(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: value["S"] for name, value in found.items()}
