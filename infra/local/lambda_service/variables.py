"""The environment variables that a function sees: Lambda's and its own, nothing of whoever started the stack."""

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from infra.local.stack import REGION, FunctionSpec

# Dummy credentials, and no file of the user's from which boto3 could take real ones.
_DEFAULTS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "local",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "LANG": "en_US.UTF-8",
    "TZ": ":UTC",
}


def function_environment(
    spec: FunctionSpec, *, python: Path, base: Mapping[str, str], runtime_api: str, log_stream: str
) -> dict[str, str]:
    """What Lambda sets, and the function's own.

    `base` is the stack's (endpoints of the local AWS services and credentials for them); a function's own variable
    wins over it unless it is empty, a reserved one over both. `runtime_api` is `host:port`.
    Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html.
    """
    reserved = {
        "_HANDLER": spec.handler,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": spec.log_group_name,
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_REGION": REGION,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": str(spec.code_dir),
    }
    path = {"PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin"}
    # The interpreter may need its libraries' path to start at all; Lambda sets one too.
    libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    # An empty variable is one that the template declares and leaves unset.
    own = {name: value for name, value in spec.environment.items() if value or name not in base}
    return {**_DEFAULTS, **path, **libraries, **base, **own, **reserved}


def log_stream_name(spec: FunctionSpec, environment_id: str) -> str:
    """`2026/11/05/[$LATEST]<32 hex digits>`, with the function's name before the bracket in a log group of its choice.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-loggroups.html.
    """
    name = "" if spec.log_group is None else spec.name
    return f"{datetime.now(UTC):%Y/%m/%d}/{name}[$LATEST]{environment_id}"
