"""From a method and a path to the code that answers."""

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus

from gpu_service.http.exchange import Exchange
from gpu_service.http.head import Head, segment
from gpu_service.problems import MEDIA_TYPE, problem_document

Handler = Callable[[Exchange], None]


class Route:
    """A handler with the pattern under which its answers are counted, by status."""

    __slots__ = ("answers", "handler", "pattern")

    def __init__(self, pattern: str, handler: Handler) -> None:
        self.pattern = pattern
        self.handler = handler
        self.answers: dict[int, int] = {}


class Router:
    """Patterns are paths with `{name}` for one segment; a fixed path comes before one with names."""

    def __init__(self) -> None:
        self._fixed: dict[str, dict[str, Route]] = {}
        self._named: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        self._unknown = Route("unknown", _no_such_route)
        self._refusing: dict[frozenset[str], Route] = {}

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Answer `method` on `pattern` with `handler`; GET answers HEAD too."""
        route = Route(pattern, handler)
        methods = self._methods(pattern)
        methods[method] = route
        if method == "GET":
            methods["HEAD"] = route

    def _methods(self, pattern: str) -> dict[str, Route]:
        if "{" not in pattern:
            return self._fixed.setdefault(pattern, {})
        compiled = re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(pattern)))
        for known, methods in self._named:
            if known.pattern == compiled.pattern:
                return methods
        methods = {}
        self._named.append((compiled, methods))
        return methods

    def route(self, head: Head) -> None:
        """Set the head's route and the values of its named segments, percent-decoded."""
        methods, params = self._find(head.path)
        if methods is None:
            head.route = self._unknown
            return
        head.params = params
        head.route = methods.get(head.method) or self._refusal(methods)

    def routes(self) -> set[tuple[str, str]]:
        """Every method and pattern that is served."""
        tables = (*self._fixed.values(), *(methods for _, methods in self._named))
        return {(method, route.pattern) for methods in tables for method, route in methods.items()}

    def answers(self) -> dict[tuple[str, int], int]:
        """How many answers there were, by route and status."""
        routes = [self._unknown, *self._refusing.values()]
        for methods in (*self._fixed.values(), *(methods for _, methods in self._named)):
            routes += methods.values()
        counts: dict[tuple[str, int], int] = {}
        for route in dict.fromkeys(routes):
            for status, count in route.answers.items():
                key = (route.pattern, status)
                counts[key] = counts.get(key, 0) + count
        return counts

    def _refusal(self, methods: Mapping[str, Route]) -> Route:
        allowed = frozenset(methods)
        if allowed not in self._refusing:
            self._refusing[allowed] = Route("unknown", _method_not_allowed(methods))
        return self._refusing[allowed]

    def _find(self, path: str) -> tuple[dict[str, Route] | None, Mapping[str, str]]:
        methods = self._fixed.get(path)
        if methods is None and len(path) > 1 and path.endswith("/"):
            methods = self._fixed.get(path.rstrip("/"))
        if methods is not None:
            return methods, {}
        for pattern, methods in self._named:
            match = pattern.fullmatch(path)
            if match:
                return methods, {name: segment(value) for name, value in match.groupdict().items()}
        return None, {}


def _no_such_route(exchange: Exchange) -> None:
    detail = f"{exchange.head.method} {exchange.head.path[:200]} is not served here."
    status = HTTPStatus.NOT_FOUND
    problem = problem_document(status, "no_such_route", status.phrase, detail, "")
    exchange.answer(problem.status, problem.body, MEDIA_TYPE)


def _method_not_allowed(methods: Mapping[str, Route]) -> Handler:
    allowed = ", ".join(sorted(methods))

    def answer(exchange: Exchange) -> None:
        status = HTTPStatus.METHOD_NOT_ALLOWED
        detail = f"{exchange.head.path[:200]} takes {allowed}, not {exchange.head.method}."
        problem = problem_document(status, "method_not_allowed", status.phrase, detail, "")
        exchange.answer(problem.status, problem.body, MEDIA_TYPE, [("Allow", allowed)])

    return answer
