"""The contract through SageMaker Runtime: a real client, the local front, and the real container behind it."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from botocore.session import Session

from infra.local.sagemaker_front.app import create_app
from infra.local.sagemaker_front.endpoints import AsyncConfig, Endpoint, Endpoints
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.domain.endpoint.config import BackendChoice
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable
from shared.domain.ports import Backend
from tests.adapters.backends.conftest import Serving
from tests.adapters.backends.contract import (
    HTTP_OUTCOMES,
    HURRIED,
    BackendContract,
    FaultContract,
    Outcome,
    fails,
    works_again,
)
from tests.adapters.backends.faults import Fault
from tests.adapters.backends.faulty import Faulty
from tests.conftest import LocalAws
from tests.local.fronts import listening

MIB = 1024 * 1024
STEPS = [0.5, 5.0, 20.0]


@dataclass(frozen=True, slots=True)
class Front:
    """SageMaker Runtime before the container and before the faulty server; `aws` has what is asynchronous."""

    url: str
    aws_url: str
    bucket: str
    session: Session

    @contextmanager
    def backend(self, kind: str, endpoint: str, url: str | None = None, **options: Any) -> Iterator[Backend]:
        """A backend as a configuration makes it, closed in the end."""
        addresses = {"sagemaker-runtime": url or self.url, "s3": self.aws_url}
        resources = Resources(session=self.session, data_bucket=self.bucket, endpoint_urls=addresses)
        choice = BackendChoice(kind, {"endpoint": endpoint, "timeouts_s": STEPS, **options})
        made: Any = Registry(resources).build(choice)
        with closing(made):
            yield made


@pytest.fixture(scope="module")
def front(container: Serving, faulty_server: Faulty, local_aws: LocalAws, aws_session: Session) -> Iterator[Front]:
    bucket = local_aws.stack.resources["DataBucket"].name
    queue = AsyncConfig(f"s3://{bucket}/async/out/", f"s3://{bucket}/async/failed/", concurrency=8)
    endpoints = Endpoints(
        [
            Endpoint("sound", container.url),
            Endpoint("broken", faulty_server.url),
            Endpoint("sound-async", container.url, asynchronous=queue),
            Endpoint("broken-async", faulty_server.url, asynchronous=queue),
        ]
    )
    app = create_app(endpoints, local_aws.url, max_async_bytes=8 * MIB)
    with listening(app) as url:
        yield Front(url, local_aws.url, bucket, aws_session)


@pytest.fixture(scope="module")
def faulty_runtime(front: Front) -> Iterator[Faulty]:
    """The faulty server before SageMaker Runtime itself."""
    with Faulty(front.url) as server:
        yield server


# SageMaker Runtime names its errors, and sends no Retry-After; a bare status is that of something on the way.
RUNTIME_OUTCOMES: Mapping[str, Outcome] = {
    **HTTP_OUTCOMES,
    "an answer byte by byte": Outcome(Fault("drip", seconds=0.004), BackendTimeout, context=HURRIED),
    "503 with Retry-After": Outcome(Fault("status", status=503), BackendUnavailable, retryable=True),
    "429 with Retry-After": Outcome(Fault("status", status=429), BackendUnavailable, retryable=True),
    "400": Outcome(Fault("status", status=400), BackendError),
    "404": Outcome(Fault("status", status=404), BackendError),
    "a version that is not loaded": Outcome(Fault("status", status=424), BackendError),
    "a full queue": Outcome(Fault("status", status=503), BackendUnavailable, retryable=True),
    "content that is at fault": Outcome(Fault("status", status=422), BackendError),
}


def _behind(outcome: Outcome) -> Outcome:
    """What SageMaker makes of a container's fault: it tells the status and the body, and no header."""
    if outcome.fault.kind in {"reset-unread", "reset", "closed"}:
        return Outcome(outcome.fault, BackendError)  # not told apart from a container that broke off while it ran
    return Outcome(outcome.fault, outcome.kind, outcome.retryable, None, outcome.fields, outcome.context)


CONTAINER_OUTCOMES: Mapping[str, Outcome] = {name: _behind(outcome) for name, outcome in HTTP_OUTCOMES.items()}


class TestRealTime(BackendContract, FaultContract):
    outcomes: ClassVar[Mapping[str, Outcome]] = RUNTIME_OUTCOMES

    @pytest.fixture
    def backend(self, front: Front) -> Iterator[Backend]:
        with front.backend("sagemaker", "sound") as backend:
            yield backend

    @pytest.fixture
    def faulty(self, faulty_runtime: Faulty) -> Iterator[Faulty]:
        faulty_runtime.switch.heal()
        yield faulty_runtime
        faulty_runtime.switch.heal()

    @pytest.fixture
    def troubled(self, front: Front, faulty: Faulty) -> Iterator[Backend]:
        with front.backend("sagemaker", "sound", faulty.url) as backend:
            yield backend

    @pytest.fixture
    def unreachable(self, front: Front, free_port: int) -> Iterator[Backend]:
        with front.backend("sagemaker", "sound", f"http://127.0.0.1:{free_port}") as backend:
            yield backend


class BehindSageMaker(FaultContract):
    """The container fails, and SageMaker says so."""

    outcomes: ClassVar[Mapping[str, Outcome]] = CONTAINER_OUTCOMES

    def test_a_connection_that_broke_while_it_was_kept_is_no_fault(self, troubled: Backend, faulty: Faulty) -> None:
        """The kept connection is SageMaker's here: it does not ask twice."""
        works_again(troubled)
        faulty.switch.set(Fault("closed"), times=1)
        error = fails(troubled, BackendError, HTTP_OUTCOMES["500"].context)
        assert not getattr(error, "retryable", None)
        works_again(troubled)
        assert faulty.switch.calls["closed"] == 1


class TestStream(BackendContract, BehindSageMaker):
    @pytest.fixture
    def backend(self, front: Front) -> Iterator[Backend]:
        with front.backend("sagemaker-stream", "sound") as backend:
            yield backend

    @pytest.fixture
    def troubled(self, front: Front) -> Iterator[Backend]:
        with front.backend("sagemaker-stream", "broken") as backend:
            yield backend

    @pytest.fixture
    def unreachable(self, front: Front, free_port: int) -> Iterator[Backend]:
        with front.backend("sagemaker-stream", "sound", f"http://127.0.0.1:{free_port}") as backend:
            yield backend


# What failed is an object with the container's words, and no status: only our container's problems say more.
_WITHOUT_WORDS = ("503 with Retry-After", "429 with Retry-After", "400", "404", "504")
ASYNC_OUTCOMES: Mapping[str, Outcome] = {
    **CONTAINER_OUTCOMES,
    **{name: Outcome(HTTP_OUTCOMES[name].fault, BackendError) for name in _WITHOUT_WORDS},
    "no answer": Outcome(Fault("hang"), BackendTimeout, context=HURRIED),
}


class TestAsync(BackendContract, BehindSageMaker):
    outcomes: ClassVar[Mapping[str, Outcome]] = ASYNC_OUTCOMES

    @pytest.fixture(params=[True, False], ids=["inline", "s3"])
    def backend(self, front: Front, request: pytest.FixtureRequest) -> Iterator[Backend]:
        with front.backend("sagemaker-async", "sound-async", inline=request.param, poll_min_ms=10) as backend:
            yield backend

    @pytest.fixture
    def troubled(self, front: Front) -> Iterator[Backend]:
        with front.backend("sagemaker-async", "broken-async", poll_min_ms=10) as backend:
            yield backend

    @pytest.fixture
    def unreachable(self, front: Front, free_port: int) -> Iterator[Backend]:
        with front.backend("sagemaker-async", "sound-async", f"http://127.0.0.1:{free_port}") as backend:
            yield backend
