"""`sluice batch run`: a file of many rows, predicted row by row, and fetched."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from infra.cli.api_client import Api, call
from infra.cli.job_progress import Job, fetch_result, follow, raise_unless_succeeded, rows_of
from infra.cli.options import JsonOption, KeyOption, UrlOption, help_text
from infra.cli.output import USAGE, Failure, messages, plain, print_json, size_text
from infra.cli.tables import print_table
from infra.cli.uploads import FileArgument
from shared.domain.batch_formats import file_type
from shared.domain.batches import DEFAULT_ERROR_SHARE
from shared.domain.errors import TooManyErrors, UnsupportedMediaType

GROUP_HELP: Final = "Batches: files of many rows."
RUN_HELP: Final = help_text(
    "Predict all rows of a file.",
    "CSV, JSON Lines, NPY (each also with .gz) or Parquet. The file is uploaded, the run is followed, and its output "
    "of the same rows in the same order is written beside the file with a manifest. Ctrl-C leaves the run going.",
    "sluice batch run tumor rows.csv",
    "sluice batch run tumor rows.parquet --output predictions.parquet --max-error-share 0",
)

_CHUNK: Final = 1 << 20
_SHOWN_ERRORS: Final = 5
_INTERRUPTED: Final = 130  # as shells have it for SIGINT


def run(
    model: Annotated[str, typer.Argument(help="Name of a published model.", show_default=False)],
    file: FileArgument,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the output goes.", metavar="FILE", show_default=False)
    ] = None,
    max_error_share: Annotated[
        float, typer.Option("--max-error-share", min=0, max=1, help="Share of the rows that may be wrong.")
    ] = DEFAULT_ERROR_SHARE,
    version: Annotated[str | None, typer.Option(help="A version or a label (default: the endpoint's choice).")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run, and fetch its output.")] = True,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a batch; with `--json` the job's document is printed."""
    target = _target(file, output)
    api = Api.find(url, key)
    if wait:
        _clear(target)
    job = _start(api, model, file, version, max_error_share)
    job_id = str(job["job_id"])
    if not wait:
        _say_on(job, as_json=as_json)
        return
    try:
        job = follow(api, job_id)
        manifest = _fetched(api, job, target)
    except KeyboardInterrupt:
        messages.print(f"\nThe run goes on. `sluice jobs show {job_id} --follow` shows how.", soft_wrap=True)
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        print_json(job)
    else:
        _show(job, manifest, target)
    raise_unless_succeeded(job, quiet=as_json)


def _target(file: Path, output: Path | None) -> Path:
    """Where the output goes: beside the file, and never in its place."""
    try:
        kind = file_type(file.name)
    except UnsupportedMediaType as error:
        raise Failure(error.detail, exit_code=USAGE) from None
    if not file.is_file():
        raise Failure(f"{file} is no file.", exit_code=USAGE)
    target = output or file.with_name(f"{file.name.partition('.')[0]}.predictions{kind.suffix}")
    if target.exists() and target.samefile(file):
        raise Failure("The output would take the place of the input.", exit_code=USAGE)
    return target


def _manifest(target: Path) -> Path:
    return target.with_name(f"{target.name}.manifest.json")


def _errors(target: Path) -> Path:
    return target.with_name(f"{target.name}.errors.jsonl")


def _clear(target: Path) -> None:
    """Remove what an earlier run has left there: it must not be taken for what comes of this one."""
    for path in (target, _manifest(target), _errors(target)):
        path.unlink(missing_ok=True)


def _start(api: Api, model: str, file: Path, version: str | None, max_error_share: float) -> Job:
    from infra.cli.transfers import upload

    asked: dict[str, Any] = {"upload_id": upload(api, file)["upload_id"], "max_error_share": max_error_share}
    kind = file_type(file.name)
    asked["format"] = f"{kind.format}.gz" if kind.packed else kind.format
    if version is not None:
        asked["version"] = int(version) if version.isdecimal() else version
    job: Job = api.post("v1", "models", model, "batches", body=json.dumps(asked).encode()).document()
    return job


def _fetched(api: Api, job: Job, target: Path) -> Mapping[str, Any] | None:
    """The manifest, None where there is none; it lies beside the output, which is held against its checksum."""
    if not (job.get("batch") or {}).get("manifest"):
        return None
    path = _manifest(target)
    _download(api, job, "manifest", path)
    manifest: Mapping[str, Any] = json.loads(path.read_bytes())
    if manifest.get("errors_uri"):
        _download(api, job, "errors", _errors(target))
    if job["state"] == "succeeded":
        fetch_result(api, job, target)
        if _sha256(target) != manifest["output"]["sha256"]:
            raise Failure(f"{target} has other bytes than the manifest says: fetch it again.")
    return manifest


def _download(api: Api, job: Job, what: str, path: Path) -> None:
    from infra.cli.transfers import download

    answer = call("GET", f"{api.url}/v1/jobs/{job['job_id']}/{what}", what="The API", headers=api.headers)
    address = answer.headers.get("location")
    if answer.status != 303 or not address:
        raise Failure(f"The {what} of the batch cannot be fetched: the API answered {answer.status}.")
    download(address, path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _say_on(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    typer.echo(plain(str(job["job_id"])))
    messages.print(f"Started. `sluice jobs show {job['job_id']} --follow` shows how it goes on.", style="dim")


def _show(job: Job, manifest: Mapping[str, Any] | None, target: Path) -> None:
    done, total = rows_of(job)
    seconds = _seconds(job)
    facts: dict[str, Any] = {
        "job": job["job_id"],
        "state": job["state"],
        "model": " ".join(str(part) for part in job["model"].values() if part),
        "rows": f"{done:,} of {total:,}" if total else done,
        "duration": None if seconds is None else f"{seconds:.1f} s",
        "rows a second": f"{done / seconds:,.0f}" if seconds else None,
        "cost": None if job.get("cost_usd") is None else f"{job['cost_usd']:.9f} USD",
    }
    if manifest is not None:
        facts["wrong rows"] = f"{manifest['rows']['failed']:,}"
        if manifest["output"] is not None:
            facts["output"] = f"{target} ({size_text(manifest['output']['size'])})"
        facts["manifest"] = _manifest(target)
        if manifest.get("errors_uri"):
            facts["all wrong rows"] = _errors(target)
    print_table(("", ""), [[name, value] for name, value in facts.items() if value is not None])
    for error in (manifest or {}).get("errors", ())[:_SHOWN_ERRORS]:
        said = (f"row {error['row']}:", f"{error['code']}:", error["pointer"], error["detail"])
        messages.print(plain(" ".join(part for part in said if part)), markup=False, soft_wrap=True)
    if (job.get("problem") or {}).get("code") == TooManyErrors.code:
        messages.print("`--max-error-share` says which share of the rows may be wrong.", style="dim", soft_wrap=True)


def _seconds(job: Job) -> float | None:
    started, finished = job.get("started_at"), job.get("finished_at")
    if started is None or finished is None:
        return None
    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()
