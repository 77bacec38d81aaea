"""Composition root of the check before a release."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from botocore.session import Session

from functions.release_check.check import CheckFailed, Findings, ReleaseCheck
from functions.release_check.settings import Settings
from shared.adapters import codedeploy
from shared.adapters.aws import client
from shared.adapters.codedeploy import Status
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.lambda_function import LambdaFunction
from shared.domain.errors import BackendError, SluiceError
from shared.domain.settings import SettingsError, load
from shared.web.logs import configure

Handler = Callable[[Mapping[str, Any], Any], dict[str, Any]]
Report = Callable[[str, str, Status], None]
"""Tells CodeDeploy the outcome, by the ids of the deployment and of the hook's execution; raises BackendError."""
Check = Callable[[float, Findings], None]
"""Runs the check within so many seconds; raises CheckFailed and SluiceError."""

# Kept of the invocation's own time for the report, and for a last call that has just begun.
_REPORT_S = 15.0


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment.

    SettingsError stops no start here: CodeDeploy would wait an hour for the report of a hook that cannot be loaded.
    The handler then reports that the release failed, and logs why.
    """
    session = Session()
    deployments = client("codedeploy", session=session, connect_timeout=1, read_timeout=3, retries=2)
    report: Report = partial(codedeploy.report, deployments)
    try:
        settings = load(Settings, environ)
    except SettingsError as error:
        return hook(partial(_refuse, str(error)), report, configure("release_check", "INFO"), budget_s=1, call_s=0)
    log = configure(settings.service, settings.log_level)
    connect_s = settings.connect_timeout_s
    dynamodb = client("dynamodb", session=session, connect_timeout=connect_s, read_timeout=settings.read_timeout_s)
    functions = client(
        "lambda", session=session, connect_timeout=connect_s, read_timeout=settings.invoke_timeout_s, retries=0
    )
    check = ReleaseCheck(
        LambdaFunction(functions, settings.target),
        DynamoDBModels(dynamodb, settings.models_table),
        settings.max_models,
        log,
    )
    return hook(check, report, log, budget_s=settings.budget_s, call_s=settings.invoke_timeout_s)


def hook(check: Check, report: Report, log: logging.Logger, *, budget_s: float, call_s: float) -> Handler:
    """The handler of a CodeDeploy lifecycle hook.

    It reports whatever becomes of the check, at the latest `budget_s` and one call of `call_s` seconds after its start
    or shortly before the invocation's own end, whichever comes first.
    Source: AWS CodeDeploy User Guide, "AppSpec 'hooks' section for an AWS Lambda deployment".
    """

    def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        left_s = context.get_remaining_time_in_millis() / 1000 - call_s - _REPORT_S
        findings = Findings()
        reason = _reason(check, min(budget_s, left_s), findings, log)
        status: Status = "Succeeded" if reason is None else "Failed"
        reported = _reported(report, event, status, log)
        outcome = {"status": status, "reason": reason, "passed": findings.passed, "skipped": findings.skipped}
        level = logging.INFO if reason is None else logging.ERROR
        log.log(level, "release check", extra={"fields": {**outcome, "deployment_id": event.get("DeploymentId")}})
        return {**outcome, "reported": reported}

    return handler


def _reason(check: Check, budget_s: float, findings: Findings, log: logging.Logger) -> str | None:
    """Why the release must not get traffic, None if it may."""
    try:
        check(budget_s, findings)
    except (CheckFailed, SluiceError) as error:
        return str(error)
    except Exception as error:
        log.exception("unexpected error")
        return f"The check itself failed: {type(error).__name__}."
    return None


def _reported(report: Report, event: Mapping[str, Any], status: Status, log: logging.Logger) -> bool:
    deployment, execution = event.get("DeploymentId"), event.get("LifecycleEventHookExecutionId")
    if not deployment or not execution:
        log.error("the event names no deployment to report to: CodeDeploy sends one with two ids")
        return False
    try:
        report(str(deployment), str(execution), status)
    except BackendError as error:
        # Nobody is there to hear an exception: the deployment now waits until CodeDeploy's own limit, an hour.
        fields = {"deployment_id": deployment, "status": status, "error": error.detail, "cause": repr(error.__cause__)}
        log.log(logging.ERROR, "CodeDeploy was not told", extra={"fields": fields})
        return False
    return True


def _refuse(reason: str, budget_s: float, findings: Findings) -> None:
    del budget_s, findings
    raise CheckFailed(f"The check has no valid settings: {reason}")
