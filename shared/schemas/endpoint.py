"""Documents of endpoint configurations, validated against the dataclasses of `shared.domain.endpoint.config`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, Self

import msgspec
from annotated_types import Ge, Le, Len
from pydantic import Field, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from shared.domain import errors
from shared.domain.admin_bounds import MAX_NOTE
from shared.domain.endpoint.changes import Change
from shared.domain.endpoint.config import EndpointConfig, StoredEndpoint
from shared.schemas.admin import AdminDocument, NextPage, timestamp
from shared.schemas.refusals import check_json, refusal

# A stored configuration has to fit into an item of DynamoDB (400 KB) twice over.
MAX_BYTES = 64 * 1024

Note = Annotated[str, Field(max_length=MAX_NOTE, description="Why, in the words of who changes it")]
_READ_ONLY = ("revision", "changed_at", "changed_by", "note")


@dataclass(frozen=True, slots=True)
class EndpointDocument(EndpointConfig):
    """The configuration of an endpoint. What is left out has its default.

    Of a document that is sent, `endpoint` may be left out, and `revision`, `changed_at`, `changed_by` and `note` are
    not read: what was got can be sent back.
    """

    endpoint: Annotated[str, Len(0, 64)] = ""
    """Name of the endpoint, which is that of its model."""
    revision: Annotated[int, Ge(0), Le(10**9)] = 0
    """Counts the changes from 1; 0 was never stored."""
    changed_at: Annotated[str, Len(0, 64)] | None = None
    """When it was changed, as RFC 3339 has it."""
    changed_by: Annotated[str, Len(0, 2048)] = ""
    """Id of the key behind the change."""
    note: Annotated[str, Len(0, MAX_NOTE)] = ""
    """Why it was changed."""

    @classmethod
    def of(cls, stored: StoredEndpoint) -> Self:
        """The document of a domain value."""
        return cls(
            **_members(stored.config),
            revision=stored.revision,
            changed_at=timestamp(stored.changed_at) if stored.revision else None,
            changed_by=stored.changed_by,
            note=stored.note,
        )

    def to_config(self, endpoint: str) -> EndpointConfig:
        """The domain's value; OutOfRange if the document is that of another endpoint."""
        if self.endpoint not in {"", endpoint}:
            raise errors.OutOfRange.at("/endpoint", f"is not {endpoint!r}, the endpoint that is to be changed")
        return EndpointConfig(**{**_members(self), "endpoint": endpoint})

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic's own, with the descriptions that stand with the fields of the base class."""
        made = handler.resolve_ref_schema(handler(schema))
        described = TypeAdapter(EndpointConfig).json_schema()["properties"]
        for name, own in made["properties"].items():
            if "description" in described.get(name, {}):
                own.setdefault("description", described[name]["description"])
            if name in _READ_ONLY:
                own["readOnly"] = True
        return made


class ChangeDocument(AdminDocument):
    """One line of a plan, such as `~ timeout_ms: 29000 -> 1000`."""

    kind: Literal["add", "remove", "change"]
    path: Annotated[str, Field(description="Where, such as `variants[candidate].weight`")]
    before: Annotated[Any, Field(description="The value as it is; null where there is none")]
    after: Annotated[Any, Field(description="The value as it will be; null where there is none")]
    text: Annotated[str, Field(description="The line as people read it")]

    @classmethod
    def of(cls, change: Change) -> Self:
        """The document of a domain value."""
        return cls(kind=change.kind, path=change.path, before=change.before, after=change.after, text=str(change))


class EndpointPlan(AdminDocument):
    """What a change would do; nothing was changed."""

    revision: Annotated[int, Field(ge=0, description="The revision in force, which the plan is for")]
    changes: Annotated[list[ChangeDocument], Field(description="None: the configuration is as it is asked for")]


class EndpointList(AdminDocument):
    """Endpoints for which something is stored, by name."""

    endpoints: list[EndpointDocument]
    next: NextPage


class EndpointHistory(AdminDocument):
    """Revisions of an endpoint, the newest first; the last hundred are kept."""

    revisions: list[EndpointDocument]
    next: NextPage


class RollbackRequest(AdminDocument):
    """To which revision; it becomes a new one with the same content."""

    revision: Annotated[int, Field(ge=1, le=10**9)]
    note: Note = ""


class TrafficRequest(AdminDocument):
    """Shares of the traffic, from 0 to 1, by version, label or variant; what is left goes to the others as before."""

    shares: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=32)], Annotated[float, Field(ge=0, le=1)]],
        Field(min_length=1, max_length=16),
    ]
    note: Note = ""


def read_config(document: Any, endpoint: str) -> EndpointConfig:
    """The configuration in a document: JSON as bytes or text, or the value that JSON, YAML or the like stands for.

    Nothing is converted, so `"5"` is no number. What must hold between fields is not checked here. Raises NotJson,
    PayloadTooLarge (more than 64 KB), and for faulty members UnknownField, MissingField, WrongDtype, TextTooLong or
    OutOfRange (that of the first one).
    """
    text = document if isinstance(document, bytes | str) else _encoded(document)
    size = len(text.encode()) if isinstance(text, str) else len(text)
    if size > MAX_BYTES:
        raise errors.PayloadTooLarge(f"The configuration has {size} bytes; the limit is {MAX_BYTES}.")
    try:
        read = _adapter().validate_json(text, strict=True)
    except ValidationError as error:
        raise refusal(error.errors(include_url=False, include_input=False)) from None
    check_json(text)
    return read.to_config(endpoint)


def to_document(config: EndpointConfig) -> dict[str, Any]:
    """A configuration as JSON has it, all defaults included."""
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    return document


def encoded(document: EndpointDocument) -> bytes:
    """The bytes of an answer."""
    return msgspec.json.encode(document)


def plan_of(revision: int, changes: Sequence[Change]) -> EndpointPlan:
    """The document of a plan for the revision in force."""
    return EndpointPlan(revision=revision, changes=[ChangeDocument.of(change) for change in changes])


@cache  # made when it is first needed: it takes a tenth of a second
def _adapter() -> TypeAdapter[EndpointDocument]:
    return TypeAdapter(EndpointDocument)


def _members(config: EndpointConfig) -> Mapping[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(EndpointConfig)}


def _encoded(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise errors.NotJson("The configuration has what JSON has not, such as a date or an infinite number.") from None
