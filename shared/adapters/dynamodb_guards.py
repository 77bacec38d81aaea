"""What protects backends across environments, in a DynamoDB table: an item for each endpoint, partition key `endpoint`.

`open:<circuit>` (N) is until when a circuit is open, `slot:<pool>:<i>` (N) until when a place is taken, both in seconds
since 1970; a time that has passed means nothing any more. Every operation is one UpdateItem with a condition, so none
of them undoes what another environment does at the same moment.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from random import SystemRandom
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.domain.ports import Lease

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_WHAT: Final = "The store of circuits and places"
_OPEN: Final = "open:"
_SLOT: Final = "slot:"
_ATTEMPTS: Final = 3
# The item goes once nobody has used it for a day: DynamoDB deletes up to two days late anyway.
_KEEP_S: Final = 86_400
# What ended that long ago is removed when the item is seen whole; clocks differ by less.
_STALE_S: Final = 60.0
_MOST_SWEPT: Final = 64
# One of so many places is taken with an eye on the whole item.
_LOOK_EVERY: Final = 64
_MOST_ENDPOINTS: Final = 256

Times = Mapping[str, float]


class DynamoDBGuards:
    """Implements `shared.domain.ports.GuardStore`; safe for threads, raises BackendError as `aws_errors` does.

    `pick(n)` is a random number below n; the system's generator, since copies of one snapshot would all pick the same.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        now: Callable[[], float] = time,
        pick: Callable[[int], int] | None = None,
    ) -> None:
        self._client = client
        self._table = table
        self._now = now
        self._pick = pick or SystemRandom().randrange
        self._seen = _Seen()

    def open(self, endpoint: str, circuit: str, until: float) -> None:
        """One UpdateItem; nothing changes where the circuit is open for longer already."""
        _, item = self._update(
            endpoint,
            {
                "UpdateExpression": "SET #a = :until, expires_at = :end",
                "ConditionExpression": "attribute_not_exists(#a) OR #a < :until",
                "ExpressionAttributeNames": {"#a": _OPEN + circuit},
                "ExpressionAttributeValues": {":until": _number(until), ":end": _whole(max(until, self._now()))},
            },
        )
        self._sweep(endpoint, item)

    def close(self, endpoint: str, circuit: str) -> None:
        """One UpdateItem that removes the circuit, if it is there."""
        _, item = self._update(
            endpoint,
            {
                "UpdateExpression": "REMOVE #a",
                "ConditionExpression": "attribute_exists(#a)",
                "ExpressionAttributeNames": {"#a": _OPEN + circuit},
            },
        )
        self._sweep(endpoint, item)

    def acquire(self, endpoint: str, pool: str, slots: int, expires_at: float, now: float) -> Lease | None:
        """A place that was thought free, by one UpdateItem as a rule; where it was not, that told which ones are.

        None if all were taken when the item was seen, or others were faster three times.
        """
        names = [f"{_SLOT}{pool}:{slot}" for slot in range(slots)]
        # Told from others by its microseconds: only who has taken a place gives it back.
        until = round(expires_at, 3) + self._pick(1000) / 1e6
        look = self._seen.wants_whole(endpoint)
        taken = self._seen.times(endpoint)
        for attempt in range(_ATTEMPTS):
            free = [slot for slot, name in enumerate(names) if taken.get(name, 0.0) < now]
            if not free and attempt:
                return None
            slot = free[self._pick(len(free))] if free else self._pick(slots)
            passed, item = self._update(
                endpoint,
                {
                    "UpdateExpression": "SET #a = :until, expires_at = :end",
                    "ConditionExpression": "attribute_not_exists(#a) OR #a < :now",
                    "ExpressionAttributeNames": {"#a": names[slot]},
                    "ExpressionAttributeValues": {
                        ":until": _number(until),
                        ":now": _number(now),
                        ":end": _whole(max(until, now)),
                    },
                },
                whole=look,
            )
            if look or not passed:
                taken = self._seen.learn(endpoint, item)
            if passed:
                self._seen.note(endpoint, names[slot], until)
                if look:
                    self._sweep(endpoint, item)
                return Lease(endpoint, pool, slot, until)
        return None

    def release(self, lease: Lease) -> None:
        """One UpdateItem on the condition that the place is still this one's."""
        name = f"{_SLOT}{lease.pool}:{lease.slot}"
        passed, item = self._update(
            lease.endpoint,
            {
                "UpdateExpression": "REMOVE #a",
                "ConditionExpression": "#a = :mine",
                "ExpressionAttributeNames": {"#a": name},
                "ExpressionAttributeValues": {":mine": _number(lease.expires_at)},
            },
            whole=False,
        )
        if passed:
            self._seen.note(lease.endpoint, name, None)
        else:
            self._seen.learn(lease.endpoint, item)

    def _sweep(self, endpoint: str, item: Times) -> None:
        """Remove what ended long ago, unless somebody has just taken it up again: then it is left for another time."""
        before = self._now() - _STALE_S
        ended = [name for name, until in item.items() if until < before][:_MOST_SWEPT]
        if not ended:
            return
        names = {f"#n{i}": name for i, name in enumerate(ended)}
        self._update(
            endpoint,
            {
                "UpdateExpression": "REMOVE " + ", ".join(names),
                "ConditionExpression": " AND ".join(f"{name} < :before" for name in names),
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": {":before": _number(before)},
            },
            whole=False,
        )

    def _update(self, endpoint: str, request: Mapping[str, Any], *, whole: bool = True) -> tuple[bool, Times]:
        """Whether the condition held; and all times in the item as it is then, but none if it held and not `whole`."""
        with aws_errors(_WHAT):
            try:
                answer = self._client.update_item(
                    TableName=self._table,
                    Key={"endpoint": {"S": endpoint}},
                    ReturnValues="ALL_NEW" if whole else "NONE",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **request,
                )
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                old: Mapping[str, Any] = error.response.get("Item", {})  # type: ignore[assignment]
                return False, _times(old)
        return True, _times(answer.get("Attributes", {}))


class _Seen:
    """The places of the endpoints that were used last, as this environment has seen them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._endpoints: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._uses = 0

    def wants_whole(self, endpoint: str) -> bool:
        """Whether it is time to look at the whole item."""
        with self._lock:
            self._uses += 1
            return endpoint not in self._endpoints or self._uses % _LOOK_EVERY == 0

    def times(self, endpoint: str) -> Times:
        """Until when places are taken; those that are not there are thought free."""
        with self._lock:
            return dict(self._endpoints.get(endpoint, {}))

    def learn(self, endpoint: str, item: Times) -> Times:
        """Keep what the whole item says."""
        slots = {name: until for name, until in item.items() if name.startswith(_SLOT)}
        with self._lock:
            self._endpoints[endpoint] = slots
            self._endpoints.move_to_end(endpoint)
            while len(self._endpoints) > _MOST_ENDPOINTS:
                self._endpoints.popitem(last=False)
            return dict(slots)

    def note(self, endpoint: str, name: str, until: float | None) -> None:
        """Keep what became of one place: taken until then, or free."""
        with self._lock:
            slots = self._endpoints.get(endpoint)
            if slots is None:
                return
            if until is None:
                slots.pop(name, None)
            else:
                slots[name] = until


def _number(seconds: float) -> Any:
    return {"N": f"{seconds:.6f}"}


def _whole(seconds: float) -> Any:
    return {"N": str(int(seconds) + _KEEP_S)}


def _times(item: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value["N"]) for name, value in item.items() if name.startswith((_OPEN, _SLOT))}
