"""Settings of the sender of webhooks."""

from typing import Annotated

import msgspec
from msgspec import Meta

from shared.web.logs import LogLevel

Seconds = Annotated[float, Meta(gt=0, le=30)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    Of a batch, `webhook_threads` deliveries are sent at a time: one that hangs does not hold up its neighbours. A
    receiver has `webhook_timeout_s` for all of its answer. `webhook_allow_loopback` is for the local runtime alone:
    http and https to 127.0.0.1 and ::1, which functions on AWS have for themselves. The other timeouts are those of
    one attempt of a call to AWS.
    """

    webhooks_table: str
    deliveries_table: str
    webhooks_queue_url: str
    webhooks_dead_letters_url: str
    webhook_key_arn: str
    webhook_allow_loopback: bool = False
    webhook_threads: Annotated[int, Meta(ge=1, le=64)] = 10
    webhook_timeout_s: Annotated[float, Meta(gt=0, le=20)] = 10.0
    connect_timeout_s: Seconds = 1.0
    read_timeout_s: Seconds = 3.0
    service: str = msgspec.field(default="webhook_sender", name="POWERTOOLS_SERVICE_NAME")
    log_level: LogLevel = msgspec.field(default="INFO", name="POWERTOOLS_LOG_LEVEL")
