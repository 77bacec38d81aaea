"""Bytes that stand for a value and for no other one: every part has its length before it. For keys made by a hash."""

from collections.abc import Iterable, Mapping
from typing import Any


def of_size(size: int) -> bytes:
    """A whole number from 0 to 2⁶⁴ − 1: eight bytes."""
    return size.to_bytes(8, "little")


def of_text(text: str) -> bytes:
    """A text; lone surrogates are texts as well."""
    encoded = text.encode("utf-8", "surrogatepass")
    return of_size(len(encoded)) + encoded


def of_texts(texts: Iterable[str]) -> bytes:
    """Texts in their order."""
    encoded = [of_text(text) for text in texts]
    return of_size(len(encoded)) + b"".join(encoded)


def of_value(value: Any) -> bytes:
    """A JSON value, each kind with a letter of its own; the order of an object's names does not matter."""
    if isinstance(value, Mapping):
        items = sorted(value.items())
        return b"o" + of_size(len(items)) + b"".join(of_text(name) + of_value(item) for name, item in items)
    if isinstance(value, list | tuple):
        return b"l" + of_size(len(value)) + b"".join(map(of_value, value))
    kind = {str: b"s", bool: b"b", int: b"i", float: b"f", type(None): b"n"}[type(value)]
    return kind + of_text(value if isinstance(value, str) else repr(value))
