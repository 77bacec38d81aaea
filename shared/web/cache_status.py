"""`Cache-Control` of a request, `Cache-Status` and `Age` of its answer.

Sources: RFC 9111, sections 5.1 and 5.2.1 (HTTP caching); RFC 9211 (the `Cache-Status` header), whose value is a List of
one Token with parameters (structured fields, RFC 9651).
"""

from typing import Final, NamedTuple

from shared.usecases.keep_answers import CacheStatus

_NAME: Final = "Sluice"
_MAX_HEADER: Final = 1024


class CacheControl(NamedTuple):
    """What a request says of the response cache: no kept answer will do; or nothing is to be read or kept."""

    no_cache: bool = False
    no_store: bool = False


_SAYS_NOTHING: Final = CacheControl()


def cache_control(header: str) -> CacheControl:
    """What the value of `Cache-Control` asks for: `no-cache` (or `max-age=0`, which is the same here) and `no-store`.

    Other directives, and what is beyond 1024 characters, have no effect.
    """
    if not header:
        return _SAYS_NOTHING
    directives = {part.strip().lower().replace('"', "") for part in header[:_MAX_HEADER].split(",")}
    return CacheControl(
        no_cache=not directives.isdisjoint({"no-cache", "max-age=0"}),
        no_store="no-store" in directives,
    )


def cache_status_header(status: CacheStatus) -> str:
    """The value of `Cache-Status`, such as `Sluice; hit; ttl=30` or `Sluice; fwd=miss; stored`; a stale `ttl` is < 0.

    An answer that another request made while this one waited is `fwd=miss; collapsed`.
    """
    parts = [_NAME]
    if status.hit == "joined":
        parts += ["fwd=miss", "collapsed"]
    elif status.forwarded:
        parts.append(f"fwd={status.forwarded}")
    else:
        parts.append("hit")
    if status.stored:
        parts.append("stored")
    elif status.ttl_s is not None:
        parts.append(f"ttl={int(status.ttl_s // 1)}")
    if status.detail:
        parts.append(f"detail={status.detail}")
    return "; ".join(parts)


def cache_headers(status: CacheStatus) -> tuple[tuple[str, str], ...]:
    """`Cache-Status`, and `Age` in whole seconds where the answer was made for another request."""
    header = ("Cache-Status", cache_status_header(status))
    return (header,) if status.forwarded else (header, ("Age", str(int(status.age_s))))
