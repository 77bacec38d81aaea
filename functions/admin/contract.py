"""What the routes of the admin API say of themselves in the OpenAPI document."""

from typing import Any

from pydantic import BaseModel

from shared.domain import errors
from shared.web.contract import ADMISSION, IDEMPOTENCY_KEY, ONCE, SECURED, Responses, answers, reference
from shared.web.documents import query_parameters

_PARAMETERS = (errors.UnknownField, errors.MissingField, errors.WrongDtype, errors.TextTooLong, errors.OutOfRange)
_BODY = (errors.NotJson, errors.UnsupportedMediaType)
_CONDITIONS = (errors.PreconditionRequired, errors.PreconditionFailed)
_ETAG: dict[str, Any] = {
    "description": 'The revision in double quotes, such as `"3"`; `"0"` while nothing is stored.',
    "schema": {"type": "string"},
}
_PRECONDITIONS: list[dict[str, Any]] = [
    {
        "name": "If-Match",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "pattern": '^"?[0-9]{1,10}"?$'},
        "description": "The ETag of what is changed; needed unless `If-None-Match` is given or nothing is changed.",
    },
    {
        "name": "If-None-Match",
        "in": "header",
        "required": False,
        "schema": {"const": "*"},
        "description": "For an endpoint for which nothing is stored yet.",
    },
]


def described(
    operation_id: str,
    summary: str,
    meaning: str,
    schema: str | tuple[str, ...],
    *possible: type[errors.SluiceError],
    query: type[BaseModel] | None = None,
    body: str | None = None,
    body_required: bool = True,
    creates: bool = False,
    post: bool = False,
    revised: bool = False,
    conditional: bool = False,
) -> dict[str, Any]:
    """Arguments of `add_api_route`; `query` and `body` are what the route reads, `schema` what it answers.

    Of several schemas it is one. `creates`: the answer is a 201 with a Location. `post`: the route takes an
    `Idempotency-Key`. `revised`: the answer has an ETag. `conditional`: the route needs that of what it changes.
    """
    possible = (*possible, *(_CONDITIONS if conditional else ()))
    all_errors = (*ADMISSION, *_PARAMETERS, *(_BODY if body else ()), *(ONCE if post else ()), *possible)
    found = reference(schema) if isinstance(schema, str) else {"anyOf": [reference(name) for name in schema]}
    responses = answers(meaning, found, *all_errors)
    if revised:
        responses[200] = {**responses[200], "headers": {**responses[200]["headers"], "ETag": _ETAG}}
    extra: dict[str, Any] = dict(SECURED)
    if creates:
        responses = _as_created(responses)
    parameters = (query_parameters(query) if query else []) + ([IDEMPOTENCY_KEY] if post else [])
    parameters += _PRECONDITIONS if conditional else []
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
