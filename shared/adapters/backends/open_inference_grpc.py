"""`open-inference-grpc`: any server of the Open Inference Protocol (KServe, Triton, our container), over gRPC."""

import re
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta

from shared.adapters.backends.addresses import problem_with
from shared.adapters.backends.open_inference import MIB, ServerOptions, refuse

if TYPE_CHECKING:
    from shared.adapters.backends.resources import Resources
    from shared.domain.ports import Backend

_TARGET: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5})")


class Options(ServerOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Further options.

    `target` is `host:port`. With `tls` the server's certificate is checked against the public authorities. `authority`
    is the name that the server is asked by, where it is another than the host (an ingress that many models share).
    Requests and answers have at most `max_message_bytes`. After `keepalive_ms` of silence the connection is tried out,
    as long as a call is under way.
    """

    target: Annotated[str, Meta(max_length=300)]
    tls: bool = False
    authority: Annotated[str, Meta(max_length=253, pattern=r"^[A-Za-z0-9._:-]*$")] = ""
    max_message_bytes: Annotated[int, Meta(ge=1, le=256 * MIB)] = 32 * MIB
    keepalive_ms: Annotated[int, Meta(ge=10_000, le=7_200_000)] = 300_000

    def __post_init__(self) -> None:
        target = _TARGET.fullmatch(self.target)
        if target is None or not 0 < int(target["port"]) < 65_536:
            refuse("target", "must be host:port")
        self.check_headers(transport="grpc")
        self.check_secret(target["host"].strip("[]"), tls=self.tls)

    def check_address(self, *, allow_loopback: bool) -> None:
        """ValueError for a literal address that no backend may have; a name is resolved by gRPC, and not checked."""
        if problem := problem_with(self.target.rpartition(":")[0], allow_loopback=allow_loopback):
            refuse("target", problem)


def build(options: Options, resources: "Resources") -> "Backend":
    """The backend; it connects when it is first called."""
    from shared.adapters.backends.bearer import BearerToken
    from shared.adapters.backends.grpc_backend import OpenInferenceGrpc

    secret = options.bearer_secret
    return OpenInferenceGrpc(options, BearerToken(lambda: resources.secret(secret)) if secret else None)
