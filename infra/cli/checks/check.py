"""One check of `sluice doctor`: what was found, and what to do."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from infra.cli.deployed import aws_message, unusable
from infra.cli.output import UNREACHABLE, Failure


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`found` is one sentence; `advice` another one, empty where nothing needs doing.

    `unreachable` says that it failed because AWS, the API or the stack did not answer.
    """

    status: Status
    found: str
    advice: str = ""
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """A named check."""

    name: str
    run: Callable[[], Outcome]


@dataclass(frozen=True, slots=True)
class Result:
    """A check that was made."""

    name: str
    outcome: Outcome

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, **asdict(self.outcome)}


def ok(found: str) -> Outcome:
    """Nothing to do."""
    return Outcome(Status.OK, found)


def warning(found: str, advice: str) -> Outcome:
    """Works, or may work, but deserves a look."""
    return Outcome(Status.WARNING, found, advice)


def failed(found: str, advice: str, *, unreachable: bool = False) -> Outcome:
    """Does not work."""
    return Outcome(Status.FAILED, found, advice, unreachable)


def run(checks: Iterable[Check]) -> Iterator[Result]:
    """Make the checks one after the other; an error of AWS or of the API is an outcome, not the end."""
    for check in checks:
        yield Result(check.name, _outcome(check))


def _outcome(check: Check) -> Outcome:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    try:
        return check.run()
    except ClientError as error:
        return failed(f"AWS refused the call: {aws_message(error)}.", _advice(aws_message(error)))
    except NoCredentialsError:
        return failed(
            "There are no AWS credentials.",
            "Sign in (`aws sso login` or `aws configure`), or name a profile with --profile.",
            unreachable=True,
        )
    except NoRegionError:
        return failed("No AWS region is set.", "Name one with --region, or set AWS_REGION.")
    except BotoCoreError as error:
        failure = unusable(error)
        unreachable = failure.exit_code == UNREACHABLE
        advice = "Check the network and proxy." if unreachable else "Check --profile and your AWS configuration."
        return failed(failure.message, advice, unreachable=unreachable)
    except Failure as failure:
        return failed(failure.message, " ".join(failure.details), unreachable=failure.exit_code == UNREACHABLE)


def _advice(message: str) -> str:
    code = message.partition(":")[0]
    if code.startswith(("AccessDenied", "Unauthorized")):
        return "Use credentials that may make this call: all that doctor needs is read-only."
    if code in {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}:
        return "Sign in again: these credentials are not, or no longer, valid."
    return "Check the name and the region."
