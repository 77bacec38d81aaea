"""What the routes work with, and what every one of them begins with."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from shared.domain.idempotency import StoredAnswer
from shared.domain.principal import Principal
from shared.usecases.manage_endpoints import ManageEndpoints
from shared.usecases.manage_features import ManageFeatures
from shared.usecases.manage_keys import ManageKeys
from shared.usecases.manage_tenants import ManageTenants
from shared.usecases.read_traffic import ReadTraffic
from shared.web.admission import Door
from shared.web.requests import record_of

SCOPE = "admin"


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with; `now` gives seconds since 1970."""

    door: Door
    keys: ManageKeys
    tenants: ManageTenants
    endpoints: ManageEndpoints
    features: ManageFeatures
    traffic: ReadTraffic
    now: Callable[[], float]


def services_of(request: Request) -> Services:
    """The services of the application."""
    services: Services = request.app.state.services
    return services


async def serve(request: Request, work: Callable[[bytes], StoredAnswer], *, secret: bool = False) -> Response:
    """The answer of a route for administrators; nothing of the request is read for anybody else.

    `secret`: the answer shows what must not be stored in the clear.
    """
    return await serve_as(request, lambda _, body: work(body), secret=secret)


async def serve_as(
    request: Request, work: Callable[[Principal, bytes], StoredAnswer], *, secret: bool = False
) -> Response:
    """As `serve`, for work that has to know who asks."""
    return await services_of(request).door.serve(request, work, scopes=(SCOPE,), secret=secret)


def changes(request: Request, target: str) -> None:
    """Note in the request's log line, and so in the audit trail, what it is about to change."""
    record_of(request.scope).log["target"] = target
