"""Settings of the catalogue and the documentation."""

from typing import Annotated

import msgspec
from msgspec import Meta

from shared.web.logs import LogLevel

Seconds = Annotated[float, Meta(gt=0, le=5)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    `contract_ttl_s` is how long the OpenAPI document may miss a model that was just published.
    """

    models_table: str
    contract_ttl_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    connect_timeout_s: Seconds = 1.0
    read_timeout_s: Seconds = 3.0
    service: str = msgspec.field(default="api", name="POWERTOOLS_SERVICE_NAME")
    log_level: LogLevel = msgspec.field(default="INFO", name="POWERTOOLS_LOG_LEVEL")
