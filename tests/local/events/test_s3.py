import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3
from aws_lambda_powertools.utilities.parser.models import S3EventNotificationEventBridgeModel, S3Model

from infra.local.aws_client import isolated_session, local_client
from tests.local.events.conftest import Stack

OBJECTS = 1000


def of_key(events: list[Any], key: str) -> list[Any]:
    return [event for event in events if event["detail"]["object"]["key"] == key]


def test_an_object_reaches_the_function_of_a_rule(stack: Stack) -> None:
    s3, bucket = stack.client("s3"), stack.bucket("Data")
    key = "batch/in/t/a file+ü.csv"
    written = s3.put_object(Bucket=bucket, Key=key, Body=b"12345")
    s3.put_object(Bucket=bucket, Key="elsewhere/a.csv", Body=b"1")
    s3.put_object(Bucket=stack.bucket("Silent"), Key=key, Body=b"1")
    stack.settle()
    (event,) = of_key(stack.got("Batch"), key)
    parsed = S3EventNotificationEventBridgeModel.model_validate(event)
    assert (parsed.source, parsed.detail_type, parsed.region) == ("aws.s3", "Object Created", "us-east-1")
    assert parsed.resources == [f"arn:aws:s3:::{bucket}"]
    assert (parsed.detail.bucket.name, parsed.detail.reason) == (bucket, "PutObject")
    assert (parsed.detail.object.size, parsed.detail.object.etag) == (5, written["ETag"].strip('"'))
    assert parsed.detail.object.version_id is None
    assert (parsed.detail.requester, parsed.detail.source_ip_address) == ("000000000000", "127.0.0.1")
    assert parsed.detail.deletion_type is None
    assert of_key(stack.got("Batch"), "elsewhere/a.csv") == []


def test_every_way_of_writing_is_told(stack: Stack) -> None:
    s3, bucket = stack.client("s3"), stack.bucket("Data")
    prefix = "batch/in/ways/"
    s3.put_object(Bucket=bucket, Key="source", Body=b"copy")
    s3.copy_object(Bucket=bucket, Key=f"{prefix}copied", CopySource={"Bucket": bucket, "Key": "source"})
    upload = s3.create_multipart_upload(Bucket=bucket, Key=f"{prefix}parts")["UploadId"]
    named = {"Bucket": bucket, "Key": f"{prefix}parts", "UploadId": upload}
    etag = s3.upload_part(**named, PartNumber=1, Body=b"part")["ETag"]
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": [{"ETag": etag, "PartNumber": 1}]})
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": f"{prefix}presigned"})
    headers = {"Content-Type": "text/csv"}
    assert urllib3.request("PUT", url, body=b"body", headers=headers, retries=False).status == 200
    aborted = s3.create_multipart_upload(Bucket=bucket, Key=f"{prefix}aborted")["UploadId"]
    s3.abort_multipart_upload(Bucket=bucket, Key=f"{prefix}aborted", UploadId=aborted)
    stack.settle()
    found = [event["detail"] for event in stack.got("Batch") if event["detail"]["object"]["key"].startswith(prefix)]
    assert {(each["object"]["key"].removeprefix(prefix), each["reason"], each["object"]["size"]) for each in found} == {
        ("copied", "CopyObject", 4),
        ("parts", "CompleteMultipartUpload", 4),
        ("presigned", "PutObject", 4),
    }
    assert len(found) == 3


def test_a_write_that_is_refused_is_no_event_and_a_second_one_is_another(stack: Stack) -> None:
    s3, named = stack.client("s3"), {"Bucket": stack.bucket("Data"), "Key": "batch/in/t/twice"}
    s3.put_object(**named, Body=b"1")
    with pytest.raises(s3.exceptions.ClientError, match="PreconditionFailed"):
        s3.put_object(**named, Body=b"refused", IfNoneMatch="*")
    s3.put_object(**named, Body=b"22")
    stack.settle()
    found = of_key(stack.got("Batch"), named["Key"])
    first, second = sorted(found, key=lambda event: event["detail"]["object"]["sequencer"])
    assert (first["detail"]["object"]["size"], second["detail"]["object"]["size"]) == (1, 2)
    assert first["id"] != second["id"]


def test_what_is_deleted_is_told(stack: Stack) -> None:
    s3, named = stack.client("s3"), {"Bucket": stack.bucket("Data"), "Key": "batch/in/t/deleted"}
    s3.put_object(**named, Body=b"1")
    s3.delete_object(**named)
    s3.delete_object(**named)
    s3.put_object(Bucket=named["Bucket"], Key="many", Body=b"1")
    s3.delete_objects(Bucket=named["Bucket"], Delete={"Objects": [{"Key": "many"}]})
    stack.settle()
    (event,) = of_key(stack.got("Gone"), named["Key"])
    parsed = S3EventNotificationEventBridgeModel.model_validate(event)
    assert (parsed.detail_type, parsed.detail.reason) == ("Object Deleted", "DeleteObject")
    assert parsed.detail.deletion_type == "Permanently Deleted"
    assert event["detail"]["object"].keys() == {"key", "sequencer"}
    assert len(of_key(stack.got("Gone"), "many")) == 1


def test_versions_are_named(stack: Stack) -> None:
    s3, named = stack.client("s3"), {"Bucket": stack.bucket("Kept"), "Key": "versioned"}
    first = s3.put_object(**named, Body=b"1")["VersionId"]
    second = s3.put_object(**named, Body=b"2")["VersionId"]
    marker = s3.delete_object(**named)["VersionId"]
    s3.delete_object(**named, VersionId=first)
    stack.settle()
    found = sorted(of_key(stack.got("Batch"), "versioned"), key=lambda event: event["detail"]["object"]["sequencer"])
    assert [(event["detail"]["object"]["version-id"], event["detail"].get("deletion-type")) for event in found] == [
        (first, None),
        (second, None),
        (marker, "Delete Marker Created"),
        (first, "Permanently Deleted"),
    ]


def test_notifications_of_s3_itself_are_filtered_and_have_its_own_form(stack: Stack) -> None:
    s3, bucket = stack.client("s3"), "events-inbox"
    s3.put_object(Bucket=bucket, Key="in/a b.csv", Body=b"123")
    for other in ("in/a.txt", "out/a.csv"):
        s3.put_object(Bucket=bucket, Key=other, Body=b"1")
    s3.copy_object(Bucket=bucket, Key="copied", CopySource={"Bucket": bucket, "Key": "in/a.txt"})
    s3.delete_object(Bucket=bucket, Key="in/a b.csv")
    stack.settle()
    stack.settle()  # what went to the topic comes from there
    created, removed = sorted(
        (S3Model.model_validate(event).Records[0] for event in stack.got("Classic")),
        key=lambda record: str(record.s3.object and record.s3.object.sequencer),
    )
    assert (created.eventName, removed.eventName) == ("ObjectCreated:Put", "ObjectRemoved:Delete")
    assert created.s3.object is not None
    assert (created.s3.object.key, created.s3.object.size) == ("in/a+b.csv", 3)
    assert created.s3.bucket.name == bucket
    (told,) = [message for text in stack.messages("Work") if "Records" in (message := json.loads(text["Body"]))]
    assert S3Model.model_validate(told).Records[0].eventName == "ObjectRemoved:Delete"
    notices = [event["Records"][0]["Sns"]["Message"] for event in stack.got("Listener") if "Records" in event]
    (notice,) = [notice for notice in notices if '"copied"' in notice]
    assert S3Model.model_validate_json(notice).Records[0].eventName == "ObjectCreated:Copy"


def test_a_burst_loses_nothing_and_doubles_nothing(stack: Stack) -> None:
    bucket, keys = stack.bucket("Data"), [f"batch/in/burst/{number}" for number in range(OBJECTS)]
    session = isolated_session()
    clients = [local_client(session, "s3", stack.aws_url) for _ in range(8)]

    def write(share: int) -> None:
        for key in keys[share :: len(clients)]:
            clients[share].put_object(Bucket=bucket, Key=key, Body=b"")

    async def write_all() -> None:
        with ThreadPoolExecutor(len(clients)) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(pool, write, share) for share in range(len(clients))))

    stack.runner.run(write_all())
    stack.settle()
    found = [
        key for event in stack.got("Batch") if (key := event["detail"]["object"]["key"]).startswith("batch/in/burst/")
    ]
    assert sorted(found) == sorted(keys)
