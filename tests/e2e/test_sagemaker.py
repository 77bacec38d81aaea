"""The stack's SageMaker endpoints, called as the backends of an endpoint's configuration call them."""

from contextlib import closing
from typing import Any

import numpy as np
import pytest
from botocore.session import Session

from infra.local.aws_client import isolated_session, local_client
from shared.adapters.aws import client
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.domain.endpoint.config import BackendChoice
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors, bytes_tensor
from tests.e2e.conftest import Sluice

pytestmark = pytest.mark.e2e


def test_every_way_to_the_container_gives_the_same_answer_and_leaves_nothing(
    sluice: Sluice, aws_session: Session
) -> None:
    local = sluice.local
    outputs, aws_url = local["outputs"], local["aws_endpoint_url"]
    dynamodb = client("dynamodb", session=aws_session, endpoint_url=aws_url)
    version = DynamoDBModels(dynamodb, outputs["ModelsTableName"]).latest("embed")
    inputs: Tensors = {version.signature.inputs[0].name: bytes_tensor([b"one text", b"and another one"])}
    resources = Resources(
        session=aws_session,
        data_bucket=outputs["DataBucketName"],
        endpoint_urls={"sagemaker-runtime": local["sagemaker_runtime_url"], "s3": aws_url},
    )
    plain, queue = outputs["EndpointName"], outputs["AsyncEndpointName"]
    ways: list[tuple[str, dict[str, Any]]] = [
        ("sagemaker", {"endpoint": plain}),
        ("sagemaker-stream", {"endpoint": plain}),
        ("sagemaker-async", {"endpoint": queue}),
        ("sagemaker-async", {"endpoint": queue, "inline": False}),
    ]
    answers = []
    for kind, options in ways:
        backend: Any = Registry(resources).build(BackendChoice(kind, options))
        with closing(backend):
            answers.append(backend.infer(version, inputs, InferenceContext("r", "acme", 20_000)))
    for answer in answers[1:]:
        assert answer.keys() == answers[0].keys()
        for name, array in answer.items():
            np.testing.assert_array_equal(array, answers[0][name])
    s3 = local_client(isolated_session(), "s3", aws_url)
    assert s3.list_objects_v2(Bucket=outputs["DataBucketName"], Prefix="async/in/")["KeyCount"] == 0


def test_both_endpoints_are_in_service(sluice: Sluice) -> None:
    local = sluice.local
    sagemaker = local_client(isolated_session(), "sagemaker", local["aws_endpoint_url"])
    for name in ("EndpointName", "AsyncEndpointName"):
        described = sagemaker.describe_endpoint(EndpointName=local["outputs"][name])
        assert described["EndpointStatus"] == "InService"
