"""What went wrong, said once: problems of the API and errors of ours as a message and lines below it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shared.domain.errors import SluiceError
from shared.domain.field_errors import MAX_ERRORS


def sentence(title: str, detail: str) -> str:
    """A detail that is a sentence says what its title says, and more; what is none comes behind its title."""
    if not detail:
        return f"{title}."
    return detail if detail.endswith((".", "?", "!")) and not detail.startswith("/") else f"{title}: {detail}"


def said(title: str, detail: str, places: Iterable[tuple[str, str]] = ()) -> tuple[str, tuple[str, ...]]:
    """The message of a problem, and a line for each further place (JSON pointer and what is wrong there).

    The detail of a problem with places mostly is its first place, and how many more there are. What is none of them
    may say what they say, and they are left out then.
    """
    given = list(places)
    lines = [f"{pointer}: {what}" if pointer else what for pointer, what in given]
    if not lines or not detail.startswith(lines[0].removesuffix(".")):
        new = (line for line, (_, what) in zip(lines, given, strict=True) if what.removesuffix(".") not in detail)
        return sentence(title, detail), tuple(new)
    if len(lines) == 1:
        return f"{title}: {lines[0]}", ()
    return f"{title}.", (*lines, *more_places(detail))


def said_of(error: SluiceError) -> str:
    """An error in one line."""
    return sentence(error.title, error.detail)


def said_of_job(problem: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """What the problem of a job's document says, see `said`."""
    places = ((each["pointer"], each["detail"]) for each in problem.get("errors") or ())
    return said(problem["title"], problem["detail"], places)


def more_places(detail: str) -> Sequence[str]:
    """The note on places beyond those that an error has, if there are any: see `shared.domain.field_errors`."""
    _, opened, rest = detail.rpartition(" (and ")
    number = rest.partition(" more)")[0]
    if not opened or not number.isdecimal() or int(number) < MAX_ERRORS:
        return ()
    return (f"and {int(number) + 1 - MAX_ERRORS} more places",)
