"""Checks of an AWS account: who is signed in, where, and whether its quotas suffice."""

from collections.abc import Sequence
from typing import Any, Final

from infra.cli.checks.check import Check, Outcome, failed, ok, warning
from infra.cli.deployed import Account

# Source: AWS Lambda, "Quotas": 1,000 for an account and region by default; new accounts may start with 10.
_USUAL_CONCURRENCY: Final = 1000
# Source: Service Quotas, AWS Lambda, "Concurrent executions".
_CONCURRENCY_CODE: Final = "L-B99A9384"
_MAX_PAGES: Final = 40


def account_checks(account: Account, instance_type: str | None) -> Sequence[Check]:
    """The checks; `instance_type` is that of the endpoint, or None where the stack has none."""
    checks = [
        Check("region", lambda: region(account)),
        Check("credentials", lambda: credentials(account)),
        Check("quota: concurrency", lambda: concurrency(account)),
    ]
    if instance_type:
        checks.append(Check("quota: endpoint", lambda: endpoint_instances(account, instance_type)))
    return checks


def region(account: Account) -> Outcome:
    """Whether a region is set."""
    if (name := account.region) is None:
        return failed("No AWS region is set.", "Name one with --region, or set AWS_REGION.")
    return ok(f"The region is {name}.")


def credentials(account: Account) -> Outcome:
    """Whether the credentials are valid, and whose they are."""
    identity = account.client("sts").get_caller_identity()
    if str(identity["Arn"]).endswith(":root"):
        return warning(
            f"Signed in to account {identity['Account']} as its root user.", "Use a role: root cannot be limited."
        )
    return ok(f"Signed in to account {identity['Account']} as {identity['Arn']}.")


def concurrency(account: Account) -> Outcome:
    """Whether the account may run as many functions at once as is usual."""
    limit = _quota(account, "lambda", _CONCURRENCY_CODE)
    if limit is None:
        return warning(
            "The quota on concurrent executions cannot be read.", "Look it up in the console under Service Quotas."
        )
    if limit < _USUAL_CONCURRENCY:
        return warning(
            f"Lambda may run {limit:.0f} executions at once in this region.",
            f"Ask for more ({_CONCURRENCY_CODE} in Service Quotas): requests beyond it answer 503, and reserved or "
            "provisioned concurrency needs 100 left over.",
        )
    return ok(f"Lambda may run {limit:.0f} executions at once in this region.")


def endpoint_instances(account: Account, instance_type: str) -> Outcome:
    """Whether SageMaker may run an endpoint on an instance of the type."""
    name = f"{instance_type} for endpoint usage"
    quota = _named_quota(account, "sagemaker", name)
    if quota is None:
        return warning(
            f"The quota {name!r} cannot be found in this region.",
            "Check that the region has this instance type, or choose another ContainerInstanceType.",
        )
    if quota["Value"] < 1:
        return failed(
            f"The quota {name!r} is 0: the endpoint cannot start.",
            f"Ask for at least 2 ({quota['QuotaCode']} in Service Quotas; one more than in use, for a blue/green "
            "update), or leave the container out.",
        )
    if quota["Value"] < 2:
        return warning(
            f"The quota {name!r} is 1.", f"Ask for 2 ({quota['QuotaCode']}): a blue/green update runs both fleets."
        )
    return ok(f"The quota {name!r} is {quota['Value']:.0f}.")


def _quota(account: Account, service: str, code: str) -> float | None:
    from botocore.exceptions import ClientError

    try:
        quota = account.client("service-quotas").get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchResourceException":
            return None
        raise
    return float(quota["Value"])


def _named_quota(account: Account, service: str, name: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    quotas = account.client("service-quotas")
    token: dict[str, str] = {}
    for _ in range(_MAX_PAGES):
        try:
            page = quotas.list_service_quotas(ServiceCode=service, MaxResults=100, **token)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchResourceException":
                return None
            raise
        for quota in page["Quotas"]:
            if quota["QuotaName"] == name:
                return dict(quota)
        if not page.get("NextToken"):
            return None
        token = {"NextToken": page["NextToken"]}
    return None
