"""Calls another Lambda function and waits for its answer."""

import json
from typing import TYPE_CHECKING, Any

from shared.adapters.aws import aws_errors
from shared.domain.errors import BackendError

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

_WHAT = "The function"
_MAX_MESSAGE = 500


class LambdaFunction:
    """`name` is a name or an ARN, with or without a qualifier.

    The client must not retry a call that timed out: the function may still be at it. Its read timeout bounds the call.
    """

    def __init__(self, client: "LambdaClient", name: str) -> None:
        self._client = client
        self._name = name

    def __call__(self, event: dict[str, Any]) -> Any:
        """The handler's answer, a JSON document. BackendError if it raised, or as `aws_errors` says."""
        with aws_errors(_WHAT):
            answer = self._client.invoke(FunctionName=self._name, Payload=json.dumps(event).encode())
            with answer["Payload"] as stream:
                payload = stream.read()  # Lambda's own limit is 6 MB
        try:
            document = json.loads(payload)
        except ValueError as error:
            raise BackendError("The function answered with something that is no JSON.") from error
        if kind := answer.get("FunctionError"):
            said = document if isinstance(document, dict) else {}
            reason = f"{said.get('errorType', kind)}: {said.get('errorMessage', '')}"
            raise BackendError(f"The function failed: {reason[:_MAX_MESSAGE]}")
        return document
