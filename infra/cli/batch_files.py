"""What a batch has made, as files: the output, its manifest and its wrong rows."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from infra.cli.api_client import Api, call
from infra.cli.job_progress import Job, fetch_result
from infra.cli.output import Failure

_CHUNK: Final = 1 << 20


def manifest_beside(target: Path) -> Path:
    """Where the manifest of the output `target` lies."""
    return target.with_name(f"{target.name}.manifest.json")


def errors_beside(target: Path) -> Path:
    """Where all wrong rows of the output `target` lie."""
    return target.with_name(f"{target.name}.errors.jsonl")


def clear(target: Path) -> None:
    """Remove what an earlier run has left there: it must not be taken for what comes of this one."""
    for path in (target, manifest_beside(target), errors_beside(target)):
        path.unlink(missing_ok=True)


def fetch_batch(api: Api, job: Job, target: Path) -> Mapping[str, Any] | None:
    """The manifest, None where there is none; it lies beside the output, which is held against its checksum."""
    if not (job.get("batch") or {}).get("manifest"):
        return None
    path = manifest_beside(target)
    _download(api, job, "manifest", path)
    manifest: Mapping[str, Any] = json.loads(path.read_bytes())
    if manifest.get("errors_uri"):
        _download(api, job, "errors", errors_beside(target))
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
