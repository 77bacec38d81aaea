"""What routes say of themselves in the OpenAPI document.

Routes name schemas of `shared.schemas.api` by reference instead of as FastAPI response models: the document is put
together once, by `infra.openapi`, and no answer pays for a second validation.
"""

from collections import defaultdict
from typing import Any

from shared.domain.errors import SluiceError
from shared.web.problems import MEDIA_TYPE, STATUS

Responses = dict[int | str, dict[str, Any]]
SECURITY_SCHEME = "bearer"
SECURED: dict[str, Any] = {"security": [{SECURITY_SCHEME: []}]}
_REQUEST_ID_HEADER = {
    "X-Request-Id": {"description": "The caller's, if it sent a well-formed one.", "schema": {"type": "string"}}
}


def reference(schema: str) -> dict[str, str]:
    """A reference to a schema of `shared.schemas.api`."""
    return {"$ref": f"#/components/schemas/{schema}"}


def answers(description: str, schema: dict[str, Any], *errors: type[SluiceError]) -> Responses:
    """The answers of a route: 200 with a document, and its errors grouped by status with their codes.

    Every route may also answer 500.
    """
    responses: Responses = {200: document(description, schema)}
    codes: defaultdict[int, list[str]] = defaultdict(list)
    possible: tuple[type[SluiceError], ...] = (*errors, SluiceError)
    for error in possible:
        codes[STATUS[error].value].append(error.code)
    for status in sorted(codes):
        responses[status] = {
            "description": "Problem: " + ", ".join(f"`{code}`" for code in codes[status]),
            "headers": _REQUEST_ID_HEADER,
            "content": {MEDIA_TYPE: {"schema": reference("Problem")}},
        }
    return responses


def document(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An answer that is a JSON document."""
    return {
        "description": description,
        "headers": _REQUEST_ID_HEADER,
        "content": {"application/json": {"schema": schema}},
    }
