"""An HTTP API from the OpenAPI body that the SAM transform writes.

Source: "OpenAPI extensions for API Gateway" of the API Gateway developer guide.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from infra.local.intrinsics import TemplateError
from infra.local.resource_types import UnknownResourceType
from infra.local.stack import AuthorizerSpec, CorsSpec, FunctionSpec, HttpApiSpec, RouteSpec, ThrottleSpec
from infra.local.stack_scope import ResolvedResource

_FUNCTION_OF_URI = re.compile(r":lambda:path/2015-03-31/functions/(arn:aws:lambda:[^/]+)/invocations$")
_INTEGRATION = "x-amazon-apigateway-integration"
_AUTHORIZER = "x-amazon-apigateway-authorizer"
_CORS = "x-amazon-apigateway-cors"
_AUTH_TYPE = "x-amazon-apigateway-authtype"
_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch"})


def load_http_api(
    api: ResolvedResource, stages: Sequence[ResolvedResource], functions: Mapping[str, FunctionSpec]
) -> HttpApiSpec:
    """`api` with the stage that refers to it; `functions` are keyed by logical id.

    Raises `TemplateError` for what the local gateway cannot do: other integrations than Lambda's payload 2.0, other
    authorizers than IAM's and Lambda's with simple responses, several stages.
    """
    if api.properties.get("ProtocolType", "HTTP") != "HTTP":
        raise UnknownResourceType({api.logical_id: f"{api.type} ({api.properties['ProtocolType']})"})
    where = f"Resources.{api.logical_id}.Properties.Body"
    body = api.properties.get("Body")
    if not isinstance(body, Mapping):
        raise TemplateError(f"{where}: the local gateway reads the routes of an HTTP API from its OpenAPI body.")
    if "x-amazon-apigateway-policy" in body:
        raise TemplateError(f"{where}: the local gateway does not support x-amazon-apigateway-policy.")
    own = [stage for stage in stages if stage.properties.get("ApiId") == api.ref]
    if len(own) != 1:
        raise TemplateError(f"Resources.{api.logical_id}: the local gateway needs one stage, the API has {len(own)}.")
    stage = own[0]
    by_arn = {function.arn: logical_id for logical_id, function in functions.items()}
    schemes = body.get("components", {}).get("securitySchemes", {})
    authorizers = {
        name: _authorizer(name, scheme[_AUTHORIZER], by_arn, f"{where}.components.securitySchemes.{name}")
        for name, scheme in schemes.items()
        if _AUTHORIZER in scheme
    }
    signed = frozenset(name for name, scheme in schemes.items() if scheme.get(_AUTH_TYPE) == "awsSigv4")
    return HttpApiSpec(
        logical_id=api.logical_id,
        api_id=api.ref,
        stage=stage.name,
        routes=tuple(_routes(body, by_arn, frozenset(authorizers), signed, where)),
        authorizers=authorizers,
        cors=_cors(api.properties.get("CorsConfiguration", body.get(_CORS, {})), where),
        throttle=_throttle(stage.properties.get("DefaultRouteSettings", {})),
        route_throttles={
            key: _throttle(settings)
            for key, settings in stage.properties.get("RouteSettings", {}).items()
            if "ThrottlingRateLimit" in settings or "ThrottlingBurstLimit" in settings
        },
    )


def _cors(configuration: Mapping[str, Any], where: str) -> CorsSpec | None:
    """From the OpenAPI extension, or from the property, whose names begin with capital letters."""
    facts = {name[0].lower() + name[1:]: value for name, value in configuration.items()}

    def texts(name: str) -> tuple[str, ...]:
        value = facts.get(name, [])
        items = value if isinstance(value, list) else str(value).split(",")
        return tuple(text for item in items if (text := str(item).strip()))

    spec = CorsSpec(
        allow_origins=texts("allowOrigins"),
        allow_methods=tuple(method.upper() for method in texts("allowMethods")),
        allow_headers=texts("allowHeaders"),
        expose_headers=texts("exposeHeaders"),
        max_age_s=int(facts["maxAge"]) if "maxAge" in facts else None,
        allow_credentials=str(facts.get("allowCredentials", False)).lower() == "true",
    )
    if spec.allow_credentials and "*" in spec.allow_origins:
        raise TemplateError(f"{where}: CORS with credentials needs named origins in place of *.")
    return spec if spec.allow_origins else None


def _throttle(settings: Mapping[str, Any]) -> ThrottleSpec:
    account = ThrottleSpec()
    return ThrottleSpec(
        rate=float(settings.get("ThrottlingRateLimit", account.rate)),
        burst=int(settings.get("ThrottlingBurstLimit", account.burst)),
    )


def _routes(
    body: Mapping[str, Any],
    by_arn: Mapping[str, str],
    authorizers: frozenset[str],
    signed: frozenset[str],
    where: str,
) -> list[RouteSpec]:
    """`authorizers` are the names of Lambda authorizers, `signed` those of security schemes that are AWS signatures."""
    routes = []
    for path, operations in body.get("paths", {}).items():
        for verb, operation in operations.items():
            if verb != "x-amazon-apigateway-any-method" and verb not in _METHODS:
                continue
            place = f"{where}.paths.{path}.{verb}"
            integration = operation.get(_INTEGRATION)
            if not isinstance(integration, Mapping):
                raise TemplateError(f"{place}: the route has no integration.")
            security = operation.get("security", body.get("security", []))
            names = [name for requirement in security for name in requirement if name != "NONE"]
            if len(names) > 1 or not authorizers | signed >= set(names):
                raise TemplateError(f"{place}: the local gateway does not know the authorizer {', '.join(names)}.")
            routes.append(
                RouteSpec(
                    method="ANY" if verb.startswith("x-") else verb.upper(),
                    path=path,
                    function=_lambda_integration(integration, by_arn, place),
                    authorizer=names[0] if authorizers & set(names) else None,
                    iam=bool(signed & set(names)),
                    timeout_s=float(integration.get("timeoutInMillis", 30_000)) / 1000,
                )
            )
    # The transform writes paths in the order of a set; the same template gives the same routes.
    return sorted(routes, key=lambda route: (route.path, route.method))


def _lambda_integration(integration: Mapping[str, Any], by_arn: Mapping[str, str], where: str) -> str:
    kind, version = integration.get("type"), str(integration.get("payloadFormatVersion", ""))
    if str(kind).lower() != "aws_proxy" or version != "2.0":
        raise TemplateError(
            f"{where}: the local gateway integrates Lambda functions with payload 2.0 only, not {kind} {version}."
        )
    return _function(integration.get("uri"), by_arn, where)


def _authorizer(name: str, facts: Mapping[str, Any], by_arn: Mapping[str, str], where: str) -> AuthorizerSpec:
    simple = str(facts.get("enableSimpleResponses", False)).lower() == "true"
    version = str(facts.get("authorizerPayloadFormatVersion", ""))
    if facts.get("type") != "request" or version != "2.0" or not simple:
        raise TemplateError(
            f"{where}: the local gateway runs Lambda authorizers with payload format 2.0 and simple responses only."
        )
    sources = facts.get("identitySource", [])
    sources = sources if isinstance(sources, list) else [source.strip() for source in str(sources).split(",")]
    return AuthorizerSpec(
        name=name,
        function=_function(facts.get("authorizerUri"), by_arn, where),
        identity_sources=tuple(str(source) for source in sources),
        ttl_s=int(facts.get("authorizerResultTtlInSeconds", 300)),
    )


def _function(uri: Any, by_arn: Mapping[str, str], where: str) -> str:
    """The logical id behind an integration address; a version or an alias in it means the function itself here."""
    match = _FUNCTION_OF_URI.search(str(uri))
    if match is None:
        raise TemplateError(f"{where}: {uri!r} is not the address of a Lambda function.")
    unqualified = ":".join(match[1].split(":")[:7])
    if unqualified not in by_arn:
        raise TemplateError(f"{where}: {unqualified} is no function of this stack.")
    return by_arn[unqualified]
