"""Rate limits in a DynamoDB table: partition key `bucket` (S), one item for each tenant and shard (`acme#0`).

`tat` (N) is the tenant's bucket, and an attribute for each of its keys (`k` and a hash of the key id) is the key's, as
`shared.domain.gcra` has it: one UpdateItem takes from both or from neither. DynamoDB has no `max`, so a bucket's part
of the update has a form for each state that lets a request pass, and its condition names the state that was assumed.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from hashlib import blake2b
from math import ceil
from random import SystemRandom
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code, is_throttled
from shared.adapters.seen_buckets import SeenBuckets, States
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable
from shared.domain.gcra import MICROSECONDS, Bucket, BucketState
from shared.domain.plans import Limits, Rate
from shared.domain.ports import Allowance, LimitReached, PolicyState
from shared.domain.principal import Principal

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_WHAT: Final = "The rate limiter's table"
_TENANT: Final = "tat"
_NOT_BUCKETS: Final = frozenset({"bucket", "expires_at"})
# With `now` fixed, a `tat` only grows, so each of the two buckets turns from idle to active once at most, and one that
# is active passes or turns empty: after a wrong guess, three more attempts decide.
_ATTEMPTS: Final = 4
_EXPIRY_MARGIN_S: Final = 3600

# By state: what an update does with a bucket, and the condition that it is in this state. An active one may be idle in
# truth, but not for long: without that, most guesses at a bucket that many environments use would be wrong.
_FORMS: Final[Mapping[BucketState, tuple[str, str]]] = {
    BucketState.IDLE: ("#{n} = :{n}_next", "(attribute_not_exists(#{n}) OR #{n} <= :now)"),
    BucketState.ACTIVE: ("#{n} = #{n} + :{n}_step", "#{n} > :{n}_lag AND #{n} <= :{n}_last"),
    BucketState.STALE: ("#{n} = :{n}_next", "#{n} > :{n}_stale"),
}

Tats = Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class _Limit:
    """A caller's limit as one item has it; `bucket` is the shard's part of `rate`."""

    name: str
    rate: Rate
    attribute: str
    bucket: Bucket


class DynamoDBLimits:
    """Implements `shared.domain.ports.RateLimiter`; safe to use from many threads.

    Who is over the limit by what was seen last is refused without a call. A tenant whose own attempts throttle its item
    is over its limit, and not the table at fault. `now_us` are microseconds since 1970,
    `pick(n)` a random number below n, `ticks` seconds of a clock that only goes forward. A call without an answer stops
    all calls for `pause_s`, so that a stalled table costs its timeout once in that time; after `budget_s` no further
    attempt is made.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        now_us: Callable[[], int] = lambda: time_ns() // 1000,
        pick: Callable[[int], int] | None = None,
        pause_s: float = 1.0,
        budget_s: float = 0.5,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self._client = client
        self._table = table
        self._now_us = now_us
        # The system's generator: copies of one snapshot would all draw the same shards from another.
        self._pick = pick or SystemRandom().randrange
        self._pause_s = pause_s
        self._budget_s = budget_s
        self._ticks = ticks
        self._paused_until = float("-inf")
        self._seen = SeenBuckets()

    def take(self, principal: Principal) -> Allowance:
        """Count one request: one UpdateItem as a rule, none for who is known to be over the limit.

        Raises LimitReached, and BackendError if the table fails. Who is refused by one shard asks one other.
        """
        started = self._ticks()
        if started < self._paused_until:
            raise BackendUnavailable(f"{_WHAT} did not answer a moment ago.")
        shards = max(1, principal.limits.shards)
        shard = self._pick(shards) if shards > 1 else 0
        give_up = started + self._budget_s
        try:
            return self._take(principal, shards, shard, give_up)
        except LimitReached as refused:
            if shards == 1 or self._ticks() > give_up:
                raise
            other = (shard + 1 + self._pick(shards - 1)) % shards
            try:
                return self._take(principal, shards, other, give_up)
            except LimitReached as again:
                raise min(refused, again, key=lambda error: error.retry_after_s or 0.0) from None

    def _take(self, principal: Principal, shards: int, shard: int, give_up: float) -> Allowance:
        item = f"{principal.tenant}#{shard}"
        limits = _limits(principal.limits, principal.key_id, shards, shard)
        buckets = {limit.attribute: limit.bucket for limit in limits}
        # One `now` for all attempts: it is what makes their number enough.
        now = self._now_us()
        tats, states = self._seen.guess(item, buckets, now)
        leftovers = self._seen.leftovers(item, buckets.keys() | {_TENANT}, now)
        for attempt in range(_ATTEMPTS):
            if BucketState.EMPTY in states.values():
                raise _refusal(limits, tats, now, shards)
            if attempt and self._ticks() > give_up:
                raise BackendTimeout(f"{_WHAT} is too slow.")
            whole = self._seen.wants_whole(item)
            request = _request(buckets, states, now, () if attempt else leftovers)
            try:
                passed, found = self._update(item, request, whole=whole)
            except BackendUnavailable as error:
                if is_throttled(error.__cause__) and self._seen.is_crowded(item, now):
                    raise _crowd(_policies(limits, tats, now, shards)) from error
                raise
            tats = {attribute: found.get(attribute) for attribute in buckets}
            if not passed:
                states = {attribute: bucket.state(tats[attribute], now) for attribute, bucket in buckets.items()}
            self._seen.learn(item, found, buckets, states, now, whole=whole or not passed)
            if passed:
                return Allowance(_policies(limits, tats, now, shards))
        raise BackendUnavailable(f"{_WHAT} was changed by others at every attempt.")

    def _update(self, item: str, request: Mapping[str, Any], *, whole: bool) -> tuple[bool, dict[str, int]]:
        """Whether the condition held, and the `tat`s in the item after that: those that were updated, or all."""
        try:
            with aws_errors(_WHAT):
                try:
                    answer = self._client.update_item(
                        TableName=self._table,
                        Key={"bucket": {"S": item}},
                        ReturnValues="ALL_NEW" if whole else "UPDATED_NEW",
                        ReturnValuesOnConditionCheckFailure="ALL_OLD",
                        **request,
                    )
                except ClientError as error:
                    if error_code(error) != "ConditionalCheckFailedException":
                        raise
                    old: Mapping[str, Any] = error.response.get("Item", {})  # type: ignore[assignment]
                    return False, _tats(old)
        except BackendError as error:
            # A table that refuses does so at once, and perhaps for one tenant only: that needs no pause.
            if not isinstance(error.__cause__, ClientError):
                self._paused_until = self._ticks() + self._pause_s
            raise
        return True, _tats(answer.get("Attributes", {}))


def _tats(item: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(value["N"]) for name, value in item.items() if name not in _NOT_BUCKETS}


@lru_cache(maxsize=1024)
def _limits(limits: Limits, key_id: str, shards: int, shard: int) -> tuple[_Limit, _Limit]:
    # A hash is short, whatever the id is: the ARN of a role, or the subject of a token.
    digest = blake2b(key_id.encode("utf-8", "surrogatepass"), digest_size=9).digest()
    key, tenant = limits.key, limits.tenant
    return (
        _Limit("key", key, "k" + urlsafe_b64encode(digest).decode(), Bucket.of(key, shards, shard)),
        _Limit("tenant", tenant, _TENANT, Bucket.of(tenant, shards, shard)),
    )


@cache
def _expressions(*states: BucketState) -> tuple[str, str]:
    """The update of two buckets in these states, `#a` and `#b`, and its condition."""
    changes, conditions = zip(*(_FORMS[state] for state in states), strict=True)
    return (
        "SET expires_at = :end, " + ", ".join(change.format(n=n) for n, change in zip("ab", changes, strict=True)),
        " AND ".join(condition.format(n=n) for n, condition in zip("ab", conditions, strict=True)),
    )


def _request(buckets: Mapping[str, Bucket], states: States, now: int, leftovers: Sequence[str]) -> dict[str, Any]:
    """The expressions of an update that takes from buckets in these states and removes `leftovers`."""
    update, condition = _expressions(*states.values())
    # By then every bucket of the item is idle whatever it says, so the item may go.
    end_us = max(bucket.empty_us(now) for bucket in buckets.values())
    values = {":end": end_us // MICROSECONDS + _EXPIRY_MARGIN_S}
    names: dict[str, str] = {}
    for n, (attribute, bucket) in zip("ab", buckets.items(), strict=True):
        names[f"#{n}"] = attribute
        match states[attribute]:
            case BucketState.ACTIVE:
                values[f":{n}_step"] = bucket.interval_us
                values[f":{n}_lag"] = bucket.lag_us(now)
                values[f":{n}_last"] = bucket.last_us(now)
            case BucketState.STALE:
                values[f":{n}_next"] = bucket.empty_us(now)
                values[f":{n}_stale"] = bucket.stale_us(now)
            case _:
                values[f":{n}_next"] = now + bucket.interval_us
    if leftovers:
        swept = {f"#s{i}": attribute for i, attribute in enumerate(leftovers)}
        names |= swept
        update += " REMOVE " + ", ".join(swept)
        condition += "".join(f" AND (attribute_not_exists({n}) OR {n} <= :now)" for n in swept)
    if ":now" in condition:  # a value that no expression names is refused
        values[":now"] = now
    return {
        "UpdateExpression": update,
        "ConditionExpression": condition,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {name: {"N": str(value)} for name, value in values.items()},
    }


def _policies(limits: Sequence[_Limit], tats: Tats, now: int, shards: int) -> tuple[PolicyState, ...]:
    """How the caller stands; of a bucket in shards, what one of them says times their number."""
    return tuple(
        PolicyState(
            name=limit.name,
            quota=limit.rate.burst,
            window_s=max(1, ceil(limit.rate.burst / limit.rate.per_second)),
            remaining=min(limit.rate.burst, limit.bucket.remaining(tats[limit.attribute], now) * shards),
            reset_s=ceil(limit.bucket.next_us(tats[limit.attribute], now) / MICROSECONDS),
        )
        for limit in limits
    )


def _refusal(limits: Sequence[_Limit], tats: Tats, now: int, shards: int) -> LimitReached:
    """The refusal by the limit that takes longest to let a request pass again."""
    wait_us, limit = max(
        ((limit.bucket.wait_us(tats[limit.attribute], now), limit) for limit in limits), key=lambda pair: pair[0]
    )
    whose = "This key" if limit.name == "key" else "The tenant"
    return LimitReached(
        f"{whose} may make {limit.rate.per_second:g} requests a second, {limit.rate.burst} at once; "
        f"wait for {wait_us / MICROSECONDS:.3g} s.",
        retry_after_s=wait_us / MICROSECONDS,
        allowance=Allowance(_policies(limits, tats, now, shards)),
    )


def _crowd(states: Sequence[PolicyState]) -> LimitReached:
    """The refusal where so many ask for one tenant's item that DynamoDB takes no more of them."""
    none = tuple(replace(state, remaining=0, reset_s=1) for state in states)
    detail = "The tenant makes far more requests than its limit; wait for 1 s."
    return LimitReached(detail, retry_after_s=1.0, allowance=Allowance(none))
