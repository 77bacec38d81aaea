"""The local stack as the commands see it."""

from infra.cli.output import UNREACHABLE, Failure
from infra.local.home import Home, LocalStack


def running_stack() -> LocalStack:
    """The stack that `.sluice/local.json` describes; Failure with exit code 3 if none is up."""
    local = Home.find().read()
    if local is None:
        raise Failure("The stack is not up. Start it with `sluice up` (or `make run`).", exit_code=UNREACHABLE)
    return local
