"""What backends are built from; free of botocore until one of them needs a client."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shared.adapters.backends.addresses import problem_with

if TYPE_CHECKING:
    from botocore.session import Session

    from shared.adapters.aws import Service
    from shared.adapters.secrets_manager import SecretText


def stack_is_local() -> bool:
    """Whether this process's AWS is on its own machine (`AWS_ENDPOINT_URL`), as with the local stack."""
    try:
        host = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "")).hostname
    except ValueError:
        return False
    return bool(host) and bool(problem_with(str(host), allow_loopback=False))


@dataclass(frozen=True, slots=True)
class Resources:
    """What a deployable shares with all its backends.

    `session` is the composition root's botocore session (None: a client gets one of its own), `connect_timeout_s`
    bounds every connection's making, `data_bucket` takes inputs and outputs of asynchronous invocations.
    `endpoint_urls` are addresses of AWS services in place of those that botocore finds by itself. Backends may have
    loopback addresses where `allow_loopback` says so: where the stack is local, unless it is given.
    """

    session: "Session | None" = None
    connect_timeout_s: float = 1.0
    data_bucket: str = ""
    endpoint_urls: Mapping[str, str] = field(default_factory=dict)
    allow_loopback: bool = field(default_factory=stack_is_local)

    def client(
        self,
        service: "Service",
        *,
        read_timeout: float = 5.0,
        connect_timeout: float | None = None,
        retries: int = 0,
        max_pool: int = 10,
    ) -> Any:
        """A botocore client on the shared session; see `shared.adapters.aws.client` for the arguments."""
        from shared.adapters.aws import client

        # A name that is known only here matches none of the overloads, which are there for those who name theirs.
        make: Any = client
        return make(
            service,
            session=self.session,
            endpoint_url=self.endpoint_urls.get(service),
            connect_timeout=self.connect_timeout_s if connect_timeout is None else connect_timeout,
            read_timeout=read_timeout,
            retries=retries,
            max_pool=max_pool,
        )

    def secret(self, secret_id: str) -> "SecretText":
        """A secret of Secrets Manager, fetched when it is first asked for."""
        from shared.adapters.secrets_manager import SecretText

        return SecretText(lambda: self.client("secretsmanager", read_timeout=2.0, retries=1), secret_id)
