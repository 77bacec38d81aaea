"""SnapStart: what is in a snapshot of the predict function, and what its restored copies do not share."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from functions.predict import bootstrap
from infra.local.stack import REGION
from shared.adapters.aws import client
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.s3_packages import S3Packages
from shared.bootstrap import aws_backends
from shared.bootstrap import settings as bootstrap_settings
from shared.domain.dtypes import DType
from shared.domain.model import PackageDescription, Placement
from shared.domain.signature import Signature, TensorSpec
from shared.usecases.publish_model import PublishModel
from tests.adapters.samples import unique
from tests.conftest import ROOT, LocalAws
from tests.functions.runtime_api import RuntimeApi
from tests.functions.support import Function, event
from tests.models import add_model, manifest, tensor, write_package

SNAP_START = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (None, 2)),), outputs=(TensorSpec("y", DType.FP32, (None, 2)),)
)
ROUTE = "/v1/models/{model}/predict"
Publish = Callable[[str, int], None]


@pytest.fixture
def publish(local_aws: LocalAws, aws_session: Session, tmp_path: Path) -> Publish:
    """Publishes a version that adds its own number."""
    registry = DynamoDBModels(
        client("dynamodb", session=aws_session, endpoint_url=local_aws.url), local_aws.models_table
    )
    store = S3Packages(client("s3", session=aws_session, endpoint_url=local_aws.url), local_aws.bucket)

    def publish(model: str, version: int) -> None:
        class Described:
            def describe(self, folder: Path) -> PackageDescription:
                return PackageDescription(model, version, SIGNATURE, Placement.FUNCTION, {"example": [1, 2]})

        document = manifest(model, version, [tensor("x", DType.FP32, [-1, 2])], [tensor("y", DType.FP32, [-1, 2])])
        folder = write_package(tmp_path / f"{model}-{version}", add_model(float(version)), document)
        PublishModel(registry, store, Described())(folder)

    return publish


@pytest.fixture
def environment(local_aws: LocalAws, tmp_path: Path) -> dict[str, str]:
    """The whole environment of a function whose registry answers are kept for an hour."""
    spec = local_aws.stack.functions["PredictFunction"]
    return {
        **{name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "of-the-snapshot",
        "AWS_SECRET_ACCESS_KEY": "test",
        "OPENBLAS_NUM_THREADS": "1",
        **{name: value for name, value in spec.environment.items() if value},
        "SLUICE_CACHE_DIR": str(tmp_path / "cache"),
        "SLUICE_REGISTRY_TTL_S": "3600",
    }


@pytest.fixture
def in_process(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment for botocore, and hooks and loggers that end with the test."""
    import snapshot_restore_py

    for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, environment[name])
    loggers = [logging.getLogger(name) for name in ("functions", "shared")]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    snapshot_restore_py.get_before_snapshot().clear()
    snapshot_restore_py.get_after_restore().clear()
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


class Clients:
    """Every client that the function makes, and the access key with which each request is signed."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []
        self.signed_by: list[str] = []

    def __call__(self, service: str, **options: Any) -> Any:
        factory: Any = client
        made = factory(service, **options)
        self.made.append((service, made))
        made.meta.events.register("before-send", self._sent)
        return made

    def _sent(self, request: Any, **_: Any) -> None:
        authorization = request.headers["Authorization"]
        text = authorization.decode() if isinstance(authorization, bytes) else authorization
        self.signed_by.append(text.partition("Credential=")[2].partition("/")[0])


@pytest.mark.usefixtures("in_process")
def test_a_restored_function_has_clients_and_answers_of_its_own(
    environment: Mapping[str, str], publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    from awslambdaric import lambda_runtime_hooks_runner as hooks

    clients = Clients()
    monkeypatch.setattr(bootstrap_settings, "client", clients)
    monkeypatch.setattr(aws_backends, "client", clients)
    function = Function(bootstrap.build({**environment, **SNAP_START}))

    def predict(model: str) -> Any:
        return function("POST", f"/v1/models/{model}/predict", route=ROUTE, body={"instances": [[1, 2]]}).json

    hooks.run_before_snapshot()
    assert [service for service, _ in clients.made] == ["dynamodb", "dynamodb", "s3"]
    assert clients.signed_by == []  # nothing was sent, so no connection and no answer is in the snapshot
    model = unique("plus")
    publish(model, 1)
    assert predict(model)["predictions"] == [[2, 3]]
    publish(model, 2)
    assert predict(model)["model"]["version"] == 1  # kept in memory

    earlier = {id(made) for _, made in clients.made}
    assert set(clients.signed_by) == {"of-the-snapshot"}
    clients.signed_by.clear()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-restore")
    hooks.run_after_restore()
    assert predict(model)["predictions"] == [[3, 4]]
    assert predict(model)["model"]["version"] == 2
    later = {id(made) for _, made in clients.made[len(earlier) :]}
    assert later
    assert not later & earlier
    assert set(clients.signed_by) == {"of-the-restore"}


@pytest.mark.usefixtures("in_process")
def test_an_ordinary_environment_registers_nothing(environment: Mapping[str, str]) -> None:
    import snapshot_restore_py

    bootstrap.build({**environment, "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"})
    assert snapshot_restore_py.get_before_snapshot() == []
    assert snapshot_restore_py.get_after_restore() == []


def run(script: str, environment: Mapping[str, str]) -> str:
    """What a script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=dict(environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_ordinary_environment_imports_nothing_of_it(environment: Mapping[str, str]) -> None:
    script = "import sys, functions.predict.handler; print(*sorted(sys.modules))"
    output = run(script, environment)
    assert not {"snapshot_restore_py", "functions.predict.snapshot"} & set(output.split())


# Forked from one parent, children begin with the same memory, as environments restored from one snapshot do. CPython
# gives `random` another state after a fork, which a restore does not do: the child puts the parent's back.
_FORK = """
import json, os, random, secrets, uuid
import numpy.random
import functions.predict.handler
from awslambdaric import lambda_runtime_hooks_runner as hooks

hooks.run_before_snapshot()
state = random.getstate()
for with_hooks in (False, False, True, True):
    if os.fork() == 0:
        random.setstate(state)
        if with_hooks:
            hooks.run_after_restore()
        drawn = {
            "hooks": with_hooks,
            "pseudo": [random.random(), numpy.random.random()],
            "system": [uuid.uuid4().hex, secrets.token_hex(8)],
        }
        os.write(1, (json.dumps(drawn) + "\\n").encode())
        os._exit(0)
    assert os.wait()[1] == 0
"""


def test_two_restores_of_one_snapshot_draw_different_numbers(environment: Mapping[str, str]) -> None:
    lines = [json.loads(line) for line in run(_FORK, {**environment, **SNAP_START}).splitlines()]
    drawn = [line for line in lines if "pseudo" in line]
    assert [line["hooks"] for line in drawn] == [False, False, True, True]
    # Without the hooks the copies draw the same: the test can tell.
    assert drawn[0]["pseudo"] == drawn[1]["pseudo"]
    numbers = [number for line in drawn[1:] for number in line["pseudo"]]
    assert len(set(numbers)) == len(numbers) == 6
    # What comes from the kernel differs in any case.
    assert len({value for line in drawn for value in line["system"]}) == 8


def test_the_runtime_client_of_lambda_runs_it(environment: Mapping[str, str], publish: Publish) -> None:
    model = unique("plus")
    with RuntimeApi("functions.predict.handler.handler", {**environment, **SNAP_START}) as runtime:
        runtime.wait_for("restore/next")  # the snapshot is taken here
        assert runtime.operations == ["restore/next"]
        publish(model, 3)
        runtime.restore()
        call = event("POST", f"/v1/models/{model}/predict", ROUTE, {"instances": [[1, 2]]})
        trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
        answers = [runtime.invoke(call, trace_id=trace) for _ in range(2)]
    assert [json.loads(answer["body"])["predictions"] for answer in answers] == [[[4, 5]], [[4, 5]]]
    lines = runtime.log_lines()
    assert [(line["message"], line.get("route"), line.get("cold_start")) for line in lines] == [
        ("request", "GET /health", True),
        ("restored from a snapshot", None, None),
        ("request", f"POST {ROUTE}", True),
        ("request", f"POST {ROUTE}", False),
    ]
    assert [line.get("trace_id") for line in lines] == [None, None, *["1-5759e988-bd862e3fe1be46a994272793"] * 2]


def test_a_function_that_cannot_be_prepared_stops_the_publication(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    broken = {**environment, **SNAP_START, "SLUICE_CACHE_DIR": str(tmp_path / "file" / "cache")}
    with RuntimeApi("functions.predict.handler.handler", broken) as runtime:
        runtime.wait_for("init/error")
        assert runtime.wait() == 64
    assert runtime.operations == ["init/error"]
    assert runtime.errors == ["NotADirectoryError"]
