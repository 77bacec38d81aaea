"""What of the API is deprecated, in one place: headers of answers and the OpenAPI document follow from it.

Sources: RFC 9745 (Deprecation), RFC 8594 (Sunset), RFC 9651 (dates as structured fields).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime


@dataclass(frozen=True, slots=True)
class Deprecation:
    """A route that goes away: since when it is deprecated, when it ends (None: not decided), and where to read more."""

    since: datetime
    sunset: datetime | None = None
    link: str = ""

    def headers(self) -> dict[str, str]:
        """What every answer of the route carries."""
        headers = {"Deprecation": f"@{int(self.since.timestamp())}"}
        if self.sunset is not None:
            headers["Sunset"] = format_datetime(self.sunset.astimezone(UTC), usegmt=True)
        if self.link:
            headers["Link"] = f'<{self.link}>; rel="deprecation"'
        return headers


Deprecations = Mapping[str, Deprecation]
"""By route, such as `GET /v1/models/{model}`."""

# Nothing is, yet. An entry here is all that it takes.
DEPRECATED: Deprecations = {}
