"""Settings of the catalogue and the documentation."""

from typing import Annotated

from msgspec import Meta

from shared.web.bootstrap import HttpSettings


class Settings(HttpSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    `contract_ttl_s` is how long the OpenAPI document may miss a model that was just published.
    """

    models_table: str
    contract_ttl_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
