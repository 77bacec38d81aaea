"""Media types in headers, and the choice among them. Source: RFC 9110, sections 5.6 and 12.4 to 12.5."""

import re
from collections.abc import Iterable, Sequence

_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_MAX_HEADER = 4096
_MAX_ITEMS = 64


def parse_item(text: str) -> tuple[str, dict[str, str]]:
    """The value in lower case, and its parameters by names in lower case; of a name given twice the first counts."""
    value, *rest = text.split(";")
    parameters: dict[str, str] = {}
    for part in rest:
        name, equals, content = part.partition("=")
        content = content.strip()
        if len(content) > 1 and content[0] == content[-1] == '"':
            content = content[1:-1]
        if equals:
            parameters.setdefault(name.strip().lower(), content)
    return value.strip().lower(), parameters


def parse_list(header: str) -> list[tuple[str, dict[str, str], float]]:
    """The items of a list header with their parameters and qualities; of an item with a wrong quality, it is 0.

    What a header holds beyond 4,096 characters or 64 items is not read: no client needs it.
    """
    items: list[tuple[str, dict[str, str], float]] = []
    for part in header[:_MAX_HEADER].split(",")[:_MAX_ITEMS]:
        value, parameters = parse_item(part)
        if value:
            quality = parameters.pop("q", "1")
            items.append((value, parameters, float(quality) if _QUALITY.fullmatch(quality) else 0.0))
    return items


def media_quality(known: str, ranges: Iterable[tuple[str, dict[str, str], float]]) -> tuple[float, int]:
    """The quality of a media type by the most precise range that fits, and how precise that is: 0 to 2, -1 if none."""
    best = (0.0, -1)
    for value, _, quality in ranges:
        if value == known:
            precision = 2
        elif value.endswith("/*") and known.startswith(value[:-1]):
            precision = 1
        elif value == "*/*":
            precision = 0
        else:
            continue
        if precision > best[1]:
            best = (quality, precision)
    return best


def choose_media_type(accept: str, known: Sequence[str]) -> str | None:
    """The media type of `known` that `accept` likes best, None if it allows none.

    Among equals a type that is named wins over one that a wildcard allows, then the first of `known`.
    """
    ranges = parse_list(accept)
    if not ranges:
        return known[0]
    ranked = [(*media_quality(media_type, ranges), -position) for position, media_type in enumerate(known)]
    quality, _, position = max(ranked)
    return known[-position] if quality > 0 else None
