"""A small HTTP server that answers as SageMaker Runtime does (rest-json), with a model in Python behind it."""

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from shared.codecs.json_documents import JsonLimits
from shared.codecs.v2 import V2Request, V2Response, decode_request, encode_response, to_wire
from shared.domain.errors import SluiceError
from shared.domain.model import ModelVersion
from shared.domain.tensors import Tensors

BINARY = "application/vnd.sagemaker-triton.binary+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server sends back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def attributes(self) -> dict[str, str]:
        """The custom attributes, decoded independently of our own code."""
        text = self.headers["x-amzn-sagemaker-custom-attributes"]
        return {name: unquote(value) for name, _, value in (part.partition("=") for part in text.split(";"))}

    @property
    def request(self) -> V2Request:
        """The V2 request in the body."""
        size = re.fullmatch(re.escape(BINARY) + r";json-header-size=(\d+)", self.headers["content-type"])
        assert size is not None
        return decode_request(self.body, int(size[1]), JsonLimits())


Script = Callable[[Call], "Answer | None"]


class SageMakerServer:
    """Listens on a free port; `script` makes the answers, None closes the connection without one."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.script: Script = lambda _call: Answer(500, b"{}")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                call = Call(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                outer.calls.append(call)
                answer = outer.script(call)
                if answer is None:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST  # noqa: N815 - for S3, in whose place it may stand

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.02))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def sagemaker_error(status: int, code: str, **members: Any) -> Answer:
    """An error of SageMaker Runtime itself."""
    body = json.dumps({"Message": f"{code} happened", **members}).encode()
    return Answer(status, body, {"x-amzn-ErrorType": code, "Content-Type": "application/json"})


def model_error(status: int, body: str, message: str = "Received error from primary") -> Answer:
    """An error that the container answered."""
    return sagemaker_error(
        424, "ModelError", OriginalStatusCode=status, OriginalMessage=body, Message=message, LogStreamArn="arn"
    )


def problem(code: str, detail: str, **members: Any) -> str:
    """A problem document as the container writes it."""
    return json.dumps({"type": f"urn:sluice:problem:{code}", "code": code, "detail": detail, **members})


def answer_of(outputs: Tensors, version: ModelVersion, *, name: str | None = None, number: str | None = None) -> Answer:
    """A V2 answer with all tensors as binary."""
    dtypes = {spec.name: spec.dtype for spec in version.signature.outputs}
    response = V2Response(name or version.model, number or str(version.version), to_wire(outputs, dtypes))
    body, length = encode_response(response, binary=True)
    return Answer(200, body, {"Content-Type": f"{BINARY};json-header-size={length}"})


def container(version: ModelVersion, run: Callable[[ModelVersion, Tensors], Tensors]) -> Script:
    """The container with one model: `run` in place of a graph, its errors as problem documents."""

    def script(call: Call) -> Answer:
        inputs = {name: tensor.array for name, tensor in call.request.inputs.items()}
        try:
            return answer_of(run(version, inputs), version)
        except SluiceError as error:
            fields = [{"pointer": place.pointer, "detail": place.detail} for place in error.fields]
            return model_error(422, problem(error.code, error.detail, errors=fields))

    return script
