"""Files on their way to storage and back, with a bar on a terminal."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from infra.cli.api_client import Api
from infra.cli.output import UNREACHABLE, USAGE, Failure, messages
from shared.domain.uploads import MAX_UPLOAD, NAME

if TYPE_CHECKING:
    import urllib3

Advance = Callable[[int], object]

_CHUNK: Final = 1 << 20
# For one attempt to send or to receive something; a whole file may take as long as it takes.
_STALLED_S: Final = 60.0
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".jsonl": "application/jsonlines",
    ".ndjson": "application/jsonlines",
    ".npy": "application/x-npy",
    ".npz": "application/x-npz",
    ".parquet": "application/vnd.apache.parquet",
    ".gz": "application/gzip",
}


def media_type_of(path: Path) -> str:
    """The type that the end of a file's name tells."""
    return _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


def upload(api: Api, path: Path, media_type: str | None = None) -> dict[str, Any]:
    """Upload a file; the API's document of it, once it has arrived. Failure for a file that cannot be uploaded."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 < size <= MAX_UPLOAD:
                raise Failure(f"{path} has {size} bytes; an upload has 1 to {MAX_UPLOAD}.", exit_code=USAGE)
            with bar(f"reading {path.name}", size) as advance:
                digest = _digest(file, advance)
            asked = {"size": size, "media_type": media_type or media_type_of(path), "sha256": digest}
            created = api.post("v1", "uploads", body=_json({**asked, "name": name_of(path)})).document()
            file.seek(0)
            with bar(f"uploading {path.name}", size) as advance:
                _put(created, file, advance)
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}.", exit_code=USAGE) from None
    document: dict[str, Any] = api.get("v1", "uploads", created["upload_id"]).document()
    return document


def name_of(path: Path) -> str:
    """A file's name as an upload may have it: its end, with `_` for other characters."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", path.name)[-128:]
    return plain if re.fullmatch(NAME, plain) else f"_{plain[1:]}"


def download(url: str, path: Path, headers: Mapping[str, str] | None = None) -> int:
    """Write what is at `url` to a file, which is replaced as a whole once all is there; its size."""
    with _answer("GET", url, headers=headers) as answer:
        if answer.status != 200:
            raise Failure(f"The result cannot be fetched: {_reason(answer)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        total = int(answer.headers.get("Content-Length") or 0)
        size = 0
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file, bar(f"fetching {path.name}", total or None) as advance:
                for chunk in answer.stream(_CHUNK, decode_content=False):
                    size += file.write(chunk)
                    advance(len(chunk))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return size


@contextmanager
def bar(description: str, total: int | None) -> Iterator[Advance]:
    """A bar of bytes on a terminal, nothing elsewhere; what it gives takes how many more are done."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda more: progress.advance(task, more)


class _Watched:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], advance: Advance) -> None:
        self._file = file
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._advance(len(chunk))
        return chunk


def _digest(file: IO[bytes], advance: Advance) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        advance(len(chunk))
    return digest.hexdigest()


def _put(created: Mapping[str, Any], file: IO[bytes], advance: Advance) -> None:
    body = _Watched(file, advance)
    with _answer(created["method"], created["url"], headers=created["headers"], body=body) as answer:
        if answer.status != 200:
            raise Failure(f"The upload was refused: {_reason(answer)}")


@contextmanager
def _answer(
    method: str, url: str, *, headers: Mapping[str, str] | None = None, body: Any = None
) -> Iterator["urllib3.BaseHTTPResponse"]:
    import urllib3

    # urllib3 takes the time to connect for that to send, too.
    timeout = urllib3.Timeout(connect=_STALLED_S, read=_STALLED_S)
    pool = urllib3.PoolManager(retries=False, timeout=timeout, blocksize=_CHUNK)
    try:
        yield pool.request(method, url, headers=dict(headers or {}), body=body, redirect=False, preload_content=False)
    except urllib3.exceptions.HTTPError as error:
        host = url.partition("?")[0]
        raise Failure(f"{host} cannot be reached: {type(error).__name__}.", exit_code=UNREACHABLE) from None
    finally:
        pool.clear()


def _reason(answer: "urllib3.BaseHTTPResponse") -> str:
    """S3's code and message, else the status."""
    text = answer.read(64 * 1024).decode(errors="replace")
    found = [re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL) for name in ("Code", "Message")]
    said = ": ".join(match[1] for match in found if match)
    return said or f"status {answer.status}."


def _json(document: Mapping[str, Any]) -> bytes:
    import json

    return json.dumps(document).encode()
