"""Routes of uploads: content that is larger than the gateway takes goes to S3 by itself."""

from typing import Annotated, Final

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from functions.api.contract import takes_document
from functions.api.services import answer, serve, services_of
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.domain.principal import Principal
from shared.schemas.uploads import CreatedUpload, UploadDocument, UploadRequest
from shared.web.contract import ADMISSION, SECURED, answers, reference
from shared.web.documents import read_document
from shared.web.requests import record_of

PATH: Final = "/v1/uploads"
UploadPath = Annotated[str, Path(description="Id of an upload")]


def add_routes(routes: APIRouter) -> None:
    """Add the routes of this module."""
    routes.add_api_route(
        PATH,
        create_upload,
        operation_id="createUpload",
        summary="An address that takes a content once, straight to storage",
        tags=["uploads"],
        **takes_document("UploadRequest", "Where the content goes to.", "CreatedUpload", status=201),
    )
    routes.add_api_route(
        f"{PATH}/{{upload_id}}",
        get_upload,
        methods=["GET"],
        operation_id="getUpload",
        summary="An upload whose content has arrived",
        tags=["uploads"],
        responses=answers("The upload.", reference("UploadDocument"), *ADMISSION, errors.UploadNotFound),
        openapi_extra=SECURED,
    )


async def create_upload(request: Request) -> Response:
    """The content is sent to `url` with the headers of the answer, which are part of the address's signature.

    Another size, type or checksum is refused there, and so is a second PUT.
    """

    def work(principal: Principal, body: bytes) -> StoredAnswer:
        new = read_document(UploadRequest, body, request.scope).to_new()
        address = services_of(request).uploads.create(principal, new)
        record_of(request.scope).log["target"] = f"upload:{address.upload_id}"
        document = CreatedUpload.of(address).model_dump_json().encode()
        return answer(document, ("Location", f"{PATH}/{address.upload_id}"), status=201)

    return await serve(request, work)


async def get_upload(request: Request, upload_id: UploadPath) -> Response:
    """Found once its content is there. One that was never there, or is another tenant's, is not."""

    def work(principal: Principal, _body: bytes) -> StoredAnswer:
        found = services_of(request).uploads.get(principal, upload_id)
        return answer(UploadDocument.of(found).model_dump_json().encode())

    return await serve(request, work)
