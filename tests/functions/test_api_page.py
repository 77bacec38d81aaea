"""The page of the API: each of its curl lines, sent to the function with the example models."""

import logging
import re
from pathlib import Path

import pytest
from fastapi import FastAPI

from shared.codecs.content.media import KNOWN, MULTIPART
from tests.conftest import ROOT
from tests.docs.commands import Command, commands
from tests.functions.conftest import Serve
from tests.functions.served import serving

PAGE = ROOT / "docs" / "api.md"
BOUNDARY = "a-boundary"


def predictions() -> list[Command]:
    return [command for command in commands("curl") if command.page == "docs/api.md" and "/v1/" in command.words[2]]


def content(folder: Path, text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    path = text[1:]
    return (folder / path if path.startswith("build/") else ROOT / path).read_bytes()


def form(folder: Path, fields: list[str]) -> bytes:
    body = b""
    for text in fields:
        name, _, value = text.partition("=")
        file = '; filename="a"\r\nContent-Type: application/octet-stream' if value.startswith("@") else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + content(folder, value) + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the page's Python makes."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "build").mkdir()
    scripts = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (script,) = [text for text in scripts if "build/" in text]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(script, str(PAGE), "exec"), {})  # noqa: S102 - our own page
    return folder


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return serving(logging.Logger("functions.test"), *sorted((ROOT / "build" / "models").glob("*/1")))


@pytest.mark.parametrize("command", predictions(), ids=lambda command: " ".join(command.words[-4:])[:60])
def test_a_curl_line_is_answered(command: Command, made: Path, app: FastAPI, serve: Serve) -> None:
    function = serve(app)
    words = list(command.words[3:])
    headers: dict[str, str] = {}
    fields: list[str] = []
    body = b""
    while words:
        option, value = words.pop(0), words.pop(0)
        if option == "-H":
            name, _, text = value.partition(": ")
            headers[name.lower()] = text
        elif option in {"-d", "--data-binary"}:
            body = content(made, value)
        elif option == "-F":
            fields.append(value)
        else:
            assert option in {"-o", "-w"}
    if fields:
        body, headers["content-type"] = form(made, fields), f"{MULTIPART}; boundary={BOUNDARY}"
    answer = function("POST", command.words[2].removeprefix("$URL"), body=body, headers={"accept": ""} | headers)
    assert answer.status == 200, answer.body
    kind = headers.get("accept") or headers["content-type"]
    wanted = "application/json" if kind.startswith(MULTIPART) else kind.partition(";")[0]
    assert answer.headers["content-type"].startswith(wanted)


def test_the_page_names_every_type() -> None:
    text = PAGE.read_text("utf-8")
    assert [kind for kind in (*KNOWN, MULTIPART) if f"`{kind}" not in text] == []
    assert len(predictions()) >= 8
