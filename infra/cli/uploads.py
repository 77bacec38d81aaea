"""`sluice uploads`: content for jobs and batches that is larger than a request may be."""

from pathlib import Path
from typing import Annotated, Final

import typer

from infra.cli.api_client import Api
from infra.cli.options import JsonOption, KeyOption, UrlOption, help_text
from infra.cli.output import console, messages, plain, print_json, size_text
from infra.cli.times import time_text

GROUP_HELP: Final = "Uploads: files that jobs and batches read."
PUT_HELP: Final = help_text(
    "Upload a file, and print the id that jobs and batches name it by.",
    "It goes to storage by an address that takes exactly this content, once; size, type and SHA-256 are checked there. "
    "It can be used for seven days.",
    "sluice uploads put rows.csv",
    "sluice uploads put body.bin --media-type application/octet-stream --json",
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The file.", show_default=False)]
MediaTypeOption = Annotated[
    str | None, typer.Option("--media-type", help="Its type (default: by the end of its name).", metavar="TYPE")
]


def put(
    file: FileArgument,
    *,
    media_type: MediaTypeOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a file; with `--json` the API's document of it is printed."""
    from infra.cli.transfers import upload

    document = upload(Api.find(url, key), file, media_type)
    if as_json:
        print_json(document)
        return
    console.print(plain(document["upload_id"]), markup=False)
    until = time_text(document["expires_at"])
    messages.print(
        plain(f"Uploaded {size_text(document['size'])} as {document['media_type']}, until {until}."),
        markup=False,
        style="dim",
    )
