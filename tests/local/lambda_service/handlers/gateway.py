"""An authorizer and a function behind the local gateway."""

import json
from typing import Any


def allow(event: Any, context: Any) -> Any:
    return {"isAuthorized": True, "context": {"key": event["identitySource"][0]}}


def answer(event: Any, context: Any) -> Any:
    document = {
        "name": event["pathParameters"]["name"],
        "key": event["requestContext"]["authorizer"]["lambda"]["key"],
        "body": event["body"],
    }
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(document)}
