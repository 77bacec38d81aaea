"""The local stack as the commands see it."""

from pathlib import Path

from infra.cli.output import UNREACHABLE, Failure
from infra.local.home import MARK, Home, LocalStack


def running_stack() -> LocalStack:
    """The stack that `local.json` describes; Failure with exit code 3 if none is up."""
    home = Home.find()
    local = home.read()
    if local is None:
        raise Failure(not_up(home), exit_code=UNREACHABLE)
    return local


def not_up(home: Home) -> str:
    """What to say where no stack runs: also where it was looked for, since that depends on the current folder."""
    return (
        f"No stack is up in {home.folder}. Start it with `sluice up` (or `make run`), or go to the folder of the "
        "project whose stack is meant (SLUICE_HOME names another)."
    )


def shown(path: Path) -> str:
    """A path as a message gives it: as it would be typed here, if it lies in the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def project_root(home: Home) -> Path:
    """The folder with the template: that around `.sluice`, else the current one, as `sluice up` chooses it."""
    return home.folder.parent if (home.folder.parent / MARK).is_file() else Path.cwd()
