"""What one request costs by AWS's list prices: an estimate for usage reports, not a bill."""

from dataclasses import dataclass

_MS_MB = 1000 * 1024


@dataclass(frozen=True, slots=True)
class Prices:
    """List prices of us-east-1 in 10^-9 US dollars; where each was read is in docs/cost.md.

    `gb_second` is Lambda's on x86_64 (a GB is 1024 MB), `write` and `read` are DynamoDB's on demand: one write of up to
    1 KB, one strongly consistent read of up to 4 KB (an eventually consistent one is half of that). `log_byte` is one
    byte that CloudWatch Logs takes in.
    """

    http_request: float = 1_000.0
    lambda_request: float = 200.0
    gb_second: float = 16_666.7
    write: float = 625.0
    read: float = 125.0
    log_byte: float = 0.5


LIST_PRICES = Prices()


def request_cost_nusd(
    *,
    ms: float,
    memory_mb: int,
    writes: float = 0,
    reads: float = 0,
    log_bytes: int = 0,
    prices: Prices = LIST_PRICES,
) -> int:
    """The cost of one request through API Gateway and one invocation, in 10^-9 US dollars.

    `ms` is how long the function ran, billed by the millisecond begun; `writes` and `reads` are request units. Not in
    it: data transfer, the container, what is kept (snapshots, storage), and cold starts.
    """
    duration = -(-ms // 1) * memory_mb / _MS_MB * prices.gb_second
    stores = writes * prices.write + reads * prices.read
    return round(prices.http_request + prices.lambda_request + duration + stores + log_bytes * prices.log_byte)
