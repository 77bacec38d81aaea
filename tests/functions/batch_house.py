"""A batch runner on the local AWS services, with a queue of its own, and what a test asks of it."""

import gzip
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from botocore.session import Session

from functions.batch_runner.bootstrap import runner
from functions.batch_runner.runner import BatchRunner
from functions.batch_runner.settings import Settings
from infra.local.stack import REGION
from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.adapters.onnx.reader import OnnxPackageReader
from shared.adapters.s3_batches import S3Batches
from shared.adapters.s3_packages import S3Packages
from shared.bootstrap.data_plane import data_plane
from shared.bootstrap.settings import Clients
from shared.domain.batch_formats import Bounds
from shared.domain.batches import batch_id
from shared.domain.dtypes import DType
from shared.domain.jobs import Job, JobFilter, ObjectRef
from shared.domain.tenants import Tenant
from shared.usecases.publish_model import PublishModel
from tests.conftest import LocalAws
from tests.models import manifest, tensor, write_package

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MOST_INVOCATIONS = 60
PAIR: dict[str, Any] = tensor("x", DType.FP32, [-1, 2])


class Killed(BaseException):
    """The worker ends in the middle: nothing of ours catches it."""


@dataclass
class BatchHouse:
    """`part_rows` are the rows of a part at most; `lines` has the runner's log lines."""

    aws: LocalAws
    session: Session
    folder: Path
    part_rows: int = 4
    tenant: str = field(default_factory=lambda: f"t{uuid4().hex[:12]}")
    lines: list[dict[str, Any]] = field(default_factory=list)
    memory_mb: int = 1769

    def __post_init__(self) -> None:
        self.s3: S3Client = client("s3", session=self.session, endpoint_url=self.aws.url)
        self.sqs = client("sqs", session=self.session, endpoint_url=self.aws.url)
        self.dynamodb = client("dynamodb", session=self.session, endpoint_url=self.aws.url)
        name = uuid4().hex
        self.queue_url = self.sqs.create_queue(QueueName=f"batch-{name}")["QueueUrl"]
        self.dead_url = self.sqs.create_queue(QueueName=f"dead-{name}")["QueueUrl"]
        self.bucket = self._name("DataBucket")
        self.jobs = DynamoDBJobs(self.dynamodb, self._name("JobsTable"))
        self.tenants = DynamoDBTenants(self.dynamodb, self._name("TenantsTable"), "")
        self.tenants.add(Tenant(self.tenant, "standard"))
        self.runner = self.worker()

    def worker(self, session: Session | None = None) -> BatchRunner:
        """A worker that knows nothing of those before it."""
        used = session or self.session
        settings = Settings(
            service="batch_runner",
            memory_mb=self.memory_mb,
            models_table=self._name("ModelsTable"),
            model_bucket=self._name("ModelBucket"),
            endpoints_table=self._name("EndpointsTable"),
            guards_table=self._name("GuardsTable"),
            answers_table=self._name("AnswersTable"),
            features_table=self._name("FeaturesTable"),
            data_bucket=self.bucket,
            jobs_table=self._name("JobsTable"),
            tenants_table=self._name("TenantsTable"),
            batch_queue_url=self.queue_url,
            batch_dead_letters_url=self.dead_url,
            cache_dir=self.folder / "cache",
            endpoints_ttl_s=0.0,
        )
        calls = AwsCalls()
        calls.watch(used)
        clients = Clients.of(settings, used)
        log = logging.getLogger(f"batch-{uuid4().hex}")
        log.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(_Lines(self.lines))
        plane = data_plane(settings, used, clients)
        return runner(settings, used, clients, plane, calls, log, Bounds(target_rows=self.part_rows))

    def publish(
        self,
        graph: bytes,
        name: str | None = None,
        version: int = 1,
        *,
        inputs: Sequence[Any] = (PAIR,),
        outputs: Sequence[Any] = ({**PAIR, "name": "y"},),
        **more: Any,
    ) -> str:
        """The name of a model that is published."""
        name = name or f"m{uuid4().hex[:12]}"
        document = manifest(name, version, inputs, outputs, **more)
        folder = write_package(self.folder / f"{name}-{version}", graph, document)
        models = DynamoDBModels(self.dynamodb, self._name("ModelsTable"))
        PublishModel(models, S3Packages(self.s3, self._name("ModelBucket")), OnnxPackageReader())(folder)
        return name

    def drop(self, model: str, name: str, content: bytes, **metadata: str) -> dict[str, Any]:
        """Store a file where it starts a run; the event of that."""
        key = f"batch/in/{self.tenant}/{model}/{name}"
        put = self.s3.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=content,
            Metadata={key.replace("_", "-"): value for key, value in metadata.items()},
        )
        return created(self.bucket, key, put.get("VersionId"))

    def run(self, *events: Mapping[str, Any], worker: BatchRunner | None = None) -> None:
        """Hand the events in, and do all that the queue has then."""
        at_work = worker or self.runner
        for event in events:
            at_work(event, None)
        self.work(at_work)

    def work(self, worker: BatchRunner | None = None, **bounds: Any) -> None:
        """Do what the queue has, until nothing is in it."""
        for _ in range(MOST_INVOCATIONS):
            if not self.step(worker, **bounds):
                return
        raise AssertionError(f"the queue does not become empty: {self.lines}")

    def step(self, worker: BatchRunner | None = None, *, twice: bool = False, attempts: int | None = None) -> bool:
        """Do what one message asks for, as an event source mapping does; False if there is none."""
        found = self.sqs.receive_message(QueueUrl=self.queue_url, AttributeNames=["All"], VisibilityTimeout=60)
        messages = found.get("Messages", [])
        if not messages:
            return False
        (message,) = messages
        event = sqs_event(message, attempts)
        try:
            answer = (worker or self.runner)(event, None)
            if twice:
                (worker or self.runner)(event, None)
        except Killed:
            self._show(message)
            raise
        if answer["batchItemFailures"]:
            self._show(message)  # a test does not wait for the back-off
        else:
            self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        return True

    def job(self, job_id: str | None = None) -> Job:
        """The job of that id, or the only one of the tenant."""
        if job_id is None:
            (job_id,) = self.job_ids()
        found = self.jobs.find(job_id)
        assert found is not None
        return found

    def job_ids(self) -> Sequence[str]:
        return [job.job_id for job in self.jobs.list(self.tenant, JobFilter(), limit=100).jobs]

    def id_of(self, event: Mapping[str, Any]) -> str:
        """The id of the job of a dropped object."""
        found = event["detail"]["object"]
        stored = S3Batches(self.s3, self.bucket).stat(ObjectRef(self.bucket, found["key"], found.get("version-id")))
        return batch_id(stored.ref, stored.stored_at)

    def wake(self, job_id: str) -> None:
        """Send what the sweep sends."""
        body = json.dumps({"job_id": job_id, "step": "plan"})
        self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=body)

    def free(self, job_id: str) -> None:
        """Let a killed worker's lease be over, without the wait."""
        found = self.jobs.find(job_id)
        if found is not None and found.lease_until is not None:
            self.dynamodb.update_item(
                TableName=self._name("JobsTable"),
                Key={"job_id": {"S": job_id}},
                UpdateExpression="SET lease_until = :past",
                ExpressionAttributeValues={":past": {"N": "1"}},
            )

    def another_session(self) -> Session:
        """A session of its own, for a worker that is watched."""
        made = Session(session_vars={"profile": (None, [], None, None), "config_file": (None, None, os.devnull, None)})
        credentials = self.session.get_credentials()
        assert credentials is not None
        made.set_credentials(credentials.access_key, credentials.secret_key)
        made.set_config_variable("region", REGION)
        return made

    def result(self, job: Job, name: str) -> bytes:
        """What a run has left, by its file's name."""
        key = f"batch/out/{job.tenant}/{job.model}/{job.job_id}/{name}"
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def told(self, job: Job) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.result(job, "manifest.json"))
        return document

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [each["Key"] for each in found.get("Contents", [])]

    def dead_letters(self) -> list[dict[str, Any]]:
        found = self.sqs.receive_message(QueueUrl=self.dead_url, MessageAttributeNames=["All"], MaxNumberOfMessages=10)
        return list(found.get("Messages", []))

    def _show(self, message: Mapping[str, Any]) -> None:
        self.sqs.change_message_visibility(
            QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
        )

    def _name(self, resource: str) -> str:
        return self.aws.stack.resources[resource].name


class _Lines(logging.Handler):
    def __init__(self, lines: list[dict[str, Any]]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append({"message": record.getMessage(), "level": record.levelname, **getattr(record, "fields", {})})


def created(bucket: str, key: str, version_id: str | None = None) -> dict[str, Any]:
    """The event "Object Created", as EventBridge hands it on."""
    object_: dict[str, Any] = {"key": key, "size": 1, "etag": "b1946ac92492d2347c6235b4d2611184", "sequencer": "0062"}
    if version_id:
        object_["version-id"] = version_id
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "000000000000",
        "time": "2026-11-21T10:00:00Z",
        "region": "us-east-1",
        "resources": [f"arn:aws:s3:::{bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": object_,
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "123456789012",
            "source-ip-address": "1.2.3.4",
            "reason": "PutObject",
        },
    }


def sqs_event(message: Mapping[str, Any], attempts: int | None = None) -> dict[str, Any]:
    """The event of a message, as Lambda's event source mapping hands it on."""
    count = str(attempts) if attempts is not None else message["Attributes"]["ApproximateReceiveCount"]
    return {
        "Records": [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": {**message["Attributes"], "ApproximateReceiveCount": count},
                "messageAttributes": {},
                "md5OfBody": message["MD5OfBody"],
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:batches",
                "awsRegion": "us-east-1",
            }
        ]
    }


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
