"""`template.yaml` → `StackSpec`: transform, parameters, conditions and functions resolved for the local runtime."""

from collections.abc import Collection, Mapping
from pathlib import Path

from infra.local.event_sources.mappings import load_event_sources
from infra.local.events.loading import load_events
from infra.local.functions import load_functions
from infra.local.http_api import load_http_api
from infra.local.intrinsics import TemplateError
from infra.local.log_delivery.subscriptions import load_log_subscriptions
from infra.local.resource_types import CREATED, UNSUPPORTED_PROPERTIES, UnknownResourceType
from infra.local.sam_transform import transform
from infra.local.stack import ResourceSpec, StackSpec
from infra.local.stack_scope import ResolvedResource, StackScope

__all__ = ["TemplateError", "UnknownResourceType", "load_stack"]


def load_stack(
    path: Path,
    *,
    stack_name: str = "sluice",
    parameters: Mapping[str, str] | None = None,
    cache_dir: Path | None = None,
) -> StackSpec:
    """The stack that the template at `path` describes, with `parameters` in place of its defaults.

    Resources of nested stacks are keyed `Nested.LogicalId`. `cache_dir` keeps transformed templates, which saves more
    than a second. Raises `TemplateError` for a template or a parameter that cannot be used, and its subclass
    `UnknownResourceType` for resources that the local runtime would otherwise have to ignore.
    """
    scope = StackScope(
        path.resolve(),
        stack_name,
        parameters or {},
        lambda template, values: transform(template, values, cache_dir),
    )
    resolved = list(scope.resources())
    layers = {resource.ref for resource in resolved if resource.type == "AWS::Lambda::LayerVersion"}
    for resource in resolved:
        _refuse_unsupported(resource, layers)
    functions = load_functions(resolved)
    stages = [resource for resource in resolved if resource.type == "AWS::ApiGatewayV2::Stage"]
    return StackSpec(
        name=stack_name,
        functions=functions,
        http_apis={
            resource.logical_id: load_http_api(resource, stages, functions)
            for resource in resolved
            if resource.type == "AWS::ApiGatewayV2::Api"
        },
        resources={
            resource.logical_id: ResourceSpec(
                resource.logical_id, resource.type, resource.name, resource.properties, resource.ref
            )
            for resource in resolved
            if resource.type in CREATED
        },
        outputs=scope.outputs(),
        log_subscriptions=load_log_subscriptions(resolved, functions),
        event_sources=load_event_sources(resolved, functions),
        events=load_events(resolved, {function.arn: logical_id for logical_id, function in functions.items()}),
    )


def _refuse_unsupported(resource: ResolvedResource, layers: Collection[str]) -> None:
    """`layers` are those of the stack: what they hold is in the environment that runs the functions."""
    found = sorted(UNSUPPORTED_PROPERTIES.get(resource.type, frozenset()) & set(resource.properties))
    found += [f"the layer {layer}" for layer in resource.properties.get("Layers", []) if layer not in layers]
    if found:
        raise UnknownResourceType({resource.logical_id: f"{resource.type} with {', '.join(found)}"})
