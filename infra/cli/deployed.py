"""A deployed stack as the commands see it, with the user's own AWS configuration."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.output import UNREACHABLE, USAGE, Failure

if TYPE_CHECKING:
    from botocore.session import Session

StackOption = Annotated[
    str | None, typer.Option("--stack", help="Name of a deployed stack (default: the local stack).", metavar="NAME")
]
RegionOption = Annotated[
    str | None,
    typer.Option("--region", metavar="REGION", help="AWS region of that stack (default: your configuration's)."),
]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", metavar="PROFILE", help="AWS profile to use for that stack.")
]

_CONNECT_TIMEOUT_S: Final = 3.0
_READ_TIMEOUT_S: Final = 10.0
_NESTED: Final = "AWS::CloudFormation::Stack"
# CloudFormation allows more; ours nest one level.
_MAX_NESTING: Final = 3
_MAX_PAGES: Final = 20


@dataclass(frozen=True, slots=True)
class StackResource:
    """A resource of a deployed stack or of a stack nested in it; `physical_id` is its name or ARN in AWS."""

    logical_id: str
    type: str
    physical_id: str


@dataclass(frozen=True, slots=True)
class StackState:
    """What CloudFormation says of a stack."""

    status: str
    reason: str
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Account:
    """An AWS account and region, through the user's configuration; clients are made once, their calls bounded."""

    session: "Session"
    _clients: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, region: str | None, profile: str | None) -> "Account":
        """The account that the options name, else the configuration's."""
        from botocore.session import Session

        session = Session(profile=profile)
        if region:
            session.set_config_variable("region", region)
        return cls(session)

    @property
    def region(self) -> str | None:
        """The region, or None where nothing names one. Raises BotoCoreError for a profile that does not exist."""
        found = self.session.get_config_variable("region")
        return str(found) if found else None

    def client(self, service: str) -> Any:
        """A client of any service."""
        if service not in self._clients:
            from botocore.config import Config

            config = Config(
                connect_timeout=_CONNECT_TIMEOUT_S,
                read_timeout=_READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": 2},
            )
            self._clients[service] = self.session.create_client(service, config=config)
        return self._clients[service]

    def stack(self, name: str) -> StackState:
        """The stack's state and outputs. Raises ClientError (a stack that does not exist included), BotoCoreError."""
        (found,) = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        return StackState(
            status=found["StackStatus"],
            reason=found.get("StackStatusReason", ""),
            outputs=_pairs(found.get("Outputs", ()), "OutputKey", "OutputValue"),
            parameters=_pairs(found.get("Parameters", ()), "ParameterKey", "ParameterValue"),
        )

    def resources(self, name: str, *, nesting: int = 0) -> Iterator[StackResource]:
        """The resources of the stack and of those nested in it. Raises ClientError, BotoCoreError."""
        cloudformation = self.client("cloudformation")
        token: dict[str, str] = {}
        for _ in range(_MAX_PAGES):
            page = cloudformation.list_stack_resources(StackName=name, **token)
            for found in page["StackResourceSummaries"]:
                physical_id = found.get("PhysicalResourceId", "")
                if found["ResourceType"] == _NESTED and physical_id and nesting < _MAX_NESTING:
                    yield from self.resources(physical_id, nesting=nesting + 1)
                else:
                    yield StackResource(found["LogicalResourceId"], found["ResourceType"], physical_id)
            if "NextToken" not in page:
                return
            token = {"NextToken": page["NextToken"]}


def stack_outputs(account: Account, stack: str, *needed: str) -> Sequence[str]:
    """The values of these outputs of a deployed stack; Failure if there is no such stack or output."""
    with explained():
        outputs = account.stack(stack).outputs
    if missing := [name for name in needed if name not in outputs]:
        raise Failure(
            f"The stack {stack} has no output {', '.join(missing)}: is it a Sluice, and its deployment complete? "
            f"`sluice doctor --stack {stack}` tells more."
        )
    return [outputs[name] for name in needed]


@contextmanager
def explained() -> Iterator[None]:
    """Errors of botocore as failures, with what to do."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise Failure(f"AWS refused the call: {aws_message(error)}") from error
    except BotoCoreError as error:
        raise unusable(error) from error


def aws_message(error: Exception) -> str:
    """Code and sentence of a ClientError."""
    found: Mapping[str, Any] = getattr(error, "response", {}).get("Error", {})
    return f"{found.get('Code', 'Unknown')}: {found.get('Message', error)}"


def unusable(error: Exception) -> Failure:
    """The failure for a BotoCoreError: no network, no credentials, no region, no such profile."""
    from botocore.exceptions import ConnectionError as CannotConnect
    from botocore.exceptions import HTTPClientError

    if isinstance(error, HTTPClientError | CannotConnect):
        return Failure(f"AWS cannot be reached: {error}", exit_code=UNREACHABLE)
    return Failure(f"Your AWS configuration cannot be used: {error}", exit_code=USAGE)


def _pairs(items: Sequence[Mapping[str, str]], key: str, value: str) -> dict[str, str]:
    return {item[key]: item.get(value, "") for item in items}
