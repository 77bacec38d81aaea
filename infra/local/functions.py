"""Functions of a template as `FunctionSpec`, with what the template says of their asynchronous invocations."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from infra.local.intrinsics import TemplateError, as_text
from infra.local.sam_transform import code_folder
from infra.local.stack import ACCOUNT_ID, REGION, FunctionSpec
from infra.local.stack_scope import ResolvedResource

TYPE: Final = "AWS::Lambda::Function"
EVENT_CONFIG_TYPE: Final = "AWS::Lambda::EventInvokeConfig"
_QUEUE_ARN: Final = f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:"


def load_functions(resources: Iterable[ResolvedResource]) -> dict[str, FunctionSpec]:
    """The functions among `resources` by logical id; raises `TemplateError`."""
    resources = tuple(resources)
    functions = {resource.logical_id: _function(resource) for resource in resources if resource.type == TYPE}
    by_name = {function.name: function for function in functions.values()}
    for resource in resources:
        if resource.type == EVENT_CONFIG_TYPE:
            named = by_name.get(str(resource.properties.get("FunctionName")))
            if named is None:
                raise TemplateError(f"Resources.{resource.logical_id}: FunctionName is no function of this stack.")
            functions[named.logical_id] = _configured(named, resource)
    return functions


def _function(resource: ResolvedResource) -> FunctionSpec:
    where = f"Resources.{resource.logical_id}.Properties"
    properties = resource.properties
    runtime = str(properties.get("Runtime"))
    if not runtime.startswith("python"):
        raise TemplateError(f"{where}.Runtime: the local runtime runs Python functions only, not {runtime}.")
    folder = code_folder(properties.get("Code", {}))
    if folder is None:
        raise TemplateError(f"{where}.CodeUri: the local runtime needs a local folder.")
    code_dir = (resource.template_dir / folder).resolve()
    if not code_dir.is_dir():
        raise TemplateError(f"{where}.CodeUri: {code_dir} is not a folder.")
    variables = properties.get("Environment", {}).get("Variables", {})
    return FunctionSpec(
        logical_id=resource.logical_id,
        name=resource.name,
        handler=as_text(properties.get("Handler"), f"{where}.Handler"),
        code_dir=code_dir,
        memory_mb=int(properties.get("MemorySize", 128)),
        timeout_s=float(properties.get("Timeout", 3)),
        environment={
            name: as_text(value, f"{where}.Environment.Variables.{name}") for name, value in variables.items()
        },
        log_group=properties.get("LoggingConfig", {}).get("LogGroup"),
        dead_letter_queue=_queue(properties.get("DeadLetterConfig", {}).get("TargetArn"), f"{where}.DeadLetterConfig"),
    )


def _configured(function: FunctionSpec, resource: ResolvedResource) -> FunctionSpec:
    """Every qualifier means the same function here. The age of an event has no effect: its retries take seconds."""
    where = f"Resources.{resource.logical_id}.Properties"
    destinations: Mapping[str, Any] = resource.properties.get("DestinationConfig", {})
    if destinations.get("OnSuccess"):
        raise TemplateError(f"{where}.DestinationConfig: the local runtime has no OnSuccess destinations.")
    failed = destinations.get("OnFailure", {}).get("Destination")
    return replace(
        function,
        event_retries=int(resource.properties.get("MaximumRetryAttempts", function.event_retries)),
        on_failure_queue=_queue(failed, f"{where}.DestinationConfig.OnFailure"),
    )


def _queue(arn: str | None, where: str) -> str | None:
    """The name of a queue, which is where failed events can go to here."""
    if arn is None:
        return None
    if not arn.startswith(_QUEUE_ARN):
        raise TemplateError(f"{where}: the local runtime sends failed events to queues only, not to {arn}.")
    return arn.removeprefix(_QUEUE_ARN)
