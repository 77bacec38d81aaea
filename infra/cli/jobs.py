"""`sluice jobs`: predictions that are answered later."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from infra.cli.api_client import Api
from infra.cli.batch_files import fetch_batch
from infra.cli.job_facts import facts_of, rows_text
from infra.cli.job_progress import fetch_result, follow, going_on, raise_unless_succeeded
from infra.cli.options import JsonOption, KeyOption, UrlOption, help_text, read_input
from infra.cli.output import USAGE, Failure, console, messages, plain, print_json
from infra.cli.tables import print_facts, print_table
from infra.cli.times import time_text
from infra.cli.uploads import FileArgument, MediaTypeOption
from shared.domain.jobs import FINISHED, STATES, JobKind

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
    "Those of the key's tenant, batches among them.",
    "sluice jobs list",
    "sluice jobs list --state failed --model tumor --all --json",
)
SHOW_HELP: Final = help_text(
    "Show a job.",
    "With --follow until it has ended, with its progress. --result writes its result to a file; of a batch that is the "
    "output, and its manifest and its wrong rows come to lie beside it.",
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
    "With what was sent. A batch goes on with the parts that are not done.",
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
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of a published model.", show_default=False)],
    file: FileArgument,
    *,
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="A version or a label (default: the endpoint's choice).")
    ] = None,
    media_type: MediaTypeOption = None,
    accept: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Type of the result (default: that of the file).")
    ] = None,
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
        with going_on(job["job_id"]):
            _show_end(api, follow(api, job["job_id"]), result, as_json=as_json)
    elif as_json:
        print_json(job)
    else:
        console.print(plain(job["job_id"]), markup=False)
        messages.print(f"Queued. `sluice jobs show {job['job_id']} --follow` shows how it goes on.", style="dim")


def list_(
    *,
    state: Annotated[
        list[str] | None,
        typer.Option(help=f"Only these: {', '.join(STATES)}. May be repeated.", metavar="STATE"),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.", metavar="MODEL")] = None,
    kind: Annotated[JobKind | None, typer.Option(help="Only this kind: prediction or batch.", metavar="KIND")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="Most jobs that are listed.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List them all.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs."""
    if unknown := [each for each in state or () if each not in STATES]:
        raise Failure(f"--state: {unknown[0]!r} is none of {', '.join(STATES)}.", exit_code=USAGE)
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
                rows_text(job),
                time_text(job["created_at"]),
                time_text(job.get("finished_at")),
                job.get("code") or "",
            ]
            for job in found
        ],
        right=("rows",),
        whole=("job", "model", "state", "created", "ended", "problem"),
        spare=("kind", "ended", "problem", "rows", "created", "model"),
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
    if followed:
        with going_on(job_id):
            _show_end(api, follow(api, job_id), result, as_json=as_json)
        return
    job = api.get("v1", "jobs", job_id).document()
    if result is not None:
        _show_end(api, job, result, as_json=as_json)
    else:
        _show(api, job, as_json=as_json)


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
    if result is not None and job["kind"] == "batch":
        fetch_batch(api, job, result)
    elif result is not None and job["state"] == "succeeded":
        fetch_result(api, job, result)
    # What a problem's code means comes at the end, as the failure.
    _show(api, job, explained=job["state"] not in FINISHED, as_json=as_json)
    if job["state"] in FINISHED:
        raise_unless_succeeded(job, quiet=as_json)
    elif result is not None:
        raise Failure(f"The job {job['job_id']} is {job['state']}: --follow waits for its result.", quiet=as_json)
    if result is not None and not as_json:
        messages.print(plain(f"The result is in {result}."), markup=False, soft_wrap=True)


def _show(api: Api, job: Mapping[str, Any], *, explained: bool = True, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    print_facts(facts_of(job, api.url, explained=explained))


def _say(job: Mapping[str, Any], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        messages.print(plain(f"The job {job['job_id']} {what}."), markup=False, soft_wrap=True)
