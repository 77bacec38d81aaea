"""Revisions of endpoints that commands are asked for, and that may not be there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infra.cli.output import USAGE, Failure
from shared.domain.errors import RevisionNotFound

if TYPE_CHECKING:
    from shared.usecases.manage_endpoints import ManageEndpoints


def check_revision(name: str, revision: int | None) -> None:
    """Failure for a number that no revision has."""
    if revision is not None and revision < 1:
        raise Failure(
            f"There is no revision {revision}: they begin at 1, see `sluice endpoints history {name}`. Before that the "
            f"defaults hold; `sluice apply` sets them again with a file that has nothing but `endpoint: {name}`.",
            exit_code=USAGE,
        )


@contextmanager
def known_revisions(manage: "ManageEndpoints", name: str) -> Iterator[None]:
    """A revision that is not there as a failure that tells which are."""
    try:
        yield
    except RevisionNotFound as error:
        raise Failure(f"There is no such revision: {kept_of(name, manage.get(name).revision)}.") from error


def kept_of(name: str, newest: int) -> str:
    """Which revisions an endpoint has whose newest is `newest`; 0 where nothing is stored."""
    from shared.adapters.dynamodb_endpoints import KEPT_REVISIONS

    if not newest:
        return f"nothing was ever set for {name}"
    oldest = max(1, newest - KEPT_REVISIONS + 1)
    kept = f"only revision {newest}" if oldest == newest else f"the revisions {oldest} to {newest}"
    return f"{name} has {kept}, see `sluice endpoints history {name}`"
