"""CORS as an HTTP API does it: preflight requests are answered by the gateway, other answers get its headers.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html. What a function says about CORS
is ignored, and neither authorizer nor function hears of a preflight request, unless a route takes OPTIONS and has an
authorizer: `$default` in that page, `ANY` in https://github.com/anomalyco/sst/issues/5493. Without confirmation by a
primary source: an origin or a method that is not allowed gets the same 204 without CORS headers, and answers of the
gateway itself (401, 403, 404, 429, …) carry the headers, too.
"""

from collections.abc import Mapping, MutableMapping

from aiohttp import web

from infra.local.stack import CorsSpec

_PREFIX = "access-control-"


class Cors:
    """Applies the CORS configuration of one API."""

    def __init__(self, spec: CorsSpec) -> None:
        self._spec = spec
        self._any_origin = "*" in spec.allow_origins
        self._exact = frozenset(spec.allow_origins)
        # `https://*` is every origin of that scheme.
        self._schemes = tuple(origin[:-1] for origin in spec.allow_origins if origin.endswith("://*"))

    def preflight(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a preflight request, or None for any other request."""
        origin = request.headers.get("Origin")
        method = request.headers.get("Access-Control-Request-Method")
        if request.method != "OPTIONS" or origin is None or method is None:
            return None
        spec = self._spec
        allowed = self._allowed(origin)
        if allowed is None or not ({method, "*"} & set(spec.allow_methods)):
            return web.Response(status=204)
        headers = self._common(allowed)
        headers["Access-Control-Allow-Methods"] = ",".join(spec.allow_methods)
        if spec.allow_headers:
            headers["Access-Control-Allow-Headers"] = ",".join(spec.allow_headers)
        if spec.max_age_s is not None:
            headers["Access-Control-Max-Age"] = str(spec.max_age_s)
        return web.Response(status=204, headers=headers)

    def apply(self, request_headers: Mapping[str, str], headers: MutableMapping[str, str]) -> None:
        """Put the gateway's CORS headers in place of those that a function gave."""
        for name in {name for name in headers if name.lower().startswith(_PREFIX)}:
            del headers[name]
        origin = request_headers.get("Origin")
        allowed = None if origin is None else self._allowed(origin)
        if allowed is None:
            return
        headers.update(self._common(allowed))
        if self._spec.expose_headers:
            headers["Access-Control-Expose-Headers"] = ",".join(self._spec.expose_headers)

    def _allowed(self, origin: str) -> str | None:
        """What `Access-Control-Allow-Origin` says to this origin."""
        if self._any_origin:
            return "*"
        return origin if origin in self._exact or (self._schemes and origin.startswith(self._schemes)) else None

    def _common(self, allowed: str) -> dict[str, str]:
        credentials = {"Access-Control-Allow-Credentials": "true"} if self._spec.allow_credentials else {}
        return {"Access-Control-Allow-Origin": allowed, **credentials}
