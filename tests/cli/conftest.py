"""A stack as the commands see it: `.sluice/local.json` of a stack that "runs", and an HTTP server in its place."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from infra.cli import output
from infra.cli.main import app
from infra.local.home import Home, LocalStack
from shared.domain.dtypes import DType
from shared.domain.model import ModelVersion, PackageFile, Placement
from shared.domain.signature import Content, Signature, TensorSpec
from tests.conftest import LocalAws


@pytest.fixture(autouse=True)
def new_consoles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consoles keep the width of their first use, which is another test's otherwise; pytest-xdist sets one."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(output.console, "_made", None)
    monkeypatch.setattr(output.messages, "_made", None)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """Answers by `METHOD /path`, the last one again and again, and remembers what it was asked."""

    url: str = ""
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    later: dict[str, list[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def on(self, route: str, document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answers[route] = (status, dict(headers or {}), body)

    def then(self, route: str, document: Any, status: int = 200) -> None:
        """What it answers the next time."""
        self.later.setdefault(route, []).append((status, {}, json.dumps(document).encode()))


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.requests.append(
                Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            )
            route = f"{self.command} {self.path}"
            status, headers, answer = server.answers.get(route, (404, {}, b'{"message":"Not Found"}'))
            if later := server.later.get(route):
                server.answers[route] = later.pop(0)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815 - names that http.server calls

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Keep the test's output clean."""

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(made)) as http:
        made.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            http.shutdown()
            thread.join()


@dataclass(frozen=True)
class Cli:
    home: Home

    def __call__(
        self, *arguments: str, stdin: str | bytes | None = None, env: Mapping[str, str | None] | None = None
    ) -> Result:
        variables = {
            "SLUICE_HOME": str(self.home.folder),
            "SLUICE_API_URL": None,
            "SLUICE_API_KEY": None,
            **(env or {}),
        }
        return CliRunner().invoke(app, list(arguments), input=stdin, env=variables)

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        result = self(*arguments, "--json", stdin=stdin)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture
def down(tmp_path: Path) -> Cli:
    """The command where no stack is up."""
    return Cli(Home(tmp_path / ".sluice"))


@pytest.fixture
def cli(down: Cli, server: Server) -> Iterator[Cli]:
    """The command where a stack is up, with `server` for its API and its Lambda service."""
    down.home.claim()
    down.home.publish(local_stack(server.url))
    yield down
    down.home.release()


@pytest.fixture
def publishing(down: Cli, local_aws: LocalAws) -> Iterator[Cli]:
    """The command where a stack is up, with real local AWS services."""
    down.home.claim()
    outputs = {"ModelsTableName": local_aws.models_table, "ModelBucketName": local_aws.bucket}
    down.home.publish(replace(local_stack("http://127.0.0.1:1"), aws_endpoint_url=local_aws.url, outputs=outputs))
    yield down
    down.home.release()


@pytest.fixture
def administering(down: Cli, local_aws: LocalAws) -> Iterator[Cli]:
    """The command where a stack is up, with the real stores of keys, tenants, usage, features and endpoints."""
    stores = local_aws.stack.resources
    tables = ("Keys", "Tenants", "Usage", "Features", "Endpoints", "Models", "Traffic")
    outputs = {f"{name}TableName": stores[f"{name}Table"].name for name in tables}
    outputs["KeyPepperArn"] = stores["KeyPepper"].name
    down.home.claim()
    down.home.publish(replace(local_stack("http://127.0.0.1:1"), aws_endpoint_url=local_aws.url, outputs=outputs))
    yield down
    down.home.release()


def local_stack(url: str) -> LocalStack:
    import os

    return LocalStack(
        api_url=url,
        api_key="sluice_local_key",
        admin_key="sluice_admin_key",
        container_url=url,
        grpc_target="127.0.0.1:1",
        aws_endpoint_url=url,
        sagemaker_runtime_url=url,
        websocket_url="",
        lambda_url=url,
        pid=os.getpid(),
        functions={"PredictFunction": "sluice-predict", "ApiFunction": "sluice-api"},
    )


def model_version(
    inputs: Sequence[TensorSpec] = (), outputs: Sequence[TensorSpec] = (), **changes: Any
) -> ModelVersion:
    """A published version; by default it takes 64 numbers, 8×8 numbers or an image."""
    image = TensorSpec(
        "pixels", DType.FP32, (None, 64), layouts=((8, 8),), content=Content.IMAGE, minimum=0.0, maximum=16.0
    )
    digit = TensorSpec("digit", DType.INT64, (None,))
    version = ModelVersion(
        model="digits",
        version=3,
        digest="d" * 64,
        files=(PackageFile("model.onnx", 1_234_567, "0" * 64),),
        signature=Signature(tuple(inputs) or (image,), tuple(outputs) or (digit,)),
        placement=Placement.FUNCTION,
        created_at="2026-11-20T10:00:00+00:00",
        metadata={
            "description": "Handwritten digits",
            "stage": "production",
            "metrics": {"accuracy": 0.975},
            "licence": "BSD-3-Clause",
        },
    )
    return replace(version, **changes)
