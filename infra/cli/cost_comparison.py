"""What a load costs a month on each of the ways to run a model, and where one becomes cheaper than another.

Every way goes through the API and the predict function; they differ in who runs the model, and in what the function
waits for. A cost is `per request × requests + price of an hour × hours of instances`, and the number of instances goes
up in steps: so a curve is linear between steps, and where two of them cross is found exactly.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final, Literal

from shared.domain.prices import PriceTable

HOURS: Final = 730
SECONDS: Final = HOURS * 3600
# How many instances the search for crossings goes up to.
MAX_INSTANCES: Final = 1000
# A request's log line with its metrics.
LOG_LINE_BYTES: Final = 1_100
# What an asynchronous call carries itself; more becomes an object. Source: SageMaker Runtime API, InvokeEndpointAsync.
INLINE_BYTES: Final = 128_000
_MILLION: Final = 1e6

FUNCTION: Final = "function"
SERVERLESS: Final = "serverless"
REAL_TIME: Final = "real-time"
ASYNCHRONOUS: Final = "asynchronous"
Scaling = Literal["none", "one stays", "to zero"]


@dataclass(frozen=True, slots=True)
class Setup:
    """How a call runs on each way; times are milliseconds of one call, `duty` is the share of time with traffic.

    `rows` and `row_bytes` (in and out together) are those of one request. Of its own, beside a backend's, the function
    needs `front_ms`. An instance takes `concurrency` calls at once and is used up to `utilisation` of that. With
    `instances` so many real-time instances always run; without, as many as the load needs, one of them always.
    """

    duty: float
    rows: int
    row_bytes: int
    memory_mb: int
    architecture: str
    function_ms: float
    front_ms: float
    serverless_ms: float
    serverless_memory_mb: int
    container_ms: float
    usd_per_hour: float
    concurrency: int
    utilisation: float
    instances: int | None = None

    @property
    def instance_rps(self) -> float:
        """The requests a second that one instance takes."""
        return self.concurrency * self.utilisation / (self.container_ms / 1000)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a way's cost: US dollars for a million requests, and how they come about."""

    name: str
    usd_per_million: float
    formula: str


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run the model: what each request costs, and the instances that it needs, if any."""

    name: str
    parts: Sequence[Part]
    duty: float
    scaling: Scaling = "none"
    usd_per_hour: float = 0.0
    instance_rps: float = math.inf
    least: int = 0

    def instances(self, rps: float) -> int:
        """How many run while there is traffic of `rps` requests a second."""
        return 0 if self.scaling == "none" else max(self.least, math.ceil(rps / self.instance_rps), 1)

    def instance_hours(self, rps: float) -> float:
        """Hours of instances a month."""
        running = self.instances(rps)
        idle = {"none": 0, "one stays": max(self.least, 1), "to zero": 0}[self.scaling]
        return HOURS * (self.duty * running + (1 - self.duty) * idle)

    def requests(self, rps: float) -> float:
        """Requests a month."""
        return rps * SECONDS * self.duty

    def usd(self, rps: float) -> float:
        """US dollars a month at `rps` requests a second while there is traffic."""
        return self.requests(rps) * self._usd_per_request + self.instance_hours(rps) * self.usd_per_hour

    def line(self, rps: float) -> tuple[float, float]:
        """Constant and slope of the cost between the steps that `rps` lies between."""
        return self.instance_hours(rps) * self.usd_per_hour, SECONDS * self.duty * self._usd_per_request

    def steps(self, until: float) -> Iterator[float]:
        """Where an instance more is needed, at less than `until` requests a second."""
        if self.scaling != "none":
            for count in range(max(self.least, 1), MAX_INSTANCES + 1):
                if count * self.instance_rps >= until:
                    return
                yield count * self.instance_rps

    @property
    def _usd_per_request(self) -> float:
        return sum(part.usd_per_million for part in self.parts) / _MILLION


@dataclass(frozen=True, slots=True)
class Crossing:
    """From `rps` on `cheaper` is the cheaper one, until the next crossing."""

    rps: float
    cheaper: str


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Where the cheaper one of two ways changes; `at_first` is it with nearly no traffic. Searched up to `until`."""

    between: tuple[str, str]
    at_first: str
    crossings: Sequence[Crossing]
    until: float


def ways(setup: Setup, prices: PriceTable) -> Mapping[str, Way]:
    """The four ways by name."""
    door = [
        _part("API requests", f"{_a_million(prices.http_request)}", prices.http_request),
        _part("Lambda requests", f"{_a_million(prices.lambda_request)}", prices.lambda_request),
        _part("rate limit", f"1 write × {_a_million(prices.dynamodb_write)}", prices.dynamodb_write),
        _part("logs", f"{LOG_LINE_BYTES} bytes × {prices.log_gb:g}/GB", LOG_LINE_BYTES / 1e9 * prices.log_gb),
    ]
    size = setup.rows * setup.row_bytes
    data = _part(
        "SageMaker data", f"{size} bytes × {prices.sagemaker_data_gb:g}/GB", size / 1e9 * prices.sagemaker_data_gb
    )
    serverless_gb = setup.serverless_memory_mb / 1024
    serverless_s = math.ceil(setup.serverless_ms) / 1000
    serverless = _part(
        "SageMaker time",
        f"{serverless_s * 1000:g} ms × {serverless_gb:g} GB × {_plain(prices.serverless_gb_second)}",
        serverless_s * serverless_gb * prices.serverless_gb_second,
    )
    objects = 1 if size <= INLINE_BYTES else 2
    s3 = _part("S3", f"{objects} × (PUT + GET)", objects * (prices.s3_put + prices.s3_get))
    price, takes = setup.usd_per_hour, setup.instance_rps

    def lambda_time(ms: float) -> Part:
        billed, gb_second = math.ceil(ms), prices.gb_second(setup.architecture)
        formula = f"{billed} ms × {setup.memory_mb / 1024:.5g} GB × {_plain(gb_second)}"
        return _part("Lambda time", formula, billed / 1000 * setup.memory_mb / 1024 * gb_second)

    waited = lambda_time(setup.front_ms + setup.container_ms)
    found = [
        Way(FUNCTION, [*door, lambda_time(setup.function_ms)], setup.duty),
        Way(SERVERLESS, [*door, lambda_time(setup.front_ms + setup.serverless_ms), serverless, data], setup.duty),
        Way(REAL_TIME, [*door, waited, data], setup.duty, "one stays", price, takes, setup.instances or 1),
        Way(ASYNCHRONOUS, [*door, lambda_time(setup.front_ms), data, s3], setup.duty, "to zero", price, takes),
    ]
    return {way.name: way for way in found}


def break_even(one: Way, other: Way, until: float) -> BreakEven:
    """Where the curves of two ways cross, up to `until` requests a second.

    A step may lift one curve over the other: that is a crossing, too. Ways that cost the same count as `one` cheaper.
    """
    edges = sorted({0.0, *one.steps(until), *other.steps(until), until})
    crossings: list[Crossing] = []
    cheaper = at_first = ""
    for low, high in pairwise(edges):
        (fixed, slope), (other_fixed, other_slope) = one.line((low + high) / 2), other.line((low + high) / 2)
        gap, change = fixed - other_fixed, slope - other_slope
        turns = [-gap / change] if change and low < -gap / change < high else []
        for start, end in zip([low, *turns], [*turns, high], strict=True):
            now = one.name if gap + change * (start + end) / 2 <= 0 else other.name
            if not cheaper:
                at_first = now
            elif now != cheaper:
                crossings.append(Crossing(start, now))
            cheaper = now
    return BreakEven((one.name, other.name), at_first, crossings, until)


def break_evens(found: Mapping[str, Way], until: float) -> Sequence[BreakEven]:
    """Those of each pair of ways."""
    return [break_even(one, other, until) for one, other in combinations(found.values(), 2)]


def _part(name: str, formula: str, usd_per_request: float) -> Part:
    return Part(name, usd_per_request * _MILLION, formula)


def _plain(usd: float) -> str:
    return f"{usd:.10f}".rstrip("0")


def _a_million(usd: float) -> str:
    return f"{usd * _MILLION:g} a million"
