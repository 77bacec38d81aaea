"""What the routes of the admin API say of themselves in the OpenAPI document."""

from typing import Any

from pydantic import BaseModel

from shared.domain import errors
from shared.web.contract import ADMISSION, IDEMPOTENCY_KEY, ONCE, SECURED, Responses, answers, reference
from shared.web.documents import query_parameters

_PARAMETERS = (errors.UnknownField, errors.MissingField, errors.WrongDtype, errors.TextTooLong, errors.OutOfRange)
_BODY = (errors.NotJson, errors.UnsupportedMediaType)


def described(
    operation_id: str,
    summary: str,
    meaning: str,
    schema: str,
    *possible: type[errors.SluiceError],
    query: type[BaseModel] | None = None,
    body: str | None = None,
    body_required: bool = True,
    creates: bool = False,
    post: bool = False,
) -> dict[str, Any]:
    """Arguments of `add_api_route`; `query` and `body` are what the route reads, `schema` what it answers.

    `creates`: the answer is a 201 with a Location. `post`: the route takes an `Idempotency-Key`.
    """
    all_errors = (*ADMISSION, *_PARAMETERS, *(_BODY if body else ()), *(ONCE if post else ()), *possible)
    responses = answers(meaning, reference(schema), *all_errors)
    extra: dict[str, Any] = dict(SECURED)
    if creates:
        responses = _as_created(responses)
    parameters = (query_parameters(query) if query else []) + ([IDEMPOTENCY_KEY] if post else [])
    if parameters:
        extra["parameters"] = parameters
    if body:
        content = {"application/json": {"schema": reference(body)}}
        extra["requestBody"] = {"required": body_required, "content": content}
    return {
        "operation_id": operation_id,
        "summary": summary,
        "tags": ["administration"],
        "status_code": 201 if creates else 200,
        "responses": responses,
        "openapi_extra": extra,
    }


def _as_created(responses: Responses) -> Responses:
    made = dict(responses)
    done = made.pop(200)
    location = {"description": "Path of what was created", "schema": {"type": "string"}}
    return {201: {**done, "headers": {**done["headers"], "Location": location}}, **made}
