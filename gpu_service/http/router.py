"""From a method and a path to the code that answers."""

import re
from collections.abc import Callable, Mapping

from gpu_service.http.exchange import Exchange, Headers
from gpu_service.http.head import Head, segment
from gpu_service.problems import MethodNotAllowed, NoSuchRoute, Report, problem_report
from shared.domain.errors import SluiceError

Handler = Callable[[Exchange], None]

_LONGEST_PATH = 200


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
        self._unknown = Route("unknown", self._no_such_route)
        self._refusing: dict[frozenset[str], Route] = {}
        self._reports: dict[str, Report] = {}

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Answer `method` on `pattern` with `handler`; GET answers HEAD too."""
        route = Route(pattern, handler)
        methods = self._methods(pattern)
        methods[method] = route
        if method == "GET":
            methods["HEAD"] = route

    def report_below(self, path: str, report: Report) -> None:
        """Write the errors of this module with `report` for `path` and what lies below it, as its clients read them."""
        self._reports[path] = report

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
            self._refusing[allowed] = Route("unknown", self._method_not_allowed(methods))
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

    def _no_such_route(self, exchange: Exchange) -> None:
        head = exchange.head
        self._refuse(exchange, NoSuchRoute(f"{head.method} {head.path[:_LONGEST_PATH]} is not served here."))

    def _method_not_allowed(self, methods: Mapping[str, Route]) -> Handler:
        allowed = ", ".join(sorted(methods))

        def answer(exchange: Exchange) -> None:
            head = exchange.head
            detail = f"{head.path[:_LONGEST_PATH]} takes {allowed}, not {head.method}."
            self._refuse(exchange, MethodNotAllowed(detail), [("Allow", allowed)])

        return answer

    def _refuse(self, exchange: Exchange, error: SluiceError, headers: Headers = ()) -> None:
        path = exchange.head.path
        reports = (report for top, report in self._reports.items() if path == top or path.startswith(f"{top}/"))
        problem, media_type = next(reports, problem_report)(error, "")
        exchange.answer(problem.status, problem.body, media_type, headers)
