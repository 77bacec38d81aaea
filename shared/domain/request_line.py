"""The log lines that usage and the audit trail are made of: what `shared.web.middleware` and the authorizer write."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw

from shared.domain.endpoint.config import PART_NAME

REQUEST = "request"
AUTHORIZATION = "authorization"
# A line's own time is believed within this distance of the time at which the log took it.
MAX_SKEW = timedelta(days=2)

Count = Annotated[int, Meta(ge=0)]
Tenant = Annotated[str, Meta(max_length=255)]
Timestamp = Annotated[datetime, Meta(tz=True)]
PartName = Annotated[str, Meta(pattern=rf"^{PART_NAME}\Z")]
Milliseconds = Annotated[float, Meta(ge=0, le=86_400_000)]
Difference = Annotated[float, Meta(ge=0, le=1.7e308)]
StandIn = Annotated[str, Meta(pattern=rf"^(variant={PART_NAME}|cached|static)\Z")]
Code = Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,64}\Z")]
CacheHit = Literal["hit", "stale", "miss", "bypass", "joined"]

_NOTHING = Raw()
_T = TypeVar("_T")


class UnreadableLine(ValueError):
    """A line that is damaged, or that has one of our messages and not the members that belong to it."""


class ExposureMember(msgspec.Struct, frozen=True):
    """What an experiment showed to whom; of the unit a digest of 16 hexadecimal digits."""

    name: PartName
    arm: PartName
    unit: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]


class ShadowMember(msgspec.Struct, frozen=True):
    """What became of a request's copy; the numbers are there as far as its state has them."""

    variant: PartName
    state: Literal["compared", "dropped", "failed", "incomparable"]
    ms: Milliseconds = 0.0
    primary_ms: Milliseconds = 0.0
    rows: Count = 0
    agreeing: Count = 0
    distance: Difference = 0.0
    largest: Difference = 0.0


class RequestLine(msgspec.Struct, frozen=True, kw_only=True):
    """One answered request. A payload that was logged with it (`inputs`, `outputs`) is not read.

    `rows` is there once the request has found a version of the model. `ms` and `steps_ms` are milliseconds, `cost_nusd`
    10⁻⁹ US dollars. `target` is what an admin request changed, `limiter` is `open` if it passed without limits.
    What routing adds is kept as it was written and read when it is asked for: damaged, it is as if it were not there,
    and the request still counts for its tenant.
    """

    timestamp: Timestamp
    request_id: str
    route: str
    status: Annotated[int, Meta(ge=0, le=999)]
    code: str
    trace_id: str | None = None
    tenant: Tenant | None = None
    key_id: str | None = None
    model: str | None = None
    version: int | str | None = None
    variant: str | None = None
    backend: str | None = None
    target: str | None = None
    bytes_in: Count = 0
    bytes_out: Count = 0
    rows: Count | None = None
    ms: float = 0.0
    steps_ms: dict[str, float] = {}
    cost_nusd: Count = 0
    cold_start: bool = False
    prediction_id: str | None = None
    idempotency: str | None = None
    limiter: str | None = None
    experiment: Raw = _NOTHING
    shadow: Raw = _NOTHING
    fallback: Raw = _NOTHING
    reason: Raw = _NOTHING
    cache: Raw = _NOTHING

    @property
    def exposure(self) -> ExposureMember | None:
        """The exposure, if an experiment chose the variant."""
        return _read(_exposure, self.experiment)

    @property
    def copied(self) -> ShadowMember | None:
        """What became of the copy for the shadow, if there was one."""
        return _read(_shadow, self.shadow)

    @property
    def stand_in(self) -> str | None:
        """What answered in the variant's place: `variant=<name>`, `cached` or `static`."""
        return _read(_stand_in, self.fallback)

    @property
    def why(self) -> str | None:
        """The code of the error that made a stand-in necessary."""
        return _read(_code, self.reason)

    @property
    def kept(self) -> CacheHit | None:
        """What the store of kept answers had, if the endpoint has one."""
        return _read(_cache_hit, self.cache)


class AuthorizationLine(msgspec.Struct, frozen=True, kw_only=True):
    """One decision of the authorizer; `reason` is why a credential was refused."""

    timestamp: Timestamp
    authorized: bool
    request_id: str | None = None
    trace_id: str | None = None
    reason: str | None = None
    key_id: str | None = None
    tenant: Tenant | None = None


class _Message(msgspec.Struct):
    message: object = None


_message = msgspec.json.Decoder(_Message)
_exposure = msgspec.json.Decoder(ExposureMember)
_shadow = msgspec.json.Decoder(ShadowMember)
_stand_in = msgspec.json.Decoder[str](StandIn)
_code = msgspec.json.Decoder[str](Code)
_cache_hit = msgspec.json.Decoder[CacheHit](CacheHit)
_decoders: dict[object, msgspec.json.Decoder[RequestLine] | msgspec.json.Decoder[AuthorizationLine]] = {
    REQUEST: msgspec.json.Decoder(RequestLine),
    AUTHORIZATION: msgspec.json.Decoder(AuthorizationLine),
}


def parse_line(text: str) -> RequestLine | AuthorizationLine | None:
    """A line of the log; None for one that is not ours to read, UnreadableLine for one that should be and is not."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        message = _message.decode(text).message
        decoder = _decoders.get(message) if isinstance(message, str) else None
        return None if decoder is None else decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:  # invalid values are DecodeErrors, too
        raise UnreadableLine(type(error).__name__) from error


def _read(decoder: msgspec.json.Decoder[_T], member: Raw) -> _T | None:
    if not member:
        return None
    try:
        return decoder.decode(member)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A line as CloudWatch Logs delivers it; `id` is unique, `time` is when the log took it."""

    id: str
    time: datetime
    text: str


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Lines that are delivered together: all of one log stream, in its order."""

    group: str
    stream: str
    events: Sequence[LogEvent]

    @property
    def id(self) -> str:
        """The same for the same lines, 64 hexadecimal digits; no other lines have it."""
        return sha256(msgspec.json.encode([self.group, self.stream, [event.id for event in self.events]])).hexdigest()


def time_of(line: RequestLine | AuthorizationLine, event: LogEvent) -> datetime:
    """When a line was written, in UTC: what it says itself unless that is more than `MAX_SKEW` off."""
    believed = line.timestamp if abs(line.timestamp - event.time) <= MAX_SKEW else event.time
    return believed.astimezone(UTC)
