"""Where jobs are worked off in tests: the stores of the template, and queues that are one test's alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import pytest

from infra.local.aws_client import isolated_session, local_client
from infra.local.event_sources.records import of_message
from infra.local.stack import REGION
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.s3_job_objects import S3JobObjects
from shared.adapters.s3_packages import S3Packages
from shared.adapters.sqs_jobs import SqsJobs
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import BackendChoice, EndpointConfig, Retries, StoredEndpoint, Variant
from shared.domain.jobs import Job
from shared.domain.model import PackageDescription, Placement
from shared.domain.signature import Signature, TensorSpec
from shared.usecases.publish_model import PublishModel
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.functions.support import published
from tests.models import add_model, manifest, tensor, write_package
from tests.usecases.job_runs import SIGNATURE

ADDS_ONE = add_model(1.0)
OWN = ("QUEUE", "DEAD_LETTERS")


@dataclass
class Stage:
    """The stores of jobs, queues that are this test's alone, and the environment of a worker on them."""

    environment: dict[str, str]
    jobs: DynamoDBJobs
    queue: SqsJobs
    objects: S3JobObjects
    sqs: Any
    dynamodb: Any
    s3: Any
    url: str
    dead_url: str

    def publish(self, folder: Path, graph: bytes = ADDS_ONE, width: int = 2) -> str:
        """A model in the function; it adds one unless another graph is given."""
        model = unique("plus")
        signature = Signature(
            inputs=(TensorSpec("x", DType.FP32, (None, width)),), outputs=(TensorSpec("y", DType.FP32, (None, width)),)
        )

        class Described:
            def describe(self, folder: Path) -> PackageDescription:
                return PackageDescription(model, 1, signature, Placement.FUNCTION, {"example": [1] * width})

        document = manifest(model, 1, [tensor("x", DType.FP32, [-1, width])], [tensor("y", DType.FP32, [-1, width])])
        package = write_package(folder / model, graph, document)
        registry = DynamoDBModels(self.dynamodb, self.environment["SLUICE_MODELS_TABLE"])
        PublishModel(registry, S3Packages(self.s3, self.environment["SLUICE_MODEL_BUCKET"]), Described())(package)
        return model

    def elsewhere(self, kind: str) -> str:
        """A model that runs on an endpoint of SageMaker's."""
        version = published(unique("far"), signature=SIGNATURE)
        DynamoDBModels(self.dynamodb, self.environment["SLUICE_MODELS_TABLE"]).add(version)
        config = EndpointConfig(
            version.model,
            backends={"elsewhere": BackendChoice(kind, {"endpoint": "queue"})},
            variants=(Variant("main", backend="elsewhere"),),
            retries=Retries(attempts=0),
        )
        DynamoDBEndpoints(self.dynamodb, self.environment["SLUICE_ENDPOINTS_TABLE"]).put(
            StoredEndpoint(config, 1, int(time()))
        )
        return version.model

    def submit(self, job: Job) -> Job:
        self.jobs.add(job)
        self.queue.send(job.tenant, job.job_id)
        return job

    def receive(self) -> dict[str, Any]:
        """An event of all that waits."""
        received = self.sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, AttributeNames=["All"], WaitTimeSeconds=0
        )
        arn = f"arn:aws:sqs:{REGION}:000000000000:jobs"
        return {"Records": [of_message(message, arn).document for message in received.get("Messages", [])]}

    def delete(self, event: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """What the mapping does after an answer."""
        kept = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        for record in event["Records"]:
            if record["messageId"] not in kept:
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=record["receiptHandle"])

    def counts(self) -> tuple[int, int]:
        """Messages that wait, and those that are hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def letters(self) -> list[dict[str, Any]]:
        """The dead letters."""
        found = self.sqs.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
        )
        return list(found.get("Messages", []))

    def now(self, job: Job) -> Job:
        return self.jobs.get(job.tenant, job.job_id)

    def lapse(self, job: Job) -> None:
        """Let a job's lease be over."""
        self.dynamodb.update_item(
            TableName=self.environment["SLUICE_JOBS_TABLE"],
            Key={"job_id": {"S": job.job_id}},
            UpdateExpression="SET lease_until = :past",
            ExpressionAttributeValues={":past": {"N": str(time() - 1)}},
        )


@contextmanager
def job_stage(local_aws: LocalAws, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The stage, for as long as the context lasts."""
    session = isolated_session()
    dynamodb, s3, sqs = (local_client(session, service, local_aws.url) for service in ("dynamodb", "s3", "sqs"))
    urls = [sqs.create_queue(QueueName=unique("jobs"))["QueueUrl"] for _ in OWN]
    of_process = {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    for name, value in of_process.items():
        monkeypatch.setenv(name, value)
    given = {
        name: value
        for function in local_aws.stack.functions.values()
        for name, value in function.environment.items()
        if value
    }
    environment = {
        **given,
        **of_process,
        "POWERTOOLS_SERVICE_NAME": "job-worker",
        "SLUICE_JOBS_QUEUE_URL": urls[0],
        "SLUICE_JOBS_DEAD_LETTERS_URL": urls[1],
        "SLUICE_CACHE_DIR": str(folder / "cache"),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
    }
    yield Stage(
        environment,
        DynamoDBJobs(dynamodb, environment["SLUICE_JOBS_TABLE"]),
        SqsJobs(lambda: sqs, urls[0]),
        S3JobObjects(lambda: s3, environment["SLUICE_DATA_BUCKET"]),
        sqs,
        dynamodb,
        s3,
        *urls,
    )
    for url in urls:
        sqs.delete_queue(QueueUrl=url)
