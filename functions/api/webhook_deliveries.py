"""Routes of deliveries: what was sent to webhooks."""

from typing import Annotated, Final

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from functions.api.contract import of_cursor
from functions.api.webhook_answers import ONE, PATH, WebhookPath, described, document, serve_webhooks
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.domain.principal import Principal
from shared.domain.webhooks import DELIVERY_ID, MAX_PAGE
from shared.schemas.webhooks import DeliveryDocument, DeliveryList
from shared.usecases.manage_webhooks import ManageWebhooks
from shared.web.documents import read_query

_DELIVERIES: Final = f"{ONE}/deliveries"
_DELIVERY: Final = f"{_DELIVERIES}/{{delivery_id}}"

DeliveryPath = Annotated[str, Path(description="Id of a delivery, which is the `webhook-id` of its requests")]


class DeliveriesQuery(BaseModel):
    """Which part of a webhook's log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE, description="Most deliveries of the answer")] = 20
    cursor: Annotated[str | None, of_cursor(DELIVERY_ID, "msg_019a0c2b1f7e4d3c2b1a09f8e7d6c5b4")] = None


def add_routes(routes: APIRouter) -> None:
    """Add the routes of this module."""
    unknown = errors.WebhookNotFound
    routes.add_api_route(
        f"{ONE}/test",
        test_webhook,
        methods=["POST"],
        **described("testWebhook", "Send a test event", "DeliveryDocument", unknown, post=True, status=202),
    )
    routes.add_api_route(
        _DELIVERIES,
        list_deliveries,
        methods=["GET"],
        **described("listDeliveries", "What was sent to a webhook", "DeliveryList", unknown, query=DeliveriesQuery),
    )
    routes.add_api_route(
        _DELIVERY,
        get_delivery,
        methods=["GET"],
        **described("getDelivery", "What came of an event", "DeliveryDocument", unknown),
    )
    routes.add_api_route(
        f"{_DELIVERY}/redeliver",
        redeliver,
        methods=["POST"],
        **described(
            "redeliver", "Send an event again", "DeliveryDocument", unknown, errors.Conflict, post=True, status=202
        ),
    )


async def test_webhook(request: Request, webhook_id: WebhookPath) -> Response:
    """The event `webhook.test` is sent once, to a webhook that is off, too; `Location` has what came of it."""

    def work(webhooks: ManageWebhooks, principal: Principal, _body: bytes) -> StoredAnswer:
        return _accepted(DeliveryDocument.of(webhooks.test(principal.tenant, webhook_id)))

    return await serve_webhooks(request, work, webhook_id)


async def list_deliveries(request: Request, webhook_id: WebhookPath) -> Response:
    """The last 30 days, the newest first, with every attempt."""

    def work(webhooks: ManageWebhooks, principal: Principal, _body: bytes) -> StoredAnswer:
        query = read_query(DeliveriesQuery, request.scope)
        page = webhooks.log(principal.tenant, webhook_id, limit=query.limit, after=query.cursor)
        return document(DeliveryList(deliveries=tuple(map(DeliveryDocument.of, page.deliveries)), next=page.cursor))

    return await serve_webhooks(request, work, webhook_id)


async def get_delivery(request: Request, webhook_id: WebhookPath, delivery_id: DeliveryPath) -> Response:
    """One delivery with its attempts."""

    def work(webhooks: ManageWebhooks, principal: Principal, _body: bytes) -> StoredAnswer:
        return document(DeliveryDocument.of(webhooks.delivery(principal.tenant, webhook_id, delivery_id)))

    return await serve_webhooks(request, work, webhook_id)


async def redeliver(request: Request, webhook_id: WebhookPath, delivery_id: DeliveryPath) -> Response:
    """Now, and by the schedule from its beginning if it fails; the `webhook-id` stays the same."""

    def work(webhooks: ManageWebhooks, principal: Principal, _body: bytes) -> StoredAnswer:
        return _accepted(DeliveryDocument.of(webhooks.redeliver(principal.tenant, webhook_id, delivery_id)))

    return await serve_webhooks(request, work, webhook_id)


def _accepted(delivery: DeliveryDocument) -> StoredAnswer:
    location = f"{PATH}/{delivery.webhook_id}/deliveries/{delivery.delivery_id}"
    return document(delivery, ("Location", location), ("Retry-After", "1"), status=202)
