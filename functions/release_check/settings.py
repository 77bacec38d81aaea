"""Settings of the check before a release."""

from typing import Annotated

import msgspec
from msgspec import Meta

from shared.web.logs import LogLevel

Seconds = Annotated[float, Meta(gt=0, le=60)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    `target` is the ARN of the new version of the predict function. The whole check may take `budget_s`, a single
    invocation `invoke_timeout_s`, a first one with its cold start included; at most `max_models` models are asked for
    a prediction. What the function's own timeout has beyond `budget_s` is there to report the outcome.
    """

    target: str
    models_table: str
    max_models: Annotated[int, Meta(ge=1, le=50)] = 10
    budget_s: Annotated[float, Meta(gt=0, le=840)] = 100.0
    invoke_timeout_s: Seconds = 45.0
    connect_timeout_s: Seconds = 1.0
    read_timeout_s: Seconds = 3.0
    service: str = msgspec.field(default="release_check", name="POWERTOOLS_SERVICE_NAME")
    log_level: LogLevel = msgspec.field(default="INFO", name="POWERTOOLS_LOG_LEVEL")
