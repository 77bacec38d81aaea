"""What the two ways to a server of the Open Inference Protocol have in common: options, versions, names of metadata.

Free of NumPy and of every client: the admin API checks options with it.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final, Literal, NoReturn
from urllib.parse import quote

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from shared.domain.model import ModelVersion
    from shared.domain.ports import InferenceContext

MIB: Final = 1024 * 1024
# The names by which our container reads them (`gpu_service.inference.calls`); other servers pass them by.
DEADLINE: Final = "X-Sluice-Deadline-Ms"
REQUEST_ID: Final = "X-Request-Id"
TENANT: Final = "X-Sluice-Tenant"
PRIORITY: Final = "X-Sluice-Priority"
TRACEPARENT: Final = "traceparent"

# Parts of the names of headers that carry credentials.
_SECRET: Final = re.compile(r"key|token|secret|passw|cookie|auth|credential")
_OWN_NAMES: Final = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect"),
        *("inference-header-content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
        *("traceparent", "x-request-id"),
    }
)
_OWN_PREFIXES: Final = ("x-sluice-", "grpc-", ":")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,1022}[\x21-\x7e])?")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_MAX_VALUE: Final = 160


class ServerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of both kinds.

    `model` is the server's name of the model (empty: ours). `version` is what is asked for: `same` (ours), `none`, or
    a fixed text; an answer must name the version that was asked for. `headers` travel with every call; credentials have
    no place in them, and names that sound like one are refused: `bearer_secret` is the ARN of the secret in Secrets
    Manager that holds a bearer token.
    `send_timeout` tells the server the time left by the request parameter `timeout`, too (Triton: microseconds).
    """

    model: Annotated[str, Meta(max_length=256, pattern=r"^[^\x00-\x20\x7f/]*$")] = ""
    version: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")] = "same"
    headers: Annotated[dict[str, str], Meta(max_length=16)] = {}
    bearer_secret: Annotated[str, Meta(max_length=2048, pattern=r"^(arn:aws[a-z-]*:secretsmanager:.+)?$")] = ""
    connect_timeout_ms: Annotated[int, Meta(ge=10, le=10_000)] = 1_000
    send_timeout: bool = False

    def check_headers(self, *, transport: Literal["http", "grpc"]) -> None:
        """ValueError for a header that may not be set, with the place of it."""
        for name, value in self.headers.items():
            lower = name.lower()
            if not _HEADER_NAME.fullmatch(name):
                refuse("headers", f"the name {name[:64]!r} is none of a header")
            if found := _SECRET.search(lower):
                refuse("headers", f"{lower} may hold a secret (it says {found[0]!r}): use bearer_secret")
            if lower in _OWN_NAMES or lower.startswith(_OWN_PREFIXES) or (transport == "grpc" and lower == "host"):
                refuse("headers", f"{lower} is set for each call, and cannot be set here")
            if not _HEADER_VALUE.fullmatch(value) or lower.endswith("-bin"):
                refuse("headers", f"the value of {lower} must be 1 to 1024 printable ASCII characters")

    def check_secret(self, host: str, *, tls: bool) -> None:
        """ValueError for a token that would travel in the clear."""
        if self.bearer_secret and not tls and host not in _LOOPBACK:
            refuse("bearer_secret", "needs TLS: the token would travel in the clear")

    def server_model(self, version: "ModelVersion") -> str:
        """The server's name of the model."""
        return self.model or version.model

    def server_version(self, version: "ModelVersion") -> str:
        """The version to ask for, empty for none."""
        return {"same": str(version.version), "none": ""}.get(self.version, self.version)


def refuse(option: str, detail: str) -> NoReturn:
    """Raise the ValueError that msgspec reports for an option, in the form of its own messages."""
    raise ValueError(f"{detail} - at `$.{option}`")


def metadata_of(context: "InferenceContext", left_ms: int) -> dict[str, str]:
    """What travels beside the tensors, as visible ASCII."""
    sent = {DEADLINE: str(left_ms), REQUEST_ID: visible(context.request_id), TENANT: visible(context.tenant)}
    if context.traceparent:
        sent[TRACEPARENT] = visible(context.traceparent)
    if context.priority:
        sent[PRIORITY] = str(context.priority)
    return {name: text for name, text in sent.items() if text}


def visible(text: str) -> str:
    """A value for a header: percent-encoded (RFC 3986), and `sha256:<hex>` in place of more than 160 characters.

    Ordinary names stay as they are, and two different ones never become one.
    """
    encoded = quote(text, safe="-._~:/@", errors="surrogatepass")
    if len(encoded) <= _MAX_VALUE:
        return encoded
    return f"sha256:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def parameters_of(options: ServerOptions, left_ms: int) -> Mapping[str, int]:
    """Parameters of the request itself. Source: Triton Inference Server, "Schedule Policy Extension"."""
    return {"timeout": left_ms * 1000} if options.send_timeout else {}
