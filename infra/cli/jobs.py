"""`sluice jobs`: predictions that are answered later."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from infra.cli.api_client import Api
from infra.cli.job_progress import fetch_result, follow, raise_unless_succeeded, rows_of
from infra.cli.options import JsonOption, KeyOption, UrlOption, help_text, read_input
from infra.cli.output import USAGE, Failure, console, messages, plain, print_json, size_text
from infra.cli.tables import print_table
from infra.cli.uploads import FileArgument, MediaTypeOption
from shared.domain.jobs import FINISHED, STATES

GROUP_HELP: Final = "Jobs: predictions and batches that are answered later."
SUBMIT_HELP: Final = help_text(
    "Have a file predicted as a job.",
    "The file is a request body as `predict` takes it: JSON, CSV, JSON Lines, NPY. One of more than 4 MB is uploaded "
    "first. With --wait the command ends with the job, and with --result its result is a file then.",
    "sluice jobs submit tumor body.json",
    "sluice jobs submit tumor rows.csv --wait --result predictions.json",
)
LIST_HELP: Final = help_text(
    "List jobs, the newest first.",
    "Those of the key's tenant.",
    "sluice jobs list",
    "sluice jobs list --state failed --model tumor --all --json",
)
SHOW_HELP: Final = help_text(
    "Show a job.",
    "With --follow until it has ended, with its progress.",
    "sluice jobs show 019a0c2b1f7e4d3c2b1a09f8e7d6c5b4",
    "sluice jobs show 019a0c2b1f7e4d3c2b1a09f8e7d6c5b4 --follow --result predictions.json",
)
CANCEL_HELP: Final = help_text(
    "Cancel a job, also one that runs.",
    "What it did is dropped.",
    "sluice jobs cancel 019a0c2b1f7e4d3c2b1a09f8e7d6c5b4",
)
RETRY_HELP: Final = help_text(
    "Run a failed or cancelled job again.",
    "With what was sent; a batch goes on with the parts that are not done.",
    "sluice jobs retry 019a0c2b1f7e4d3c2b1a09f8e7d6c5b4",
)

# API Gateway and Lambda take 6 MB, of which bodies that are no text have four and a half.
_INLINE: Final = 4_000_000
_PAGE: Final = 100
_MOST: Final = 100_000

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.", show_default=False)]
ResultOption = Annotated[
    Path | None, typer.Option("--result", help="Write the result to this file.", metavar="FILE", show_default=False)
]


def submit(
    model: Annotated[str, typer.Argument(help="Name of a published model.", show_default=False)],
    file: FileArgument,
    *,
    version: Annotated[str | None, typer.Option(help="A version or a label (default: the endpoint's choice).")] = None,
    media_type: MediaTypeOption = None,
    accept: Annotated[str | None, typer.Option(help="Type of the result (default: that of the file).")] = None,
    always_upload: Annotated[bool, typer.Option("--upload", help="Upload the file, also a small one.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="End with the job.")] = False,
    result: ResultOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a job on; with `--json` its document is printed, with `--wait` the one that it has in the end."""
    if result is not None and not wait:
        raise Failure("--result belongs to --wait.", exit_code=USAGE)
    if not file.is_file():
        raise Failure(f"{file} is no file.", exit_code=USAGE)
    api = Api.find(url, key)
    path = ("v1", "models", model, *(("versions", version) if version else ()), "jobs")
    headers = {"Accept": accept} if accept else {}
    if always_upload or file.stat().st_size > _INLINE:
        from infra.cli.transfers import upload

        source = {"upload_id": upload(api, file, media_type)["upload_id"]}
        job = api.post(*path, body=json.dumps(source).encode(), headers=headers).document()
    else:
        from infra.cli.transfers import media_type_of

        headers["Content-Type"] = media_type or media_type_of(file)
        job = api.post(*path, body=read_input(str(file), _INLINE), headers=headers).document()
    if wait:
        _show_end(api, follow(api, job["job_id"]), result, as_json=as_json)
    elif as_json:
        print_json(job)
    else:
        console.print(plain(job["job_id"]), markup=False)
        messages.print(f"Queued. `sluice jobs show {job['job_id']} --follow` shows how it goes on.", style="dim")


def list_(
    *,
    state: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(STATES)}. May be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind: prediction or batch.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="Most jobs that are listed.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List them all.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs."""
    given = {"state": ",".join(state or ()), "model": model, "kind": kind}
    query = {name: value for name, value in given.items() if value}
    found, cursor = _listed(Api.find(url, key), query, _MOST if everything else limit)
    if as_json:
        print_json({"jobs": found, "next": cursor})
        return
    if not found:
        messages.print("There are no such jobs.")
        return
    print_table(
        ("job", "kind", "model", "state", "rows", "created", "ended", "problem"),
        [
            [
                job["job_id"],
                job["kind"],
                job["model"],
                job["state"],
                _rows(job),
                job["created_at"],
                job.get("finished_at") or "",
                job.get("code") or "",
            ]
            for job in found
        ],
        right=("rows",),
        whole=("job",),
    )
    if cursor:
        messages.print("There are more: --limit, or --all.", style="dim")


def show(
    job_id: JobArgument,
    *,
    followed: Annotated[bool, typer.Option("--follow", help="Wait until it has ended.")] = False,
    result: ResultOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a job; it is a failure where it was waited for, or its result, and it did not succeed."""
    api = Api.find(url, key)
    job = follow(api, job_id) if followed else api.get("v1", "jobs", job_id).document()
    if followed or result is not None:
        _show_end(api, job, result, as_json=as_json)
    else:
        _show(job, as_json=as_json)


def cancel(job_id: JobArgument, *, url: UrlOption = None, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Cancel a job."""
    job = Api.find(url, key).delete("v1", "jobs", job_id).document()
    _say(job, "is cancelled", as_json=as_json)


def retry(job_id: JobArgument, *, url: UrlOption = None, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Run a job again."""
    job = Api.find(url, key).post("v1", "jobs", job_id, "retry", body=b"").document()
    _say(job, "is queued again", as_json=as_json)


def _listed(api: Api, query: Mapping[str, str], limit: int) -> tuple[Sequence[Mapping[str, Any]], str | None]:
    """The first jobs, and where the rest begins. A page may be short, and even empty, before the end."""
    found: list[Mapping[str, Any]] = []
    cursor: str | None = None
    while len(found) < limit:
        more = {"cursor": cursor} if cursor else {}
        page = api.get("v1", "jobs", query={**query, "limit": str(min(_PAGE, limit - len(found))), **more}).document()
        found += page["jobs"]
        cursor = page["next"]
        if cursor is None:
            break
    return found, cursor


def _show_end(api: Api, job: Mapping[str, Any], result: Path | None, *, as_json: bool) -> None:
    if job["state"] == "succeeded" and result is not None:
        fetch_result(api, job, result)
    _show(job, as_json=as_json)
    if job["state"] in FINISHED:
        raise_unless_succeeded(job, quiet=as_json)
    elif result is not None:
        raise Failure(f"The job {job['job_id']} is {job['state']}: --follow waits for its result.", quiet=as_json)
    if result is not None and not as_json:
        messages.print(plain(f"The result is in {result}."), markup=False, soft_wrap=True)


def _show(job: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    model, problem, result = job["model"], job.get("problem"), job.get("result")
    cost = job.get("cost_usd")
    facts = {
        "job": job["job_id"],
        "kind": job["kind"],
        "state": job["state"],
        "model": " ".join(str(model[part]) for part in ("name", "version", "variant", "backend") if model.get(part)),
        "rows": _rows(job),
        "attempts": job["attempts"],
        "created": job["created_at"],
        "started": job.get("started_at"),
        "ended": job.get("finished_at"),
        "kept until": job["expires_at"],
        "problem": f"{problem['code']}: {problem['detail']}" if problem else None,
        "result": f"{result['media_type']}, {size_text(result['size'])}" if result else None,
        "cost": None if cost is None else f"{cost:.9f} USD",
    }
    print_table(("", ""), [[name, value] for name, value in facts.items() if value is not None and value != ""])


def _say(job: Mapping[str, Any], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        messages.print(plain(f"The job {job['job_id']} {what}."), markup=False, soft_wrap=True)


def _rows(job: Mapping[str, Any]) -> str:
    if not job.get("progress"):
        return ""
    done, total = rows_of(job)
    return f"{done}/{'?' if total is None else total}"
