"""Answers of the admin API, as they can be stored for a repeated request."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel

from functions.admin.queries import PageQuery
from shared.domain.idempotency import StoredAnswer

_JSON = ("Content-Type", "application/json")
# What an answer shows is for the caller alone, and for the moment: no cache on the way keeps it.
_PRIVATE = ("Cache-Control", "no-store")

ItemT = TypeVar("ItemT")


def answer(document: BaseModel | bytes, *headers: tuple[str, str]) -> StoredAnswer:
    """200 with a document, or the JSON of one."""
    return StoredAnswer(200, (_JSON, _PRIVATE, *headers), _encode(document))


def created(document: BaseModel, location: str) -> StoredAnswer:
    """201 with a document and where it is found from now on."""
    return StoredAnswer(201, (_JSON, _PRIVATE, ("Location", location)), _encode(document))


def page_of(items: Sequence[ItemT], query: PageQuery, name: Callable[[ItemT], str]) -> tuple[list[ItemT], str | None]:
    """The part of `items`, sorted by `name`, that a query asks for, and the token of the part after it.

    A token is the last name before that part, so what is added or removed meanwhile shifts nothing.
    """
    after = [item for item in items if name(item) > query.page]
    part = after[: query.limit]
    return part, name(part[-1]) if len(after) > len(part) else None


def _encode(document: BaseModel | bytes) -> bytes:
    return document if isinstance(document, bytes) else document.model_dump_json().encode()
