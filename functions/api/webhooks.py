"""Routes of webhooks: who is told of finished jobs and batches."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from functions.api import webhook_deliveries
from functions.api.webhook_answers import ONE, PATH, WebhookPath, described, document, note, serve_webhooks
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.domain.principal import Principal
from shared.schemas.webhooks import (
    SecretRotationRequest,
    WebhookChangeRequest,
    WebhookDocument,
    WebhookList,
    WebhookRequest,
    WebhookWithSecret,
)
from shared.usecases.manage_webhooks import ManageWebhooks, NewSecret
from shared.web.documents import read_document


def add_routes(routes: APIRouter) -> None:
    """Add them, with what they say of themselves in the OpenAPI document."""
    _add_webhooks(routes)
    webhook_deliveries.add_routes(routes)


def _add_webhooks(routes: APIRouter) -> None:
    unknown = errors.WebhookNotFound
    routes.add_api_route(
        PATH,
        create_webhook,
        methods=["POST"],
        **described(
            "createWebhook",
            "Be told of finished jobs and batches",
            "WebhookWithSecret",
            errors.Conflict,
            body="WebhookRequest",
            post=True,
            status=201,
        ),
    )
    routes.add_api_route(
        PATH, list_webhooks, methods=["GET"], **described("listWebhooks", "The tenant's webhooks", "WebhookList")
    )
    routes.add_api_route(
        ONE, get_webhook, methods=["GET"], **described("getWebhook", "A webhook", "WebhookDocument", unknown)
    )
    routes.add_api_route(
        ONE,
        change_webhook,
        methods=["PATCH"],
        **described(
            "changeWebhook", "Change a webhook, or switch it", "WebhookDocument", unknown, body="WebhookChangeRequest"
        ),
    )
    routes.add_api_route(
        ONE,
        delete_webhook,
        methods=["DELETE"],
        **described("deleteWebhook", "Delete a webhook", "WebhookDocument", unknown),
    )
    routes.add_api_route(
        f"{ONE}/rotate",
        rotate_webhook,
        methods=["POST"],
        **described(
            "rotateWebhook",
            "Give a webhook a new secret",
            "WebhookWithSecret",
            unknown,
            errors.Conflict,
            body="SecretRotationRequest",
            body_required=False,
            post=True,
        ),
    )


async def create_webhook(request: Request) -> Response:
    """A new webhook of the caller's tenant. The answer holds its secret, which is shown this once."""

    def work(webhooks: ManageWebhooks, principal: Principal, body: bytes) -> StoredAnswer:
        wanted = read_document(WebhookRequest, body, request.scope)
        made = webhooks.create(principal.tenant, wanted.url, wanted.events, wanted.description)
        note(request, made.webhook.webhook_id)
        return _shown(made, ("Location", f"{PATH}/{made.webhook.webhook_id}"), status=201)

    return await serve_webhooks(request, work, secret=True)


async def list_webhooks(request: Request) -> Response:
    """All of them, without their secrets."""

    def work(webhooks: ManageWebhooks, principal: Principal, _body: bytes) -> StoredAnswer:
        return document(WebhookList(webhooks=tuple(map(WebhookDocument.of, webhooks.list(principal.tenant)))))

    return await serve_webhooks(request, work)


async def get_webhook(request: Request, webhook_id: WebhookPath) -> Response:
    """A webhook, without its secret."""

    def work(webhooks: ManageWebhooks, principal: Principal, _body: bytes) -> StoredAnswer:
        return document(WebhookDocument.of(webhooks.get(principal.tenant, webhook_id)))

    return await serve_webhooks(request, work, webhook_id)


async def change_webhook(request: Request, webhook_id: WebhookPath) -> Response:
    """What is not named stays. Events that are on their way go to the new address."""

    def work(webhooks: ManageWebhooks, principal: Principal, body: bytes) -> StoredAnswer:
        wanted = read_document(WebhookChangeRequest, body, request.scope)
        return document(WebhookDocument.of(webhooks.change(principal.tenant, webhook_id, wanted.to_change())))

    return await serve_webhooks(request, work, webhook_id)


async def delete_webhook(request: Request, webhook_id: WebhookPath) -> Response:
    """Delete a webhook and its secrets; what is on its way is not sent."""

    def work(webhooks: ManageWebhooks, principal: Principal, _body: bytes) -> StoredAnswer:
        return document(WebhookDocument.of(webhooks.remove(principal.tenant, webhook_id)))

    return await serve_webhooks(request, work, webhook_id)


async def rotate_webhook(request: Request, webhook_id: WebhookPath) -> Response:
    """A new secret, shown this once; requests are signed with the old one as well until the overlap is over (a day)."""

    def work(webhooks: ManageWebhooks, principal: Principal, body: bytes) -> StoredAnswer:
        wanted = read_document(SecretRotationRequest, body, request.scope, optional=True)
        return _shown(webhooks.rotate(principal.tenant, webhook_id, wanted.overlap_s))

    return await serve_webhooks(request, work, webhook_id, secret=True)


def _shown(made: NewSecret, *headers: tuple[str, str], status: int = 200) -> StoredAnswer:
    return document(WebhookWithSecret.showing(made.webhook, made.text), *headers, status=status)
