"""Which route of an HTTP API a request takes.

Documented in https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html: full matches
come before greedy path variables, those before `$default`. Observed by others on AWS and followed here: a method beats
`ANY`, a literal segment beats a variable, the longest literal prefix wins among greedy routes, a variable or a greedy
variable takes no empty value. There is no 405.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from infra.local.stack import RouteSpec

DEFAULT = "$default"


@dataclass(frozen=True, slots=True)
class Match:
    """The route of a request, with the values of its path variables."""

    route: RouteSpec
    path_parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Pattern:
    route: RouteSpec
    segments: tuple[str, ...]
    greedy: str | None

    @property
    def rank(self) -> tuple[object, ...]:
        variable = tuple(_is_variable(segment) for segment in self.segments)
        return (self.greedy is not None, self.route.method == "ANY", -len(self.segments), variable)

    def match(self, segments: list[str]) -> dict[str, str] | None:
        count = len(self.segments)
        if len(segments) <= count if self.greedy else len(segments) != count:
            return None
        values: dict[str, str] = {}
        for pattern, segment in zip(self.segments, segments, strict=False):
            if _is_variable(pattern):
                if not segment:
                    return None
                values[pattern[1:-1]] = segment
            elif pattern != segment:
                return None
        if self.greedy:
            rest = "/".join(segments[count:])
            if not rest:
                return None
            values[self.greedy] = rest
        return values


class Router:
    """Selects routes by AWS's priorities."""

    def __init__(self, routes: Iterable[RouteSpec]) -> None:
        self._default: RouteSpec | None = None
        self._literal: dict[tuple[str, str], RouteSpec] = {}
        patterns = []
        for route in routes:
            if route.path == DEFAULT:
                self._default = route
                continue
            pattern = _compile(route)
            patterns.append(pattern)
            if route.method != "ANY" and pattern.greedy is None and not any(map(_is_variable, pattern.segments)):
                self._literal[route.method, route.path] = route
        self._patterns = sorted(patterns, key=lambda pattern: pattern.rank)

    def match(self, method: str, path: str) -> Match | None:
        """The route for a method and a percent-decoded path, or None: 404."""
        literal = self._literal.get((method, path))
        if literal is not None:
            return Match(literal, {})
        segments = path.split("/")[1:]
        for pattern in self._patterns:
            if pattern.route.method in {method, "ANY"}:
                values = pattern.match(segments)
                if values is not None:
                    return Match(pattern.route, values)
        return None if self._default is None else Match(self._default, {})


def _compile(route: RouteSpec) -> _Pattern:
    segments = route.path.split("/")[1:]
    greedy = None
    if segments[-1].startswith("{") and segments[-1].endswith("+}"):
        greedy = segments.pop()[1:-2]
    return _Pattern(route, tuple(segments), greedy)


def _is_variable(segment: str) -> bool:
    return segment.startswith("{") and segment.endswith("}")
