"""The `RateLimit` and `RateLimit-Policy` headers of an answer.

Source: draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4. They are Lists of Strings with Integers as parameters
(structured fields, RFC 9651): `q` and `w` are the quota and its window in seconds, `r` and `t` what remains and in how
many seconds there is more. The quota unit is the default one, requests.
"""

from shared.domain.errors import SluiceError
from shared.domain.ports import Allowance, LimitReached


def rate_limit_headers(allowance: Allowance) -> dict[str, str]:
    """The headers that say how a caller stands; none if nobody counted."""
    if not allowance.policies:
        return {}
    return {
        "RateLimit-Policy": ", ".join(
            f'"{policy.name}";q={policy.quota};w={policy.window_s}' for policy in allowance.policies
        ),
        "RateLimit": ", ".join(
            f'"{policy.name}";r={policy.remaining};t={policy.reset_s}' for policy in allowance.policies
        ),
    }


def rate_limit_headers_of(error: SluiceError) -> dict[str, str]:
    """The same for an error: none unless a limit was reached."""
    return rate_limit_headers(error.allowance) if isinstance(error, LimitReached) else {}
