"""What administrators manage, on the stores of the local stack or of a deployed one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from infra.cli.deployed import Account, stack_outputs, unusable
from infra.cli.local import running_stack
from infra.cli.output import UNREACHABLE, USAGE, Failure
from shared.domain.errors import BackendTimeout, BackendUnavailable, InvalidRequest

if TYPE_CHECKING:
    from shared.usecases.manage_keys import ManageKeys
    from shared.usecases.manage_tenants import ManageTenants

_OUTPUTS: Final = ("KeysTableName", "TenantsTableName", "UsageTableName", "KeyPepperArn")
# The options by the places that errors name, which are those of the API's documents.
_OPTIONS: Final[Mapping[str, str]] = {
    "/key/per_second": "--key-rate",
    "/key/burst": "--key-burst",
    "/tenant/per_second": "--tenant-rate",
    "/tenant/burst": "--tenant-burst",
    "/daily_quota": "--daily-quota",
    "/monthly_quota": "--monthly-quota",
    "/shards": "--shards",
    "/max_keys": "--max-keys",
    "/scopes": "--scopes",
    "/expires_at": "--days",
    "/overlap_s": "--overlap",
    "/description": "--description",
    "/name": "NAME",
    "/arn": "ARN",
    "/set": "--set",
    "/entity": "ENTITY",
    "/at": "--at",
}


@dataclass(frozen=True, slots=True)
class Stores:
    """Where a stack keeps keys, tenants and usage; `client` makes clients of AWS services."""

    client: Callable[[str], Any]
    keys_table: str
    tenants_table: str
    usage_table: str
    pepper_arn: str

    @classmethod
    def of(cls, stack: str | None, region: str | None, profile: str | None) -> "Stores":
        """Those of a deployed stack by its name, or of the local one; Failure if it is not there."""
        make, names = find_stores(stack, region, profile, _OUTPUTS)
        return cls(make, *names)

    def keys(self) -> "ManageKeys":
        """Credentials."""
        from shared.adapters.dynamodb_keys import DynamoDBKeys
        from shared.adapters.dynamodb_tenants import DynamoDBTenants
        from shared.adapters.secrets_manager import SecretText
        from shared.usecases.manage_keys import ManageKeys

        dynamodb = self.client("dynamodb")
        return ManageKeys(
            DynamoDBKeys(dynamodb, self.keys_table),
            DynamoDBTenants(dynamodb, self.tenants_table, self.usage_table),
            SecretText(lambda: self.client("secretsmanager"), self.pepper_arn),
        )

    def tenants(self) -> "ManageTenants":
        """Tenants, plans and usage."""
        from shared.adapters.dynamodb_tenants import DynamoDBTenants
        from shared.adapters.dynamodb_usage import DynamoDBUsage
        from shared.usecases.manage_tenants import ManageTenants

        dynamodb = self.client("dynamodb")
        return ManageTenants(
            DynamoDBTenants(dynamodb, self.tenants_table, self.usage_table), DynamoDBUsage(dynamodb, self.usage_table)
        )


def find_stores(
    stack: str | None, region: str | None, profile: str | None, outputs: Sequence[str]
) -> tuple[Callable[[str], Any], Sequence[str]]:
    """What makes clients for a deployed stack by its name, or for the local one, and these of its outputs.

    Failure if the stack is not there, or has no such output.
    """
    if stack is not None:
        account = Account.of(region, profile)
        return account.client, stack_outputs(account, stack, *outputs)
    if region or profile:
        raise Failure("--region and --profile belong to --stack.", exit_code=USAGE)
    from infra.local.aws_client import isolated_session, local_client

    local, session = running_stack(), isolated_session()
    if missing := [name for name in outputs if name not in local.outputs]:
        raise Failure(f"The running stack has no {', '.join(missing)}: restart it with `sluice down` and `sluice up`.")
    return (
        lambda service: local_client(session, service, local.aws_endpoint_url),
        [local.outputs[name] for name in outputs],
    )


@contextmanager
def explained(*, name: str = _OPTIONS["/name"]) -> Iterator[None]:
    """What may go wrong on the way as failures: a wrong value, stores out of reach, unusable credentials.

    `name` is how the command calls the member `name`.
    """
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except InvalidRequest as error:
        raise Failure(_of_options(error, {**_OPTIONS, "/name": name}), exit_code=USAGE) from error
    except (BackendUnavailable, BackendTimeout) as error:
        raise Failure(f"{error.detail} ({error.__cause__})", exit_code=UNREACHABLE) from error
    except BotoCoreError as error:
        raise unusable(error) from error


def _of_options(error: InvalidRequest, options: Mapping[str, str]) -> str:
    """What is wrong, with the option in the place of the document's member."""
    place, colon, detail = error.detail.partition(": ")
    return f"{options[place]}: {detail}" if colon and place in options else error.detail
