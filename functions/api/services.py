"""What the routes work with, and what every one of them begins with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from functions.api.documentation import Contract
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.idempotency import StoredAnswer
from shared.domain.ports import ModelRegistry
from shared.domain.principal import Principal
from shared.usecases.manage_jobs import ManageJobs
from shared.usecases.manage_webhooks import ManageWebhooks
from shared.usecases.uploads import Uploads
from shared.web.admission import Door

if TYPE_CHECKING:
    from functions.api.batches import Batches  # which begins with what is here

_JSON = ("Content-Type", "application/json")
# What an answer shows is for the caller alone, and for the moment: no cache on the way keeps it.
_PRIVATE = ("Cache-Control", "no-store")


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with: the catalogue's parts, and a field for each further area."""

    door: Door
    registry: ModelRegistry
    config_of: Callable[[str], EndpointConfig]
    contract: Contract
    batches: "Batches"
    jobs: ManageJobs
    uploads: Uploads
    webhooks: ManageWebhooks


def services_of(request: Request) -> Services:
    """The services of the application."""
    services: Services = request.app.state.services
    return services


async def serve(
    request: Request,
    work: Callable[[Principal, bytes], StoredAnswer],
    *,
    scopes: Sequence[str] = (),
    model: str = "",
    secret: bool = False,
) -> Response:
    """The answer of a route to an admitted caller; as `Door.serve` has it."""
    return await services_of(request).door.serve(request, work, scopes=scopes, model=model, secret=secret)


def answer(document: bytes, *headers: tuple[str, str], status: int = 200) -> StoredAnswer:
    """An answer with a JSON document that is for the caller alone."""
    return StoredAnswer(status, (_JSON, _PRIVATE, *headers), document)
