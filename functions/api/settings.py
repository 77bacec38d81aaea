"""Settings of the catalogue, of jobs and what belongs to them, and of the documentation."""

from typing import Annotated

from msgspec import Meta

from shared.bootstrap.http import WriteSettings
from shared.domain.uploads import INPUT_PREFIXES, MAX_URL_S


class Settings(WriteSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    What is set for an endpoint is shown `endpoints_ttl_s` later. The OpenAPI document is made anew after
    `contract_ttl_s`: both together are how long it may show an output that callers no longer get. The address of an
    upload works for `upload_url_s`. `input_prefixes` are places in other buckets that batches may read, as
    `shared.domain.uploads.input_prefixes` reads them. `webhook_allow_loopback` is for the local runtime alone.
    """

    keys_table: str
    tenants_table: str
    usage_table: str
    models_table: str
    endpoints_table: str
    jobs_table: str
    jobs_queue_url: str
    batch_queue_url: str
    webhooks_table: str
    deliveries_table: str
    webhooks_queue_url: str
    webhook_key_arn: str
    webhook_allow_loopback: bool = False
    input_prefixes: Annotated[str, Meta(pattern=INPUT_PREFIXES, max_length=2048)] = ""
    upload_url_s: Annotated[int, Meta(ge=60, le=MAX_URL_S)] = 900
    endpoints_ttl_s: Annotated[float, Meta(ge=0, le=3600)] = 4.0
    contract_ttl_s: Annotated[float, Meta(ge=0, le=3600)] = 1.0
