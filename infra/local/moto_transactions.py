"""Transactions of moto's DynamoDB at the price of what they write.

To be able to take a transaction back, moto copies the whole table of every item in it, one copy for each item. With
some hundred items in a table that takes a second, in which every other call of DynamoDB waits; and the audit trail
writes a transaction for every batch of log lines. What a transaction can change are the items that it names, so these
alone are kept here.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import Table


@cache
def install() -> None:
    """Give moto, in this process, transactions that keep what they name in place of whole tables."""
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import Table

    write = DynamoDBBackend.transact_write_items

    def transact_write_items(backend: "DynamoDBBackend", transact_items: list[dict[str, Any]]) -> None:
        kept = _Kept(backend, transact_items)
        try:
            write(backend, transact_items)
        except BaseException:
            kept.put_back()
            raise

    # moto's own copies, which it puts back first, become the tables themselves.
    Table.__deepcopy__ = lambda table, _memo: table  # type: ignore[attr-defined]
    DynamoDBBackend.transact_write_items = transact_write_items  # type: ignore[assignment, method-assign]


class _Kept:
    """The items that a transaction names as they were before it, and where the streams of their tables ended."""

    def __init__(self, backend: "DynamoDBBackend", transact_items: Sequence[Mapping[str, Any]]) -> None:
        self._items: list[tuple[Table, Any, Any, Any]] = []
        self._streams: dict[str, tuple[Any, int]] = {}
        for operation in (operation for item in transact_items for operation in item.values()):
            table = backend.tables.get(operation.get("TableName", ""))
            key = operation.get("Key") or operation.get("Item") or {}
            if table is None or not {table.hash_key_attr, table.range_key_attr or table.hash_key_attr} <= key.keys():
                continue  # moto refuses it
            self._keep(table, key)
            if table.stream_shard is not None:
                shard = table.stream_shard
                self._streams.setdefault(table.name, (shard, shard.starting_sequence_number + len(shard.items)))

    def _keep(self, table: "Table", key: Mapping[str, Any]) -> None:
        from moto.dynamodb.models.dynamo_type import DynamoType

        hash_value = DynamoType(key[table.hash_key_attr])
        found: Any = table.items.get(hash_value)
        range_value = None
        if table.range_key_attr:
            range_value = DynamoType(key[table.range_key_attr])
            found = (found or {}).get(range_value)
        # An update changes an item in place.
        self._items.append((table, hash_value, range_value, copy.deepcopy(found)))

    def put_back(self) -> None:
        """Undo what was written."""
        for table, hash_value, range_value, item in self._items:
            place: Any = table.items if range_value is None else table.items[hash_value]
            name = hash_value if range_value is None else range_value
            if item is None:
                place.pop(name, None)
            else:
                place[name] = item
        for shard, end in self._streams.values():
            # Its oldest records may have gone in the meantime.
            del shard.items[max(0, end - shard.starting_sequence_number) :]
