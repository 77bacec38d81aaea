"""What AWS charges: the one table that answers, usage and `sluice cost` are reckoned by.

The defaults are list prices of us-east-1; docs/cost.md says where and when each was read. A stack that pays other
prices names those in `SLUICE_PRICES`, as a JSON object with their date: `{"date":"2026-11-21","gb_second_arm64":1e-5}`.
"""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, field

Usd = Annotated[float, Meta(ge=0, le=100_000)]
Date = Annotated[str, Meta(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")]
Region = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[a-z0-9-]+$")]

# Sizes that a serverless endpoint can have, in MB. Source: SageMaker API, ProductionVariantServerlessConfig.
SERVERLESS_MEMORY_MB: Final = (1024, 2048, 3072, 4096, 5120, 6144)

_INSTANCE_HOUR: Final[Mapping[str, float]] = {
    "ml.c6i.large": 0.102,
    "ml.c6i.xlarge": 0.204,
    "ml.c6i.2xlarge": 0.408,
    "ml.c6i.4xlarge": 0.816,
    "ml.c7i.large": 0.107,
    "ml.c7i.xlarge": 0.214,
    "ml.c7i.2xlarge": 0.428,
    "ml.c7i.4xlarge": 0.857,
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.m5.2xlarge": 0.461,
    "ml.m7i.large": 0.121,
    "ml.m7i.xlarge": 0.242,
    "ml.m7i.2xlarge": 0.484,
    "ml.g4dn.xlarge": 0.7364,
    "ml.g4dn.2xlarge": 0.94,
    "ml.g4dn.4xlarge": 1.505,
    "ml.g5.xlarge": 1.41,
    "ml.g5.2xlarge": 1.52,
    "ml.g5.4xlarge": 2.03,
    "ml.g5.12xlarge": 7.09,
    "ml.g6.xlarge": 1.127,
    "ml.g6.2xlarge": 1.222,
    "ml.g6.4xlarge": 1.654,
    "ml.g6e.xlarge": 2.61,
    "ml.g6e.2xlarge": 2.80,
    "ml.p4d.24xlarge": 25.2513,
    "ml.p5.4xlarge": 7.912,
    "ml.p5.48xlarge": 63.296,
}


class PriceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices in US dollars; `date` is when they were put together.

    A request is a single one, a GB of memory is 1024 MB, a GB of data 10⁹ bytes. `dynamodb_write` is a write of up to
    1 KB on demand, `dynamodb_read` a strongly consistent read of up to 4 KB (an eventually consistent one is half of
    that). `instance_hour` are hours of real-time and asynchronous endpoints by instance type: types that are named
    take the place of the list's, the others stay.
    """

    date: Date
    region: Region = "us-east-1"
    http_request: Usd = 1.00e-6
    lambda_request: Usd = 0.20e-6
    gb_second_x86_64: Usd = 0.0000166667
    gb_second_arm64: Usd = 0.0000133334
    snapstart_gb_second: Usd = 0.0000015046
    snapstart_restored_gb: Usd = 0.0001397998
    dynamodb_write: Usd = 0.625e-6
    dynamodb_read: Usd = 0.125e-6
    s3_put: Usd = 0.005e-3
    s3_get: Usd = 0.0004e-3
    log_gb: Usd = 0.50
    serverless_gb_second: Usd = 0.0000200
    sagemaker_data_gb: Usd = 0.016
    instance_hour: Mapping[Annotated[str, Meta(max_length=64)], Usd] = field(default_factory=dict)

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "instance_hour", {**_INSTANCE_HOUR, **self.instance_hour})

    def gb_second(self, architecture: str) -> float:
        """Lambda's price of a GB-second; ValueError for an architecture that Lambda does not have."""
        if architecture not in ("x86_64", "arm64"):
            raise ValueError(f"Lambda has no architecture {architecture!r}")
        return self.gb_second_arm64 if architecture == "arm64" else self.gb_second_x86_64

    def hourly(self, instance_type: str) -> float | None:
        """The price of an instance's hour; None if this table does not have it."""
        return self.instance_hour.get(instance_type)


LIST_PRICES: Final = PriceTable(date="2026-11-21")

_decoder = msgspec.json.Decoder(PriceTable)


def read_prices(text: str | bytes) -> PriceTable:
    """The table that a JSON object of changes makes of the list prices; ValueError says what is wrong with it."""
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except (msgspec.DecodeError, UnicodeError):
        raise ValueError("not a JSON document") from None


def serverless_memory_mb(memory_mb: int) -> int | None:
    """The smallest size of a serverless endpoint with at least this memory; None if there is none so large."""
    return next((size for size in SERVERLESS_MEMORY_MB if size >= memory_mb), None)
