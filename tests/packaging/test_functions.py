"""Staged functions under Lambda's Python, in clean processes."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.session import Session

from infra.local.seed import seed_keys
from infra.packaging.interpreter import Interpreter
from infra.packaging.template import Template
from shared.adapters.aws import client
from shared.adapters.backends.registry import KINDS
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.domain.jobs import new_job_id
from shared.domain.principal import Principal
from tests.adapters.samples import unique
from tests.conftest import ROOT, LocalAws
from tests.functions.batch_house import BatchHouse, packed
from tests.functions.support import event
from tests.functions.test_batch_runner import csv_of, jsonl_of, npy_of, parquet_of
from tests.functions.test_bootstrap import publish
from tests.functions.test_webhook_sender import finished, stream_record
from tests.iam.backends import Endpoints
from tests.iam.jobs import messages
from tests.log_lines import authorization, batch, request, subscription
from tests.packaging.calls import DIGIT, TUMOR, authorize, body, expected, file, predict
from tests.packaging.clean_process import ISOLATED, PATH, run
from tests.packaging.conftest import Unpack
from tests.usecases.job_runs import job_of

NAMES = [function.name for function in Template(ROOT, ROOT / "template.yaml").functions()]
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)
FILES: Mapping[str, Callable[[], bytes]] = {
    "rows.csv": lambda: csv_of(ROWS),
    "rows.csv.gz": lambda: packed(csv_of(ROWS)),
    "rows.jsonl": lambda: jsonl_of(ROWS),
    "rows.npy": lambda: npy_of(ROWS),
    "rows.parquet": lambda: parquet_of(ROWS),
}
ADMIN = Principal("ops", "a" * 16, frozenset({"admin"}), "default")
_BACKENDS = [
    "grpc",
    "shared.adapters.backends.grpc_backend",
    "shared.adapters.backends.http_backend",
    "shared.adapters.backends.sagemaker_events",
    "shared.adapters.backends.sagemaker_queue",
    "shared.adapters.backends.sagemaker_realtime",
]
# What is imported by the first request that needs it.
ON_FIRST_USE = {
    "AuthorizerFunction": ["jwt", "cryptography.hazmat.primitives.asymmetric.ec"],
    "AdminFunction": [
        "cryptography.hazmat.primitives.ciphers.aead",
        "aws_lambda_powertools.utilities.idempotency",
        # To check options; what calls a server is not for this function.
        *KINDS.values(),
    ],
    "PredictFunction": [
        "aws_lambda_powertools.utilities.idempotency.base",
        "google.protobuf.message",
        "python_multipart",
        *_BACKENDS,
        "shared.codecs.protobuf.tensors",
    ],
    "ApiFunction": [
        "aws_lambda_powertools.utilities.idempotency.base",
        "cryptography.hazmat.primitives.ciphers.aead",
    ],
    "JobWorkerFunction": [*_BACKENDS, "python_multipart"],
    "AsyncResultFunction": ["shared.adapters.backends.sagemaker_queue"],
    "BatchRunnerFunction": [*_BACKENDS, "pyarrow.csv", "pyarrow.parquet", "pyarrow.types"],
    "WebhookSenderFunction": ["cryptography.hazmat.primitives.ciphers.aead"],
}
_IMPORT = f"{PATH}from importlib import import_module; [import_module(name) for name in sys.argv[1:]]"


@pytest.mark.parametrize("name", NAMES)
def test_a_function_needs_nothing_but_its_artefacts(
    name: str, unpack: Unpack, interpreter: Interpreter, tmp_path: Path
) -> None:
    function = unpack(name)
    ran = run(interpreter, function, [], tmp_path)
    allowed = (*map(str, function.search_path), ran.library)
    assert [name for name, path in ran.loaded.items() if not path.startswith(allowed)] == []
    assert ran.loaded[function.spec.handler.rpartition(".")[0]].startswith(str(function.task))
    *artefacts, _in_lambda = map(str, function.search_path)
    ours = [name for name, path in ran.loaded.items() if path.startswith(tuple(artefacts)) and path.endswith(".py")]
    assert [name for name in ours if not Path(ran.cached[name]).is_file()] == []  # all of it came with its bytecode


@pytest.mark.parametrize("name", sorted(ON_FIRST_USE))
def test_what_is_imported_on_first_use_is_staged(name: str, unpack: Unpack, interpreter: Interpreter) -> None:
    function = unpack(name)
    path = json.dumps([str(part) for part in function.search_path])
    command = [interpreter.path, *ISOLATED, "-c", _IMPORT, path, *ON_FIRST_USE[name]]
    done = subprocess.run(command, cwd=function.task, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_prediction_is_made_once(
    unpack: Unpack, interpreter: Interpreter, published: Sequence[str], tmp_path: Path
) -> None:
    asked = predict("tumor", TUMOR).event
    asked = {**asked, "headers": {**asked["headers"], "idempotency-key": unique("key")}}
    first, second = run(interpreter, unpack("PredictFunction"), [asked, asked], tmp_path).answers
    assert body(first) == body(second)
    assert (first["statusCode"], second["headers"]["idempotency-replayed"]) == (200, "true")


def test_a_key_is_made_once_and_its_text_kept_sealed(
    unpack: Unpack, interpreter: Interpreter, local_aws: LocalAws, tmp_path: Path
) -> None:
    seed_keys(local_aws.stack, local_aws.url)
    wanted, path = {"tenant": "demo", "scopes": ["predict"]}, "/v1/admin/keys"
    asked = event("POST", path, path, wanted, {"idempotency-key": unique("key")}, ADMIN)
    first, second = run(interpreter, unpack("AdminFunction"), [asked, asked], tmp_path).answers
    assert (first["statusCode"], second["headers"]["idempotency-replayed"]) == (201, "true")
    assert first["body"] == second["body"]


def test_telemetry_records_a_batch(unpack: Unpack, interpreter: Interpreter, tmp_path: Path) -> None:
    made = subscription(batch(request(), authorization(), stream=unique("stream")))
    assert run(interpreter, unpack("TelemetryFunction"), [made], tmp_path).answers == [None]


def test_a_job_is_run(
    unpack: Unpack, interpreter: Interpreter, local_aws: LocalAws, aws_session: Session, tmp_path: Path
) -> None:
    function = unpack("JobWorkerFunction")
    jobs = DynamoDBJobs(
        client("dynamodb", session=aws_session, endpoint_url=local_aws.url), function.environment["SLUICE_JOBS_TABLE"]
    )
    job = job_of(model=publish(local_aws, aws_session, tmp_path), body=b'{"instances": [[1, 2]]}')
    jobs.add(job)
    run(interpreter, function, [messages({"job_id": job.job_id})], tmp_path)
    result = jobs.get(job.tenant, job.job_id).result
    assert result is not None
    assert json.loads(result.inline or b"")["predictions"] == [[2, 3]]


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.jsonl", "rows.npy", "rows.parquet"])
def test_a_file_of_every_format_is_run(
    name: str, unpack: Unpack, interpreter: Interpreter, local_aws: LocalAws, aws_session: Session, tmp_path: Path
) -> None:
    function, model = unpack("BatchRunnerFunction"), publish(local_aws, aws_session, tmp_path)
    house = BatchHouse(local_aws, aws_session, tmp_path)
    dropped = house.drop(model, name, FILES[name]())
    job_id = house.id_of(dropped)
    steps: list[dict[str, Any]] = [{"step": "plan"}, {"step": "part", "part": 0}, {"step": "finish"}]
    run(interpreter, function, [dropped, *(messages({"job_id": job_id, **step}) for step in steps)], tmp_path)
    job = house.job(job_id)
    assert (job.state, job.problem, job.rows_done) == ("succeeded", None, 3)


def test_a_sweep_a_notice_and_an_event_of_the_stream_are_taken(
    unpack: Unpack, interpreter: Interpreter, tmp_path: Path
) -> None:
    assert run(interpreter, unpack("JobSweeperFunction"), [{}], tmp_path).answers[0]["complete"] is True
    notice = json.dumps({"inferenceId": f"{new_job_id()}-1", "invocationStatus": "Completed"})
    told = {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": notice}}]}
    assert run(interpreter, unpack("AsyncResultFunction"), [told], tmp_path).answers == [None]
    ended = {"Records": [stream_record(finished(unique("t")), 1)]}
    answers = run(interpreter, unpack("WebhookSenderFunction"), [ended], tmp_path).answers
    assert answers == [{"batchItemFailures": []}]


def test_predict_answers_as_the_model_does(
    unpack: Unpack, interpreter: Interpreter, published: Sequence[str], tmp_path: Path
) -> None:
    asked = [("tumor", TUMOR), ("digits", DIGIT)]
    events = [predict(model, instances).event for model, instances in asked]
    ran = run(interpreter, unpack("PredictFunction"), events, tmp_path)
    for (model, instances), answer in zip(asked, ran.answers, strict=True):
        document = body(answer)
        assert document["model"]["backend"] == "function"
        for got, wanted in zip(document["predictions"], expected(model, instances), strict=True):
            assert got["label"] == wanted["label"]
            assert list(got["probabilities"].values()) == pytest.approx(wanted["probabilities"], rel=1e-3, abs=1e-6)


def test_a_text_model_is_sent_to_the_container(
    unpack: Unpack, interpreter: Interpreter, published: Sequence[str], tmp_path: Path
) -> None:
    (answer,) = run(interpreter, unpack("PredictFunction"), [file("predict_embed")], tmp_path).answers
    problem = json.loads(answer["body"])
    assert problem["status"] == 503
    assert "ContainerImage" in problem["detail"]


def test_a_backend_of_a_configuration_is_called_by_grpc(
    unpack: Unpack, interpreter: Interpreter, local_aws: LocalAws, tmp_path: Path
) -> None:
    function = unpack("PredictFunction")
    nobody = {"target": "127.0.0.1:9", "connect_timeout_ms": 500}
    model = Endpoints(local_aws, function.environment).run_on("open-inference-grpc", nobody)
    asked = event("POST", f"/v1/models/{model}/predict", "/v1/models/{model}/predict", {"instances": [[1, 2]]})
    ran = run(interpreter, function, [asked], tmp_path)
    (problem,) = (json.loads(answer["body"]) for answer in ran.answers)
    assert (problem["status"], problem["code"]) == (503, "backend_unavailable")
    assert ran.loaded["grpc"].startswith(tuple(map(str, function.search_path)))


def test_the_authorizer_knows_a_key(
    unpack: Unpack, interpreter: Interpreter, local_aws: LocalAws, tmp_path: Path
) -> None:
    events = [authorize(local_aws).event, file("authorizer")]
    known, unknown = run(interpreter, unpack("AuthorizerFunction"), events, tmp_path).answers
    assert known["isAuthorized"] is True
    assert known["context"]["tenant"] == "demo"
    assert unknown == {"isAuthorized": False}


def test_the_contract_and_its_page_are_served(
    unpack: Unpack, interpreter: Interpreter, published: Sequence[str], tmp_path: Path
) -> None:
    events = [file("api_openapi"), file("api_docs"), file("api_docs_asset")]
    contract, page, asset = run(interpreter, unpack("ApiFunction"), events, tmp_path).answers
    assert "/v1/models/tumor/predict" in body(contract)["paths"]
    assert page["statusCode"] == asset["statusCode"] == 200
    assert len(asset["body"]) > 1000
