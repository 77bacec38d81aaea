"""Presigned requests of the local S3, signed by botocore: what S3 takes is taken, and nothing else."""

import hashlib
import http.client
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from infra.local.aws_client import ACCESS_KEY, SECRET_KEY, isolated_session, local_client
from infra.local.stack import REGION
from tests.adapters.samples import unique
from tests.conftest import LocalAws

BODY = b"a,b\n1,2\n"
SHA256 = b64encode(hashlib.sha256(BODY).digest()).decode()


def at(monkeypatch: pytest.MonkeyPatch, **ago: float) -> None:
    """Sign as if it were so long ago."""
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.now(UTC) - timedelta(**ago))


@dataclass
class Signed:
    """A request as it is signed, and how it differs when it is sent."""

    url: str
    method: str = "PUT"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = BODY
    keys: Credentials = field(default_factory=lambda: Credentials(ACCESS_KEY, SECRET_KEY))
    service: str = "s3"
    region: str = REGION
    expires: int = 900

    def presigned(self) -> str:
        """The address, by botocore's signer."""
        request = AWSRequest(self.method, self.url, self.headers)
        S3SigV4QueryAuth(self.keys, self.service, self.region, expires=self.expires).add_auth(request)
        return str(request.url)

    def send(
        self,
        *,
        change: Callable[[str], str] = lambda url: url,
        method: str | None = None,
        headers: Mapping[str, str | None] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, str, bytes]:
        """Status, S3's code and body of the answer to the signed request with these changes."""
        host, path = change(self.presigned()).removeprefix("http://").split("/", 1)
        sent = {**self.headers, **(headers or {})}
        content = self.body if body is None else body
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.putrequest(method or self.method, f"/{path}", skip_host="host" in sent)
        if "content-length" not in sent and content:
            connection.putheader("Content-Length", str(len(content)))
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(content or None)
        answer = connection.getresponse()
        got = answer.read()
        connection.close()
        code = re.search(rb"<Code>(.*?)</Code>", got)
        return answer.status, code[1].decode() if code else "", got


@pytest.fixture(scope="module")
def s3(local_aws: LocalAws) -> Iterator[Any]:
    client = local_client(isolated_session(), "s3", local_aws.url)
    client.create_bucket(Bucket="presigned")
    yield client
    client.close()


@pytest.fixture
def signed(s3: Any) -> Signed:
    """A PUT of `BODY` with all that uploads have signed."""
    headers = {
        "content-length": str(len(BODY)),
        "content-type": "text/csv; charset=utf-8",
        "x-amz-checksum-sha256": SHA256,
        "if-none-match": "*",
    }
    return Signed(f"{s3.meta.endpoint_url}/presigned/{unique('k')}", headers=headers)


def get(signed: Signed, **changes: Any) -> Signed:
    return replace(signed, method="GET", headers={}, body=b"", **changes)


def test_what_was_signed_is_taken_once(signed: Signed, s3: Any) -> None:
    assert signed.send()[:2] == (200, "")
    assert signed.send()[:2] == (412, "PreconditionFailed")
    key = signed.url.rpartition("/")[2]
    head = s3.head_object(Bucket="presigned", Key=key, ChecksumMode="ENABLED")
    assert (head["ContentLength"], head["ContentType"]) == (len(BODY), "text/csv; charset=utf-8")
    assert head["ChecksumSHA256"] == SHA256
    assert get(signed).send() == (200, "", BODY)
    assert replace(get(signed), method="HEAD").send() == (200, "", b"")
    # What was not signed and is none of Amazon's headers may come along.
    assert get(signed).send(headers={"User-Agent": "curl", "Range": "bytes=0-1"}) == (206, "", BODY[:2])


@pytest.mark.parametrize("key", ["a b+c~d", "größe/ü.csv", "tab\tand=sign&more%25", "a//b", "(x)*'!"])
def test_any_key_and_parameter_can_be_signed(signed: Signed, s3: Any, key: str) -> None:
    """By both of botocore's ways: a client's and a bare signer's."""
    s3.put_object(Bucket="presigned", Key=key, Body=BODY)
    disposition = 'attachment; filename="a b+ü.csv"'
    params = {"Bucket": "presigned", "Key": key, "ResponseContentDisposition": disposition}
    url = s3.generate_presigned_url("get_object", Params=params)
    assert get(signed).send(change=lambda _: url) == (200, "", BODY)
    bare = get(signed, url=f"{s3.meta.endpoint_url}/presigned/{quote(key, safe='/~')}")
    assert bare.send() == (200, "", BODY)
    # Escapes that S3 does not ask for mean the same.
    assert bare.send(change=lambda url: url.replace("~", "%7E").replace("AWS4-HMAC", "AWS4%2DHMAC"))[0] == 200


def test_headers_are_signed_with_their_spaces_folded_and_a_token_may_come_along(signed: Signed) -> None:
    signed.headers |= {"x-amz-meta-note": "two  spaces "}
    signed.keys = Credentials(ACCESS_KEY, SECRET_KEY, "a session token/+=")
    assert signed.send()[:2] == (200, "")


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "another length": ({"headers": {"content-length": "4"}, "body": BODY[:4]}, 403, "SignatureDoesNotMatch"),
    "another type": ({"headers": {"content-type": "text/html"}}, 403, "SignatureDoesNotMatch"),
    "no type": ({"headers": {"content-type": None}}, 403, "SignatureDoesNotMatch"),
    "another checksum": ({"headers": {"x-amz-checksum-sha256": SHA256[::-1]}}, 403, "SignatureDoesNotMatch"),
    "no checksum": ({"headers": {"x-amz-checksum-sha256": None}}, 403, "SignatureDoesNotMatch"),
    "may overwrite": ({"headers": {"if-none-match": None}}, 403, "SignatureDoesNotMatch"),
    "another method": ({"method": "POST"}, 403, "SignatureDoesNotMatch"),
    "another host": ({"headers": {"host": "example.com"}}, 403, "SignatureDoesNotMatch"),
    "another key": ({"change": lambda url: url.replace("?", "x?")}, 403, "SignatureDoesNotMatch"),
    "another parameter": ({"change": lambda url: f"{url}&acl"}, 403, "SignatureDoesNotMatch"),
    "longer": ({"change": lambda url: url.replace("Expires=900", "Expires=901")}, 403, "SignatureDoesNotMatch"),
    "fewer headers": (
        {"change": lambda url: url.replace("content-length%3B", "")},
        403,
        "SignatureDoesNotMatch",
    ),
    "another signature": (
        {"change": lambda url: re.sub(r"Signature=\w+", "Signature=0", url)},
        403,
        "SignatureDoesNotMatch",
    ),
    "no signature": (
        {"change": lambda url: re.sub(r"&X-Amz-Signature=\w+", "", url)},
        400,
        "AuthorizationQueryParametersError",
    ),
    "another body": ({"body": BODY.replace(b"1", b"9")}, 400, "BadDigest"),
    "an unsigned header": ({"headers": {"x-amz-meta-a": "b"}}, 403, "AccessDenied"),
    "signed twice": ({"headers": {"authorization": "AWS4-HMAC-SHA256 Credential=x"}}, 400, "InvalidArgument"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_differs_from_what_was_signed_is_refused(signed: Signed, s3: Any, name: str) -> None:
    changes, status, code = REFUSED[name]
    assert signed.send(**changes)[:2] == (status, code)
    assert s3.list_objects_v2(Bucket="presigned", Prefix=signed.url.rpartition("/")[2])["KeyCount"] == 0


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"keys": Credentials(ACCESS_KEY, "another")}, 403, "SignatureDoesNotMatch"),
        ({"keys": Credentials("AKIAOTHER", SECRET_KEY)}, 403, "InvalidAccessKeyId"),
        ({"region": "eu-central-1"}, 400, "AuthorizationQueryParametersError"),
        ({"service": "execute-api"}, 400, "AuthorizationQueryParametersError"),
        ({"expires": 604_801}, 400, "AuthorizationQueryParametersError"),
        ({"expires": -1}, 400, "AuthorizationQueryParametersError"),
        ({"headers": {"x-amz-checksum-sha256": "AAAA"}}, 400, "InvalidRequest"),
        ({"headers": {"x-amz-checksum-sha256": "no base64!"}}, 400, "InvalidRequest"),
        ({"headers": {"x-amz-content-sha256": "0" * 64}}, 400, "XAmzContentSHA256Mismatch"),
    ],
)
def test_what_was_signed_otherwise_is_refused(signed: Signed, changes: dict[str, Any], status: int, code: str) -> None:
    assert replace(signed, **changes).send()[:2] == (status, code)


def test_it_holds_from_when_it_was_signed_until_it_ends(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, seconds=901)
    status, code, body = signed.send()
    assert (status, code) == (403, "AccessDenied")
    assert b"<Message>Request has expired</Message>" in body
    at(monkeypatch, minutes=-16)
    assert signed.send()[:2] == (403, "AccessDenied")
    at(monkeypatch, seconds=840)
    assert signed.send()[:2] == (200, "")


def test_signatures_of_version_2_are_refused(signed: Signed) -> None:
    query = "AWSAccessKeyId=local&Signature=x&Expires=99999999999"
    assert get(signed).send(change=lambda url: f"{url.partition('?')[0]}?{query}")[:2] == (400, "InvalidRequest")


def test_a_refused_head_has_no_body(signed: Signed) -> None:
    head = replace(get(signed), method="HEAD")
    assert head.send(change=lambda url: f"{url}&x=y") == (403, "", b"")


def test_large_bodies_are_held_against_their_checksum(signed: Signed) -> None:
    body = bytes(range(256)) * 16_384  # spooled to a file by the server
    digest = b64encode(hashlib.sha256(body).digest()).decode()
    signed.headers |= {"content-length": str(len(body)), "x-amz-checksum-sha256": digest}
    signed.body = body
    assert signed.send(body=body[:-1] + b"x")[:2] == (400, "BadDigest")
    assert signed.send()[:2] == (200, "")
    assert get(signed).send() == (200, "", body)
