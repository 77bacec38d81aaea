"""What routes of several areas say of themselves in the OpenAPI document."""

from typing import Any, Final

from pydantic import Field

from shared.domain import errors
from shared.web.contract import ADMISSION, IDEMPOTENCY_KEY, ONCE, SECURED, Responses, answers, reference

_BODY: Final = (
    errors.NotJson,
    errors.UnsupportedMediaType,
    errors.UnknownField,
    errors.MissingField,
    errors.WrongDtype,
    errors.TextTooLong,
    errors.OutOfRange,
)


def takes_document(
    body: str, meaning: str, schema: str, *possible: type[errors.SluiceError], status: int
) -> dict[str, Any]:
    """Arguments of `add_api_route` for a POST of a document, with an `Idempotency-Key`; `status` is that of success."""
    responses = answers(meaning, reference(schema), *ADMISSION, *ONCE, *_BODY, *possible)
    content = {"application/json": {"schema": reference(body)}}
    return {
        "methods": ["POST"],
        "status_code": status,
        "responses": {status: responses.pop(200), **responses},
        "openapi_extra": {
            **SECURED,
            "parameters": [IDEMPOTENCY_KEY],
            "requestBody": {"required": True, "content": content},
        },
    }


def elsewhere(responses: Responses, meaning: str) -> dict[str, Any]:
    """The answer 303 to an address in S3, with the headers that the answer 200 has."""
    address = {"description": "Where it can be downloaded", "schema": {"type": "string", "format": "uri"}}
    return {"description": meaning, "headers": {**responses[200]["headers"], "Location": address}}


def of_cursor(form: str, example: str) -> Any:
    """What is told of the parameter `cursor` of a list, whose values are of such a form."""
    return Field(pattern=f"^{form}$", description="The `next` of the answer before", examples=[example])
