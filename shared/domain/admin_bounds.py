"""Bounds of what administrators set: the same in the API's documents, in the use cases and in the command."""

from typing import Final

MAX_DESCRIPTION: Final = 500  # characters

# Keys.
MAX_KEY_NAME: Final = 64  # characters
MAX_SCOPES: Final = 100
MAX_LIFETIME_S: Final = 10 * 365 * 86_400
DEFAULT_OVERLAP_S: Final = 86_400
MAX_OVERLAP_S: Final = 30 * 86_400

# Plans.
MIN_RATE: Final = 1e-5  # requests a second: one a day
MAX_RATE: Final = 1e6
MAX_BURST: Final = 1_000_000
MAX_SHARDS: Final = 64
MAX_QUOTA: Final = 10**15  # exact in every JSON parser
MAX_KEYS: Final = 1000

# Usage.
MAX_USAGE_DAYS: Final = 366

# Endpoints.
MAX_TRAFFIC_DAYS: Final = 366
MAX_NOTE: Final = 500  # characters, of a change of an endpoint
