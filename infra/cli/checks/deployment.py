"""Checks of a deployed stack: CloudFormation's view, its functions, its endpoint, its API."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Final

from infra.cli.checks.api import api_checks
from infra.cli.checks.check import Check, Outcome, failed, ok, warning
from infra.cli.deployed import Account, StackResource, StackState

_FUNCTION: Final = "AWS::Lambda::Function"
_ENDPOINT: Final = "AWS::SageMaker::Endpoint"
_NEEDED: Final = ("ApiUrl", "ModelsTableName", "ModelBucketName", "KeysTableName")
_GOOD: Final = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"})


def deployment_checks(account: Account, name: str, key: str | None, model: str | None) -> Sequence[Check]:
    """The checks of the stack `name`; those of the API need its outputs, and say so where they are missing."""

    @cache
    def state() -> StackState:
        return account.stack(name)

    @cache
    def resources() -> Sequence[StackResource]:
        return list(account.resources(name))

    publish = f"Publish one: `sluice publish MODEL.onnx --stack {name}`."
    api = api_checks_of(lambda: state().outputs, key, model, publish)
    return [
        Check("stack", lambda: stack(name, state())),
        Check("functions", lambda: functions(account, _of_type(resources(), _FUNCTION))),
        Check("endpoint", lambda: endpoints(account, _of_type(resources(), _ENDPOINT))),
        *api,
    ]


def api_checks_of(
    outputs: Callable[[], Mapping[str, str]], key: str | None, model: str | None, publish_hint: str
) -> Sequence[Check]:
    """The API's checks, its address looked up when they are made."""

    def later(position: int) -> Outcome:
        if not (url := outputs().get("ApiUrl")):
            return failed("The stack has no output ApiUrl.", "Is this a Sluice stack, and its deployment complete?")
        return api_checks(url, key, model, publish_hint=publish_hint)[position].run()

    return [Check("ready", lambda: later(0)), Check("prediction", lambda: later(1))]


def instance_type(account: Account, name: str) -> str | None:
    """The instance type of the stack's endpoint, or None if it has none. Raises ClientError, BotoCoreError."""
    parameters = account.stack(name).parameters
    return parameters.get("ContainerInstanceType") if parameters.get("ContainerImage") else None


def stack(name: str, state: StackState) -> Outcome:
    """CloudFormation's status, and whether the outputs that the commands need are there."""
    said = f"The stack {name} is {state.status}" + (f" ({state.reason})." if state.reason else ".")
    if state.status.endswith("_IN_PROGRESS"):
        return warning(said, "Wait until it is done, then look again.")
    if state.status == "UPDATE_ROLLBACK_COMPLETE":
        return warning(said, "The last deployment was taken back: its events say why (`sam list stack-outputs` works).")
    if state.status not in _GOOD:
        return failed(said, "See the stack's events; a stack that never came up must be deleted before another try.")
    if missing := [output for output in _NEEDED if output not in state.outputs]:
        return failed(f"{said} It has no output {', '.join(missing)}.", "Deploy this version of template.yaml.")
    return ok(said)


def functions(account: Account, found: Sequence[StackResource]) -> Outcome:
    """Whether every function is active and its last update went through."""
    if not found:
        return failed("The stack has no function.", "Is this a Sluice stack?")
    troubled = []
    for resource in found:
        configuration = account.client("lambda").get_function_configuration(FunctionName=resource.physical_id)
        state = configuration.get("State", "Active")
        update = configuration.get("LastUpdateStatus", "Successful")
        if state != "Active" or update != "Successful":
            reason = configuration.get("StateReason") or configuration.get("LastUpdateStatusReason") or "no reason"
            troubled.append(f"{resource.logical_id} is {state}, its last update {update} ({reason})")
    if troubled:
        return failed(f"{'; '.join(troubled)}.", "Wait if it is pending; else deploy again.")
    return ok(f"All {len(found)} functions are active.")


def endpoints(account: Account, found: Sequence[StackResource]) -> Outcome:
    """Whether the endpoint is in service."""
    if not found:
        return ok("The stack has no container: ContainerImage is empty.")
    troubled = []
    for resource in found:
        name = resource.physical_id.rpartition("/")[2]
        endpoint = account.client("sagemaker").describe_endpoint(EndpointName=name)
        if endpoint["EndpointStatus"] != "InService":
            reason = endpoint.get("FailureReason", "no reason given")
            troubled.append(f"The endpoint {name} is {endpoint['EndpointStatus']} ({reason})")
    if troubled:
        return failed(
            f"{'; '.join(troubled)}.",
            "See its log group /aws/sagemaker/Endpoints/…, and the quota of its instance type.",
        )
    return ok("The endpoint is in service.")


def _of_type(resources: Sequence[StackResource], type_: str) -> Sequence[StackResource]:
    return [resource for resource in resources if resource.type == type_ and resource.physical_id]
