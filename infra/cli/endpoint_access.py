"""The configurations of endpoints on the stores of a stack, and who changes them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from infra.cli.output import FAILED, USAGE, Failure
from infra.cli.problems import more_places, said_of
from infra.cli.stores import explained, find_stores
from shared.domain.errors import InvalidRequest, NotFound, SluiceError

if TYPE_CHECKING:
    from shared.usecases.manage_endpoints import ManageEndpoints

_OUTPUTS: Final = ("EndpointsTableName", "ModelsTableName")
# Where errors place shares that a command was given.
_SHARES: Final = "/shares/"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A stack's endpoints; `author` tells whose changes these are, and may ask AWS."""

    manage: "ManageEndpoints"
    author: Callable[[], str]

    @classmethod
    def of(cls, stack: str | None, region: str | None, profile: str | None) -> "Endpoints":
        """Those of a deployed stack by its name, or of the local one; Failure if it is not there."""
        from shared.adapters.backends.registry import Registry
        from shared.adapters.backends.resources import Resources
        from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
        from shared.adapters.dynamodb_models import DynamoDBModels
        from shared.usecases.manage_endpoints import ManageEndpoints

        with explained():
            make, (endpoints, models) = find_stores(stack, region, profile, _OUTPUTS)
            dynamodb = make("dynamodb")
        manage = ManageEndpoints(
            DynamoDBEndpoints(dynamodb, endpoints),
            Registry(Resources() if stack else Resources(allow_loopback=True)),  # checks options, and makes no backend
            DynamoDBModels(dynamodb, models),
        )
        return cls(manage, _user if stack is None else (lambda: _arn(make) or _user()))


@contextmanager
def told() -> Iterator[None]:
    """What may go wrong with a change as failures, each place on a line of its own."""
    try:
        with explained_stores():
            yield
    except InvalidRequest as error:
        raise _failure(error, USAGE) from error
    except NotFound as error:
        raise _failure(error, FAILED) from error


@contextmanager
def explained_stores() -> Iterator[None]:
    """Stores out of reach and unusable credentials as failures; what is wrong with a configuration passes."""
    passing: SluiceError | None = None
    with explained():
        try:
            yield
        except InvalidRequest as error:
            passing = error
    if passing is not None:
        raise passing


def _failure(error: SluiceError, exit_code: int) -> Failure:
    if not error.fields:
        return Failure(said_of(error), exit_code=exit_code)
    lines = [f"{_option(field.pointer)}{field.detail}" for field in error.fields]
    if len(lines) == 1:
        return Failure(lines[0], exit_code=exit_code)
    return Failure(f"{error.title}.", exit_code=exit_code, details=(*lines, *more_places(error.detail)))


def _option(where: str) -> str:
    return f"{where.removeprefix(_SHARES)}: " if where else ""


def _user() -> str:
    from getpass import getuser

    try:
        return f"cli:{getuser()}"
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "cli"


def _arn(make: Callable[[str], Any]) -> str:
    """The ARN of whoever is signed in; empty where that cannot be asked, for it decides nothing."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return str(make("sts").get_caller_identity()["Arn"])
    except (BotoCoreError, ClientError):
        return ""
