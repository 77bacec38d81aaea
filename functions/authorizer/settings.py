"""Settings of the authorizer."""

from typing import Annotated

import msgspec
from msgspec import Meta

from shared.web.logs import LogLevel

Seconds = Annotated[float, Meta(gt=0, le=5)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    Two attempts with these timeouts fit into the 5 s that the template gives the function.
    """

    keys_table: str
    connect_timeout_s: Seconds = 0.5
    read_timeout_s: Seconds = 1.5
    service: str = msgspec.field(default="authorizer", name="POWERTOOLS_SERVICE_NAME")
    log_level: LogLevel = msgspec.field(default="INFO", name="POWERTOOLS_LOG_LEVEL")
