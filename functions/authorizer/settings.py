"""Settings of the authorizer."""

from typing import Annotated

import msgspec
from msgspec import Meta

from shared.domain.issuer_address import is_trusted_url
from shared.web.logs import LogLevel

Seconds = Annotated[float, Meta(gt=0, le=5)]
Claim = Annotated[str, Meta(max_length=256)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the environment by `shared.domain.settings.load`.

    Two attempts of a call with the timeouts of AWS, with botocore's pause of at most 1 s between them, take 3.4 s. With
    the issuer's documents that is within the 5 s that the template gives the function. Without an issuer, no token
    holds.
    """

    keys_table: str
    tenants_table: str
    usage_table: str
    key_pepper_arn: str
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_jwks_url: str = ""
    jwt_tenant_claim: Claim = "tenant"
    jwt_timeout_s: Seconds = 1.5
    connect_timeout_s: Seconds = 0.5
    read_timeout_s: Seconds = 0.7
    service: str = msgspec.field(default="authorizer", name="POWERTOOLS_SERVICE_NAME")
    log_level: LogLevel = msgspec.field(default="INFO", name="POWERTOOLS_LOG_LEVEL")

    def __post_init__(self) -> None:
        for variable, url in (("SLUICE_JWT_ISSUER", self.jwt_issuer), ("SLUICE_JWT_JWKS_URL", self.jwt_jwks_url)):
            if url and not is_trusted_url(url):
                raise ValueError(f"{variable}: expected an https:// address (http:// on this machine only)")
        if self.jwt_issuer and not self.jwt_audience:
            raise ValueError("SLUICE_JWT_AUDIENCE is not set, and SLUICE_JWT_ISSUER is: tokens for others would hold")
        if self.jwt_jwks_url and not self.jwt_issuer:
            raise ValueError("SLUICE_JWT_ISSUER is not set, and SLUICE_JWT_JWKS_URL is")
