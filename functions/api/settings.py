"""Settings of the catalogue and the documentation."""

from typing import Annotated

from msgspec import Meta

from shared.web.bootstrap import HttpSettings


class Settings(HttpSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    What is set for an endpoint is shown `endpoints_ttl_s` later. The OpenAPI document is made anew after
    `contract_ttl_s`: both together are how long it may show an output that callers no longer get.
    """

    models_table: str
    endpoints_table: str
    endpoints_ttl_s: Annotated[float, Meta(ge=0, le=3600)] = 4.0
    contract_ttl_s: Annotated[float, Meta(ge=0, le=3600)] = 1.0
