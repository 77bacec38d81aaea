"""Times and days on the command line."""

from datetime import UTC, date, datetime

from infra.cli.output import USAGE, Failure


def time_text(moment: str | float | None, without: str = "") -> str:
    """A time for people, such as `2026-11-21 17:44:30Z`: UTC, to the second; `without` where there is none.

    `moment` is RFC 3339, or seconds since 1970. JSON output keeps RFC 3339 as the API has it.
    """
    if moment is None or moment == "":
        return without
    try:
        when = datetime.fromisoformat(moment) if isinstance(moment, str) else datetime.fromtimestamp(moment, UTC)
    except ValueError:  # of another API than this release's: better as it is than not at all
        return str(moment)
    utc = when.astimezone(UTC) if when.tzinfo else when
    return f"{utc.replace(tzinfo=None).isoformat(' ', 'seconds')}Z"


def day_of(text: str | None) -> date | None:
    """The day that an option names, None where it names none; Failure for what is no day."""
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise Failure(f"{text!r} is no day: 2026-11-21, for example.", exit_code=USAGE) from None
