"""What a cold start imports: each handler in a fresh process, with the environment that the template gives it."""

import json
import os
import subprocess
import sys

import pytest

from infra.local.stack import REGION, StackSpec
from infra.local.template import load_stack
from shared.adapters.backends.registry import KINDS
from tests.conftest import ROOT

# Of those of the template's functions that only some stacks have.
PARAMETERS = {"ContainerImage": "local", "ContainerAsyncMaxInstances": "1"}
WEB = {"fastapi", "starlette", "pydantic", "mangum"}
WEB_SERVED = WEB - {"pydantic"} | {"python_multipart"}
TRAINING = {"sklearn", "skl2onnx", "torch", "onnx", "transformers"}
LOCAL = {"infra", "examples", "tests", "moto", "aiohttp", "flask", "awslambdaric", "typer", "rich"}
NEVER = TRAINING | LOCAL | {"boto3", "aws_lambda_powertools", "grpc", "pandas", "pyarrow", "requests"}

BACKENDS = "shared.adapters.backends"
RUNS_MODELS = {"PredictFunction", "AdminFunction", "JobWorkerFunction", "AsyncResultFunction", "BatchRunnerFunction"}

_IMPORT = """
import importlib, json, sys
module, function = sys.argv[1].rsplit(".", 1)
assert callable(getattr(importlib.import_module(module), function))
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def stack() -> StackSpec:
    """All functions of `template.yaml`."""
    return load_stack(ROOT / "template.yaml", stack_name="tests", parameters=PARAMETERS)


def cold_import(stack: StackSpec, function: str) -> set[str]:
    """The modules that a function's handler brings in."""
    spec = stack.functions[function]
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environment = {"AWS_DEFAULT_REGION": REGION, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _IMPORT, spec.handler],
        env={**kept, **environment, **spec.environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return set(json.loads(done.stdout))


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    ("function", "needed", "refused"),
    [
        ("AuthorizerFunction", {"botocore"}, {"numpy", "onnxruntime", "PIL", "orjson", "tokenizers", "asyncio"} | WEB),
        ("PredictFunction", {"onnxruntime", "numpy", "fastapi"}, {"tokenizers", "google", "jwt", "cryptography"}),
        (
            "ApiFunction",
            {"fastapi", "pydantic"},
            {"numpy", "onnxruntime", "PIL", "tokenizers", "jwt", "cryptography"},
        ),
        ("AdminFunction", {"fastapi", "pydantic"}, {"numpy", "onnxruntime", "PIL", "jwt", "cryptography"}),
        ("TelemetryFunction", {"botocore"}, {"numpy", "onnxruntime", "orjson", "jwt", "cryptography"} | WEB),
        ("JobWorkerFunction", {"onnxruntime", "numpy"}, {"tokenizers", "google", "jwt", "cryptography"} | WEB_SERVED),
        ("AsyncResultFunction", {"numpy"}, {"tokenizers", "google", "jwt", "cryptography"} | WEB_SERVED),
        ("BatchRunnerFunction", {"onnxruntime", "numpy"}, {"tokenizers", "google", "jwt", "cryptography"} | WEB_SERVED),
        ("WebhookSenderFunction", {"botocore"}, {"numpy", "onnxruntime", "orjson", "jwt", "cryptography"} | WEB),
        ("JobSweeperFunction", {"botocore"}, {"numpy", "onnxruntime", "orjson", "jwt", "cryptography"} | WEB),
        (
            "ReleaseCheckFunction",
            {"botocore", "pydantic"},
            {"numpy", "onnxruntime", "PIL", "orjson", "tokenizers", "fastapi", "starlette", "mangum"},
        ),
    ],
)
def test_a_function_imports_what_its_path_needs(
    stack: StackSpec, function: str, needed: set[str], refused: set[str]
) -> None:
    modules = cold_import(stack, function)
    imported = packages(modules)
    assert needed <= imported
    assert imported & (refused | NEVER) == set()
    # No kind of backend is imported before a configuration names it.
    assert modules & {*KINDS.values(), f"{BACKENDS}.http_backend", f"{BACKENDS}.grpc_backend"} == set()
    assert (f"{BACKENDS}.registry" in modules) == (function in RUNS_MODELS)


def test_every_function_of_the_template_is_held_to_it(stack: StackSpec) -> None:
    assert set(stack.functions) == {
        "AdminFunction",
        "ApiFunction",
        "AsyncResultFunction",
        "AuthorizerFunction",
        "BatchRunnerFunction",
        "JobSweeperFunction",
        "JobWorkerFunction",
        "PredictFunction",
        "ReleaseCheckFunction",
        "TelemetryFunction",
        "WebhookSenderFunction",
    }


# The check before a release starts with any settings, and reports bad ones to CodeDeploy: see its own tests.
@pytest.mark.parametrize(
    "function",
    [
        "AuthorizerFunction",
        "PredictFunction",
        "ApiFunction",
        "AdminFunction",
        "TelemetryFunction",
        "JobWorkerFunction",
        "JobSweeperFunction",
        "BatchRunnerFunction",
        "WebhookSenderFunction",
    ],
)
def test_a_bad_setting_stops_the_start_with_its_name(stack: StackSpec, function: str) -> None:
    spec = stack.functions[function]
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, spec.handler],
        env={"PATH": os.environ["PATH"], "AWS_DEFAULT_REGION": REGION, "SLUICE_READ_TIMEOUT_S": "soon"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "SLUICE_READ_TIMEOUT_S" in done.stderr
    assert "_TABLE is not set" in done.stderr
    assert "soon" not in done.stderr
