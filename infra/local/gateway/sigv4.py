"""IAM authorization of an HTTP API: Signature Version 4 of the one identity that this machine has.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-access-control-iam.html and "Create a
signed AWS API request" of the IAM user guide. The signature is computed again, by botocore, over what arrived; clocks
may differ by five minutes. `UNSIGNED-PAYLOAD` belongs to S3 and is refused. Not known here, and so refused: signatures
in the query string, those with a `Date` in place of `X-Amz-Date`, and SigV4A. IAM's policies have no effect locally:
whoever has the keys may call every route.
"""

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from infra.local.aws_client import ACCESS_KEY, SECRET_KEY
from infra.local.gateway.authorizer import ForbiddenError
from infra.local.stack import ACCOUNT_ID, REGION

SERVICE: Final = "execute-api"
MAX_SKEW: Final = timedelta(minutes=5)
USER_ARN: Final = f"arn:aws:iam::{ACCOUNT_ID}:user/local"
_USER_ID: Final = "AIDALOCAL00000000000"
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_TIME: Final = "%Y%m%dT%H%M%SZ"
_HEADER_NAMES: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+(?:;[!#$%&'*+.^_`|~0-9a-z-]+)*")


def authorize(request: web.BaseRequest, body: bytes, now: datetime | None = None) -> dict[str, Any]:
    """The `iam` object of the event's `requestContext.authorizer`.

    Raises:
        ForbiddenError: the request is not signed, or not as it should be; API Gateway does not say why.

    """
    try:
        _verify(request, body, now or datetime.now(UTC))
    except (KeyError, ValueError) as error:  # UnicodeError is a ValueError
        raise ForbiddenError from error
    return {
        "accessKey": ACCESS_KEY,
        "accountId": ACCOUNT_ID,
        "callerId": _USER_ID,
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": USER_ARN,
        "userId": _USER_ID,
    }


class _AsReceived(SigV4Auth):
    """Signs the headers that the caller signed, with the values that arrived."""

    def __init__(self, headers: HTTPHeaders) -> None:
        super().__init__(Credentials(ACCESS_KEY, SECRET_KEY), SERVICE, REGION)
        self._headers = headers

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:  # noqa: ARG002 - all that was signed is known
        return self._headers


def _verify(request: web.BaseRequest, body: bytes, now: datetime) -> None:
    algorithm, _, parameters = request.headers["Authorization"].partition(" ")
    parts = dict(part.strip().split("=", 1) for part in parameters.split(","))
    credential, names, signature = parts["Credential"], parts["SignedHeaders"], parts["Signature"]
    timestamp = request.headers["X-Amz-Date"]
    if algorithm != _ALGORITHM or abs(now - datetime.strptime(timestamp, _TIME).replace(tzinfo=UTC)) > MAX_SKEW:
        raise ValueError("the algorithm or the time")
    scope = f"{ACCESS_KEY}/{timestamp[:8]}/{REGION}/{SERVICE}/aws4_request"
    if not hmac.compare_digest(credential.encode(), scope.encode()):
        raise ValueError("the credential")
    if _HEADER_NAMES.fullmatch(names) is None or not {"host", "x-amz-date"} <= set(names.split(";")):
        raise ValueError("the signed headers")
    digest = hashlib.sha256(body).hexdigest()
    if not hmac.compare_digest(request.headers.get("X-Amz-Content-SHA256", digest).encode(), digest.encode()):
        raise ValueError("the payload")
    if not hmac.compare_digest(signature.encode(), _signature(request, names, timestamp, digest).encode()):
        raise ValueError("the signature")


def _signature(request: web.BaseRequest, names: str, timestamp: str, digest: str) -> str:
    headers = HTTPHeaders()
    for name in names.split(";"):
        for value in request.headers.getall(name):
            headers.add_header(name, value)
    signer = _AsReceived(headers)
    received = AWSRequest(request.method, f"http://local{request.raw_path}", {"X-Amz-Content-SHA256": digest})
    received.context["timestamp"] = timestamp
    signature: str = signer.signature(signer.string_to_sign(received, signer.canonical_request(received)), received)
    return signature
