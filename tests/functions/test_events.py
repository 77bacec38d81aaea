"""The files in `tests/events`: of AWS's shape, and each for a route of the template."""

import json
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import (
    ApiGatewayAuthorizerRequestV2,
    APIGatewayProxyEventV2Model,
    DynamoDBStreamModel,
    EventBridgeModel,
    S3EventNotificationEventBridgeModel,
    SnsModel,
    SqsModel,
)
from pydantic import BaseModel

from infra.local.stack import StackSpec
from tests.functions.support import EVENTS

# What comes by itself, from queues, streams, topics and buses.
SENT: dict[str, type[BaseModel]] = {
    "async_result": SnsModel,
    "batch_runner": S3EventNotificationEventBridgeModel,
    "job_sweeper": EventBridgeModel,
    "job_worker": SqsModel,
    "webhook_sender": DynamoDBStreamModel,
}
# What CodeDeploy and CloudWatch Logs send is no request: the tests of their functions run it.
FILES = sorted(
    file for file in EVENTS.glob("*.json") if not file.stem.startswith(("release_check", "telemetry", *SENT))
)


def read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_event_has_the_shape_of_aws(file: Path) -> None:
    model = ApiGatewayAuthorizerRequestV2 if file.stem == "authorizer" else APIGatewayProxyEventV2Model
    parsed = model.model_validate(read(file))
    assert parsed.version == "2.0"
    assert parsed.routeKey == parsed.requestContext.routeKey
    assert parsed.rawPath == parsed.requestContext.http.path


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_event_is_for_a_route_of_its_function(file: Path, stack: StackSpec) -> None:
    event = read(file)
    (api,) = stack.http_apis.values()
    route = next(route for route in api.routes if route.key == event["routeKey"])
    if file.stem == "authorizer":
        assert route.authorizer
        return
    assert route.function.lower().startswith(file.stem.partition("_")[0])
    assert bool(route.authorizer) == ("authorizer" in event["requestContext"])


@pytest.mark.parametrize("name", SENT)
def test_what_comes_by_itself_has_the_shape_of_aws(name: str) -> None:
    event = read(EVENTS / f"{name}.json")
    if name == "job_sweeper":  # the Scheduler sends its detail as text, which the model of the bus does not know
        event["detail"] = json.loads(event["detail"])
    assert SENT[name].model_validate(event)


def test_every_function_has_an_event(stack: StackSpec) -> None:
    names = {name.removesuffix("Function").lower() for name in stack.functions}
    stems = [file.stem.replace("_", "") for file in EVENTS.glob("*.json")]
    assert [name for name in names if not any(stem.startswith(name) for stem in stems)] == []
