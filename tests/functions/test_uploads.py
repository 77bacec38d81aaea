"""Uploads over the API, and to the S3 of the local AWS services."""

import hashlib
import logging
import time
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from botocore.session import Session

from infra.openapi import contract
from shared.adapters.aws import client
from shared.adapters.s3_objects import S3Objects
from shared.adapters.s3_uploads import S3Uploads
from shared.domain.principal import Principal
from shared.domain.uploads import KEPT_S, MAX_UPLOAD
from shared.schemas.api import Problem
from shared.schemas.uploads import CreatedUpload, UploadDocument
from shared.usecases.sources import Sources
from shared.usecases.uploads import Uploads
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.fakes import InMemoryModels
from tests.functions.api_parts import api_application
from tests.functions.conftest import LogLines, Serve
from tests.functions.support import Answer, Function

BODY = b"a,b\n1,2\n" * 1000
ASKED: dict[str, Any] = {
    "size": len(BODY),
    "media_type": "text/csv",
    "sha256": hashlib.sha256(BODY).hexdigest(),
    "name": "orders.csv",
}
ROUTE = "/v1/uploads/{upload_id}"


@pytest.fixture
def uploads(local_aws: LocalAws, aws_session: Session) -> Uploads:
    s3 = client("s3", session=aws_session, endpoint_url=local_aws.url)
    bucket = local_aws.stack.resources["DataBucket"].name
    return Uploads(S3Uploads(lambda: s3), Sources(S3Objects(lambda: s3), bucket), bucket, url_s=900)


@pytest.fixture
def function(serve: Serve, log: logging.Logger, uploads: Uploads) -> Function:
    return serve(api_application(log, InMemoryModels(), uploads=uploads))


def caller(tenant: str | None = None, *scopes: str) -> Principal:
    return Principal(tenant or unique("t"), "k" * 16, frozenset(scopes or ("predict",)), "default")


def get(function: Function, upload_id: str, principal: Principal) -> Answer:
    return function("GET", f"/v1/uploads/{upload_id}", route=ROUTE, principal=principal)


def code(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status, Problem.model_validate_json(answer.body).code


def test_content_goes_straight_to_storage(function: Function, log_lines: LogLines) -> None:
    mine = caller()
    answer = function("POST", "/v1/uploads", body=ASKED, principal=mine)
    created = CreatedUpload.model_validate_json(answer.body)
    assert (answer.status, answer.headers["location"]) == (201, f"/v1/uploads/{created.upload_id}")
    assert answer.headers["cache-control"] == "no-store"
    left = datetime.fromisoformat(created.expires_at).timestamp() - time.time()
    assert 880 < left <= 900
    assert parse_qs(urlsplit(created.url).query)["X-Amz-Expires"] == ["900"]
    # The address lets anybody upload: it is no part of the log.
    assert "X-Amz-Signature" not in log_lines.text
    assert log_lines.requests()[-1]["target"] == f"upload:{created.upload_id}"

    assert code(get(function, created.upload_id, mine)) == (404, "upload_not_found")
    put = httpx.request(created.method, created.url, headers=created.headers, content=BODY)
    assert put.status_code == 200
    found = UploadDocument.model_validate_json(get(function, created.upload_id, mine).body)
    assert found.model_dump(include=set(ASKED)) == ASKED
    uploaded, expires = (datetime.fromisoformat(text).timestamp() for text in (found.uploaded_at, found.expires_at))
    assert expires - uploaded == KEPT_S

    assert code(get(function, created.upload_id, caller())) == (404, "upload_not_found")


def test_the_document_has_a_name_only_if_one_was_given(function: Function) -> None:
    mine = caller(None, "jobs")
    asked = {name: value for name, value in ASKED.items() if name != "name"}
    created = function("POST", "/v1/uploads", body=asked, principal=mine).json
    assert "x-amz-meta-name" not in created["headers"]
    assert httpx.put(created["url"], headers=created["headers"], content=BODY).status_code == 200
    assert get(function, created["upload_id"], mine).json["name"] is None


@pytest.mark.parametrize(
    ("change", "status", "problem"),
    [
        ({"size": 0}, 422, "out_of_range"),
        ({"size": MAX_UPLOAD + 1}, 422, "out_of_range"),
        ({"size": "8"}, 422, "wrong_dtype"),
        ({"size": None}, 422, "wrong_dtype"),
        ({"media_type": "csv"}, 422, "out_of_range"),
        ({"media_type": "text/csv\r\nX-Evil: 1"}, 422, "out_of_range"),
        ({"media_type": "text/csv\n"}, 422, "out_of_range"),
        ({"media_type": "text/csv; a=b; c"}, 422, "out_of_range"),
        ({"media_type": f'text/csv; a="{"x" * 100}"; b={"y" * 127}; c={"z" * 60}'}, 422, "text_too_long"),
        ({"sha256": "0" * 63}, 422, "out_of_range"),
        ({"sha256": "A" * 64}, 422, "out_of_range"),
        ({"name": "../x"}, 422, "out_of_range"),
        ({"name": "a b"}, 422, "out_of_range"),
        ({"name": "x\n"}, 422, "out_of_range"),
        ({"tenant": "rival"}, 422, "unknown_field"),
    ],
)
def test_what_cannot_be_uploaded_is_refused(
    function: Function, change: dict[str, Any], status: int, problem: str
) -> None:
    assert code(function("POST", "/v1/uploads", body={**ASKED, **change}, principal=caller())) == (status, problem)


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", 'multipart/form-data; boundary="a b"', "application/x-npy"]
)
def test_types_may_have_parameters(function: Function, media_type: str) -> None:
    created = function("POST", "/v1/uploads", body={**ASKED, "media_type": media_type}, principal=caller()).json
    assert httpx.put(created["url"], headers=created["headers"], content=BODY).status_code == 200


def test_who_may_not_predict_may_not_upload(function: Function) -> None:
    for principal in (caller(None, "ingest"), caller(None, "admin", "webhooks")):
        assert code(function("POST", "/v1/uploads", body=ASKED, principal=principal)) == (403, "insufficient_scope")
        assert code(get(function, "0" * 32, principal)) == (403, "insufficient_scope")
    one = caller(None, "predict:tumor")
    assert function("POST", "/v1/uploads", body=ASKED, principal=one).status == 201


@pytest.mark.parametrize("upload_id", ["x", "0" * 32, "..%2Frival%2F" + "0" * 32, "A" * 32])
def test_what_is_no_upload_is_not_found(function: Function, upload_id: str) -> None:
    assert code(get(function, upload_id, caller())) == (404, "upload_not_found")


def test_the_contract_knows_uploads() -> None:
    document = contract()
    assert set(document["paths"]["/v1/uploads"]["post"]["responses"]) >= {"201", "403", "409", "422"}
    assert set(document["paths"][ROUTE]["get"]["responses"]) >= {"200", "404"}
    assert {"UploadRequest", "CreatedUpload", "UploadDocument"} <= document["components"]["schemas"].keys()
