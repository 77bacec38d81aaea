"""`open-inference-http`: any server of the Open Inference Protocol (KServe, Triton, our container), over HTTP."""

from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from shared.adapters.backends.addresses import problem_with
from shared.adapters.backends.open_inference import MIB, ServerOptions, refuse

if TYPE_CHECKING:
    from shared.adapters.backends.resources import Resources
    from shared.domain.ports import Backend


class Options(ServerOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Further options.

    `url` is where `/v2` begins: `http` or `https`, perhaps with a path, never with a credential. With `binary`, tensors
    travel in the protocol's binary extension, else as JSON. Requests and answers have at most `max_request_bytes` and
    `max_response_bytes`.
    """

    url: Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^https?://[\x21-\x7e]+$")]
    binary: bool = True
    max_request_bytes: Annotated[int, Meta(ge=1, le=256 * MIB)] = 32 * MIB
    max_response_bytes: Annotated[int, Meta(ge=1, le=256 * MIB)] = 32 * MIB

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, _port = parts.hostname, parts.port
        except ValueError:
            refuse("url", "is no URL")
        if not host:
            refuse("url", "names no host")
        if "@" in parts.netloc:
            refuse("url", "holds a credential: use bearer_secret")
        if parts.query or parts.fragment or "?" in self.url or "#" in self.url:
            refuse("url", "may have neither a query nor a fragment")
        self.check_headers(transport="http")
        self.check_secret(host, tls=parts.scheme == "https")

    def check_address(self, *, allow_loopback: bool) -> None:
        """ValueError for a literal address that no backend may have; names are checked when they are resolved."""
        if problem := problem_with(urlsplit(self.url).hostname or "", allow_loopback=allow_loopback):
            refuse("url", problem)


def build(options: Options, resources: "Resources") -> "Backend":
    """The backend; it connects when it is first called."""
    from shared.adapters.backends.bearer import BearerToken
    from shared.adapters.backends.http_backend import OpenInferenceHttp
    from shared.adapters.backends.http_connections import HttpConnections, Origin

    parts = urlsplit(options.url)
    tls = parts.scheme == "https"
    connections = HttpConnections(
        Origin(parts.hostname or "", parts.port or (443 if tls else 80), tls),
        connect_timeout_s=options.connect_timeout_ms / 1000,
        max_answer_bytes=options.max_response_bytes,
        allow_loopback=resources.allow_loopback,
    )
    secret = options.bearer_secret
    token = BearerToken(lambda: resources.secret(secret)) if secret else None
    return OpenInferenceHttp(options, connections, token)
