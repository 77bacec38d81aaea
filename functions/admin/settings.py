"""Settings of the admin API."""

from shared.bootstrap.http import WriteSettings


class Settings(WriteSettings, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`."""

    keys_table: str
    tenants_table: str
    usage_table: str
    endpoints_table: str
    models_table: str
    features_table: str
    traffic_table: str
    key_pepper_arn: str
