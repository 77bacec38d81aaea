"""What the gateway gets from a template beside routes and Lambda authorizers: CORS, IAM, throttles."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from infra.local.stack import CorsSpec, HttpApiSpec, ThrottleSpec
from infra.local.template import TemplateError, load_stack

ROOT = Path(__file__).parents[2]

SAM = """\
    Transform: AWS::Serverless-2016-10-31
    Parameters: {Rate: {Type: Number, Default: 50}}
    Globals: {Function: {Runtime: python3.13, CodeUri: ., Handler: h.h}}
    Resources:
      Api:
        Type: AWS::Serverless::HttpApi
        Properties:
          CorsConfiguration: %s
          DefaultRouteSettings: {ThrottlingRateLimit: !Ref Rate, ThrottlingBurstLimit: 100}
          RouteSettings:
            POST /iam/predict: {ThrottlingBurstLimit: 7}
            POST /predict: {DetailedMetricsEnabled: true}
          Auth:
            EnableIamAuthorizer: true
            DefaultAuthorizer: Key
            Authorizers:
              Key:
                FunctionArn: !GetAtt Predict.Arn
                AuthorizerPayloadFormatVersion: "2.0"
                EnableSimpleResponses: true
                Identity: {Headers: [Authorization]}
      Predict:
        Type: AWS::Serverless::Function
        Properties:
          Events:
            Key: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: POST, Path: /predict}}
            Iam:
              Type: HttpApi
              Properties: {ApiId: !Ref Api, Method: POST, Path: /iam/predict, Auth: {Authorizer: AWS_IAM}}
            Open: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: /health, Auth: {Authorizer: NONE}}}
"""


def loaded(folder: Path, cors: str = "{AllowOrigins: []}") -> HttpApiSpec:
    path = folder / "template.yaml"
    path.write_text(dedent(SAM % cors))
    (api,) = load_stack(path).http_apis.values()
    return api


def test_routes_are_open_signed_or_ask_their_authorizer(tmp_path: Path) -> None:
    routes = {route.key: (route.authorizer, route.iam) for route in loaded(tmp_path).routes}
    assert routes == {
        "GET /health": (None, False),
        "POST /iam/predict": (None, True),
        "POST /predict": ("Key", False),
    }


def test_throttles_are_the_stages(tmp_path: Path) -> None:
    api = loaded(tmp_path)
    assert api.throttle == ThrottleSpec(rate=50.0, burst=100)
    assert api.route_throttles == {"POST /iam/predict": ThrottleSpec(rate=10_000.0, burst=7)}


@pytest.mark.parametrize(
    ("configuration", "spec"),
    [
        ("{AllowOrigins: []}", None),
        ("{AllowMethods: [GET]}", None),
        ("true", CorsSpec(("*",))),
        (
            "{AllowOrigins: ['https://a.example', 'https://*'], AllowMethods: [get, '*'], AllowHeaders: [x-a],"
            " ExposeHeaders: [x-b], MaxAge: 5, AllowCredentials: true}",
            CorsSpec(("https://a.example", "https://*"), ("GET", "*"), ("x-a",), ("x-b",), 5, True),
        ),
    ],
)
def test_cors_is_read_as_the_transform_writes_it(configuration: str, spec: Any, tmp_path: Path) -> None:
    assert loaded(tmp_path, configuration).cors == spec


def test_credentials_for_every_origin_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="CORS with credentials needs named origins"):
        loaded(tmp_path, "{AllowOrigins: ['https://a.example', '*'], AllowCredentials: true}")


def test_the_projects_api_has_cors_only_for_the_origins_it_is_given() -> None:
    def cors(origins: str) -> CorsSpec | None:
        (api,) = load_stack(ROOT / "template.yaml", parameters={"CorsAllowOrigins": origins}).http_apis.values()
        return api.cors

    assert cors("") is None
    several = cors("https://app.example,http://localhost:3000,https://*")
    assert several is not None
    assert several.allow_origins == ("https://app.example", "http://localhost:3000", "https://*")
    assert {"authorization", "idempotency-key"} <= set(several.allow_headers)
    assert {"x-request-id", "retry-after"} <= set(several.expose_headers)
    assert not several.allow_credentials
    for wrong in ("app.example", "https://a.example, https://b.example", "https://a.example/path", "https://a,"):
        with pytest.raises(TemplateError, match="CorsAllowOrigins"):
            cors(wrong)


def test_the_projects_throttle_is_its_parameters() -> None:
    given = {"ThrottlingRate": "7", "ThrottlingBurst": "9"}
    (api,) = load_stack(ROOT / "template.yaml", parameters=given).http_apis.values()
    assert api.throttle == ThrottleSpec(7.0, 9)
