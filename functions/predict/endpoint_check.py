"""The check of the container's endpoint."""

from functools import cache
from typing import TYPE_CHECKING

from botocore.session import Session

from functions.predict.readiness import Check
from functions.predict.settings import Settings
from shared.adapters.aws import client

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient


def endpoint_check(settings: Settings, session: Session) -> Check:
    """Whether the container's endpoint is in service."""

    @cache  # its model is large: made when readiness is asked for, and once
    def sagemaker() -> "SageMakerClient":
        return client(
            "sagemaker",
            session=session,
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
            retries=0,
        )

    def missing() -> str | None:
        from shared.adapters.backends.sagemaker_realtime import endpoint_status

        status = endpoint_status(sagemaker(), settings.endpoint_name)
        return None if status == "InService" else f"the endpoint {settings.endpoint_name} is {status}"

    return missing
