"""`sluice batch run`: a file of many rows, predicted row by row, and fetched."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from infra.cli.api_client import Api
from infra.cli.batch_files import clear, errors_beside, fetch_batch, manifest_beside
from infra.cli.job_facts import cost_text, model_text
from infra.cli.job_progress import Job, follow, going_on, raise_unless_succeeded, rows_of
from infra.cli.options import JsonOption, KeyOption, UrlOption, help_text
from infra.cli.output import USAGE, Failure, messages, plain, print_json, size_text
from infra.cli.tables import print_facts
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

_SHOWN_ERRORS: Final = 5


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of a published model.", show_default=False)],
    file: FileArgument,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the output goes.", metavar="FILE", show_default=False)
    ] = None,
    max_error_share: Annotated[
        float, typer.Option("--max-error-share", min=0, max=1, help="Share of the rows that may be wrong.")
    ] = DEFAULT_ERROR_SHARE,
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="A version or a label (default: the endpoint's choice).")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run, and fetch its output.")] = True,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a batch; with `--json` the job's document is printed."""
    target = _target(file, output)
    api = Api.find(url, key)
    if wait:
        clear(target)
    job = _start(api, model, file, version, max_error_share)
    job_id = str(job["job_id"])
    if not wait:
        _say_on(job, as_json=as_json)
        return
    with going_on(job_id):
        job = follow(api, job_id)
        manifest = fetch_batch(api, job, target)
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


def _start(api: Api, model: str, file: Path, version: str | None, max_error_share: float) -> Job:
    from infra.cli.transfers import upload

    asked: dict[str, Any] = {"upload_id": upload(api, file)["upload_id"], "max_error_share": max_error_share}
    kind = file_type(file.name)
    asked["format"] = f"{kind.format}.gz" if kind.packed else kind.format
    if version is not None:
        asked["version"] = int(version) if version.isdecimal() else version
    job: Job = api.post("v1", "models", model, "batches", body=json.dumps(asked).encode()).document()
    return job


def _say_on(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    typer.echo(plain(str(job["job_id"])))
    messages.print(
        f"Started. `sluice jobs show {job['job_id']} --follow --result FILE` fetches its output, too.",
        style="dim",
        markup=False,
        soft_wrap=True,
    )


def _show(job: Job, manifest: Mapping[str, Any] | None, target: Path) -> None:
    done, total = rows_of(job)
    seconds = _seconds(job)
    facts: dict[str, Any] = {
        "job": job["job_id"],
        "state": job["state"],
        "model": model_text(job),
        "rows": f"{done:,} of {total:,}" if total else done,
        "duration": None if seconds is None else f"{seconds:.1f} s",
        "rows a second": f"{done / seconds:,.0f}" if seconds and done else None,
        "cost": cost_text(job),
    }
    if manifest is not None:
        facts["wrong rows"] = f"{manifest['rows']['failed']:,}"
        if manifest["output"] is not None:
            facts["output"] = f"{target} ({size_text(manifest['output']['size'])})"
        facts["manifest"] = manifest_beside(target)
        if manifest.get("errors_uri"):
            facts["all wrong rows"] = errors_beside(target)
    print_facts(facts)
    for error in (manifest or {}).get("errors", ())[:_SHOWN_ERRORS]:
        said = (f"row {error['row']}", error["code"], error["pointer"], error["detail"])
        messages.print(plain(": ".join(part for part in said if part)), markup=False, soft_wrap=True)
    if (job.get("problem") or {}).get("code") == TooManyErrors.code:
        messages.print("`--max-error-share` says which share of the rows may be wrong.", style="dim", soft_wrap=True)


def _seconds(job: Job) -> float | None:
    started, finished = job.get("started_at"), job.get("finished_at")
    if started is None or finished is None:
        return None
    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()
