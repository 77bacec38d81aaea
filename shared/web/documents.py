"""JSON documents in request bodies and query strings, read with Pydantic; what is wrong has its JSON pointer."""

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.types import Scope

from shared.domain import errors
from shared.domain.errors import pointer
from shared.schemas.refusals import check_json, refusal
from shared.web.requests import header

# Far over any document of ours, far under what takes time to read.
MAX_BYTES = 64 * 1024
_JSON = re.compile(r"application/([a-z0-9!#$&^_.-]+\+)?json( *; *charset=\"?utf-8\"?)? *", re.IGNORECASE)

DocumentT = TypeVar("DocumentT", bound=BaseModel)


def read_document(model: type[DocumentT], body: bytes, scope: Scope, *, optional: bool = False) -> DocumentT:
    """The document in a body; nothing is converted, so `"5"` is no number. `optional`: an empty body is `{}`.

    Raises UnsupportedMediaType, PayloadTooLarge, NotJson, and for faulty fields UnknownField, MissingField, WrongDtype,
    TextTooLong or OutOfRange (that of the first one).
    """
    check_body(body, scope)
    if optional and not body.strip():
        body = b"{}"
    try:
        document = model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise refusal(error.errors(include_url=False, include_input=False), model=model) from None
    check_json(body)  # the parser above keeps the last of two members
    return document


def read_query(model: type[DocumentT], scope: Scope) -> DocumentT:
    """The parameters of a query string, texts converted to what the model says. Raises as `read_document`."""
    from starlette.datastructures import QueryParams

    given = QueryParams(scope["query_string"]).multi_items()
    names = [name for name, _ in given]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise errors.UnknownField.at(pointer("/query", min(repeated)), "is given twice")
    try:
        return model.model_validate_strings(dict(given))
    except ValidationError as error:
        raise refusal(error.errors(include_url=False, include_input=False), "/query", model) from None


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The parameters of a query string for the OpenAPI document."""
    schema = model.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": _parameter_schema(own),
            **({"description": own["description"]} if "description" in own else {}),
        }
        for name, own in schema["properties"].items()
    ]


def _parameter_schema(own: dict[str, Any]) -> dict[str, Any]:
    """The schema of a member as one of a parameter, which is left out instead of being null."""
    schema = {key: value for key, value in own.items() if key not in {"title", "description"}}
    if "anyOf" in schema:
        examples = {"examples": schema["examples"]} if "examples" in schema else {}
        (form,) = (form for form in schema["anyOf"] if form != {"type": "null"})
        return {**form, **examples}
    return schema


def check_body(body: bytes, scope: Scope) -> None:
    """Whether a body may be one of our documents. Raises UnsupportedMediaType, PayloadTooLarge."""
    _check_content_type(scope)
    if len(body) > MAX_BYTES:
        raise errors.PayloadTooLarge(f"The body has {len(body)} bytes; the limit is {MAX_BYTES}.")


def _check_content_type(scope: Scope) -> None:
    """A body without a type is taken for JSON, the only type that these routes read."""
    if (coding := header(scope, b"content-encoding")) and coding.strip().lower() != "identity":
        raise errors.UnsupportedMediaType(f"This route reads bodies as they are, not with the coding {coding[:100]!r}.")
    content_type = header(scope, b"content-type")
    if content_type and not _JSON.fullmatch(content_type):
        raise errors.UnsupportedMediaType(f"This route reads application/json in UTF-8, not {content_type[:100]!r}.")
