"""What one request costs: an estimate by a price table, to compare tenants and models by, not a bill.

Money is in 10⁻⁹ US dollars here: a request costs some thousands of them, and whole numbers add up exactly.
"""

from collections.abc import Mapping
from typing import Final

from shared.domain.prices import PriceTable

NUSD: Final = 1_000_000_000
_MS_MB: Final = 1000 * 1024
_MS_PER_HOUR: Final = 3_600_000
# Request units of an operation, or of each item of it: a transaction pays twice for what it does.
_READS: Final = {"GetItem": 1, "Query": 1, "Scan": 1}
_WRITES: Final = {"UpdateItem": 1, "PutItem": 1, "DeleteItem": 1}
_READS_PER_ITEM: Final = {"BatchGetItem": 1, "TransactGetItems": 2}
_WRITES_PER_ITEM: Final = {"BatchWriteItem": 1, "TransactWriteItems": 2}
_S3_PUTS: Final = ("PutObject", "CopyObject", "ListObjectsV2", "CreateMultipartUpload", "UploadPart")
_S3_GETS: Final = ("GetObject", "HeadObject")


class RequestCosts:
    """What the requests of one function cost, with `memory_mb` of memory on an architecture of Lambda's."""

    def __init__(self, prices: PriceTable, memory_mb: int, architecture: str) -> None:
        self.prices_date = prices.date
        self._request = (prices.http_request + prices.lambda_request) * NUSD
        self._ms = memory_mb / _MS_MB * prices.gb_second(architecture) * NUSD
        read, write = prices.dynamodb_read * NUSD, prices.dynamodb_write * NUSD
        self._calls: Mapping[str, float] = {
            **{f"dynamodb.{name}": units * read for name, units in _READS.items()},
            **{f"dynamodb.{name}": units * write for name, units in _WRITES.items()},
            **{f"s3.{name}": prices.s3_put * NUSD for name in _S3_PUTS},
            **{f"s3.{name}": prices.s3_get * NUSD for name in _S3_GETS},
        }
        self._items: Mapping[str, float] = {
            **{f"dynamodb.{name}": units * read for name, units in _READS_PER_ITEM.items()},
            **{f"dynamodb.{name}": units * write for name, units in _WRITES_PER_ITEM.items()},
        }

    def nusd(
        self,
        ms: float,
        calls: Mapping[str, int],
        items: Mapping[str, int],
        instance_share_nusd: float = 0.0,
    ) -> int:
        """The cost of a request through API Gateway and one invocation, in 10⁻⁹ US dollars.

        `ms` is how long the function ran, billed by the millisecond begun. `calls` are AWS calls by service and
        operation (`dynamodb.UpdateItem`), `items` what those for many items at once had. Each item counts as one unit:
        how large it was is not known. `instance_share_nusd` is what the function of that name adds up to for its calls.
        Not in it: data transfer, logs, what is kept (snapshots, storage), and cold starts.
        """
        cost = self._request + -(-ms // 1) * self._ms + instance_share_nusd
        prices = self._calls
        for name, count in calls.items():
            cost += prices.get(name, 0.0) * count
        if items:
            prices = self._items
            for name, count in items.items():
                cost += prices.get(name, 0.0) * count
        return round(cost)


def instance_share_nusd(ms: float, usd_per_hour: float, concurrency: int) -> float:
    """A call's share of instances that cost `usd_per_hour` while `concurrency` calls use them, in 10⁻⁹ US dollars."""
    return ms * usd_per_hour / _MS_PER_HOUR / concurrency * NUSD


def usd_text(nusd: int) -> str:
    """10⁻⁹ US dollars as a plain decimal number of US dollars, such as `0.000004371`."""
    return f"{nusd // NUSD}.{nusd % NUSD:09d}"
