"""Models and endpoints of a test's own on the running stack."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from infra.packages import publisher
from shared.domain.dtypes import DType
from shared.usecases.publish_model import PublishModel
from tests.e2e.callers import until
from tests.e2e.conftest import Sluice
from tests.models import add_model, manifest, tensor, write_package

# Environments keep a configuration for four seconds; what is set has to hold everywhere within five.
IN_FORCE_S = 5.0


@dataclass(frozen=True)
class Published:
    """An endpoint whose model adds the number of its version to two numbers."""

    name: str
    admin: httpx.Client

    def configure(self, **configuration: Any) -> str:
        """Replace the configuration; the new one's ETag."""
        path = f"/v1/admin/endpoints/{self.name}"
        tag = self.admin.get(path).headers["etag"]
        done = self.admin.put(path, json=configuration, headers={"If-Match": tag})
        assert done.status_code == 200, done.text
        return done.headers["etag"]

    def ask(
        self,
        client: httpx.Client,
        headers: Mapping[str, str] | None = None,
        *,
        version: int | str | None = None,
        instance: Any = (1.0, 2.0),
    ) -> httpx.Response:
        """Predict for one instance."""
        path = f"/v1/models/{self.name}" + ("" if version is None else f"/versions/{version}") + "/predict"
        return client.post(path, json={"instances": [instance]}, headers=headers)

    def variants(self, client: httpx.Client, count: int, headers: Mapping[str, str] | None = None) -> Counter[str]:
        """Which variants answered that many requests."""
        return Counter(variant_of(self.ask(client, headers)) for _ in range(count))

    def settles(self, client: httpx.Client, variant: str, *, calls: int = 12) -> bool:
        """Whether only this variant answers within the time that a change has to be in force."""
        return until(lambda: self.variants(client, calls) == {variant: calls}, IN_FORCE_S + 1)


def variant_of(answer: httpx.Response) -> str:
    """The variant that gave an answer; the answer must be that of its version."""
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"]["variant"])


def publish_to(sluice: Sluice) -> PublishModel:
    """Publishes to the stack."""
    outputs = sluice.local["outputs"]
    return publisher(sluice.local["aws_endpoint_url"], outputs["ModelsTableName"], outputs["ModelBucketName"])


def publish_adding(sluice: Sluice, admin: httpx.Client, folder: Path, *versions: int, **more: Any) -> Published:
    """Publish a model of a name of its own: version n adds n."""
    name, publish = f"adds-{uuid4().hex[:8]}", publish_to(sluice)
    for version in versions:
        inputs = [tensor("x", DType.FP32, [-1, 2])]
        document = manifest(name, version, inputs, [tensor("y", DType.FP32, [-1, 2])], **more)
        publish(write_package(folder / name / str(version), add_model(float(version)), document))
    return Published(name, admin)
