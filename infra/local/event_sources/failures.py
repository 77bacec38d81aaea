"""What a function's answer says of the items of its batch (`ReportBatchItemFailures`).

Source: "Implementing partial batch responses" of the Lambda developer guide: no list, or an empty one, means that all
is done; an answer that is not understood, or that names an item not in the batch, that all has failed.
"""

from collections.abc import Collection
from typing import Any

import msgspec


def failed_items(payload: bytes, identifiers: Collection[str]) -> frozenset[str]:
    """Those of `identifiers` (of a batch) that have failed; `payload` is the JSON that the function returned."""
    everything = frozenset(identifiers)
    try:
        answer = msgspec.json.decode(payload) if payload else None
    except msgspec.DecodeError:
        return everything
    if answer is None:
        return frozenset()
    listed: Any = answer.get("batchItemFailures") if isinstance(answer, dict) else "no object"
    if listed is None:
        return frozenset()
    if not isinstance(listed, list):
        return everything
    failed = [item.get("itemIdentifier") if isinstance(item, dict) else None for item in listed]
    known = frozenset(item for item in failed if isinstance(item, str) and item in everything)
    return known if all(isinstance(item, str) and item in everything for item in failed) else everything
