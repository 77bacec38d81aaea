"""What functions are deployed as: handlers, variables, permissions, versions."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgspec
import pytest

from infra.local.stack_scope import ResolvedResource
from infra.local.template import load_stack
from shared.domain.settings import load, variable_of
from tests.template.support import COMBINATIONS, IMAGE, ROOT, TEMPLATE, of_type, resolved, source, translated

FUNCTIONS = [
    logical_id
    for logical_id, resource in source()["Resources"].items()
    if resource["Type"] == "AWS::Serverless::Function"
]
SERVED = [logical_id for logical_id in FUNCTIONS if logical_id != "ReleaseCheckFunction"]
# What a version is made of. Concurrency and tags are the function's, the log group is the same for ever.
NOT_OF_A_VERSION = {"ReservedConcurrentExecutions", "Tags", "Code"}
# Read by botocore.
OF_LIBRARIES = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"}


def settings_of(handler: str) -> type[msgspec.Struct]:
    settings: type[msgspec.Struct] = import_module(handler.rsplit(".", 2)[0] + ".settings").Settings
    return settings


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_handler_exists_and_every_folder_of_a_function_is_deployed(function: str) -> None:
    module, _, name = source()["Resources"][function]["Properties"]["Handler"].rpartition(".")
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    code = compile((ROOT / spec.origin).read_text(), spec.origin, "exec")
    assert name in code.co_names
    deployed = {source()["Resources"][other]["Properties"]["Handler"].split(".")[1] for other in FUNCTIONS}
    assert deployed == {path.parent.name for path in (ROOT / "functions").glob("*/handler.py")}


@pytest.mark.parametrize("combination", ["defaults", "container"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_template_sets_what_the_function_reads(function: str, combination: str) -> None:
    spec = load_stack(TEMPLATE, parameters=COMBINATIONS[combination]).functions[function]
    settings = settings_of(spec.handler)
    fields = {variable_of(field): field for field in msgspec.structs.fields(settings)}
    assert spec.environment.keys() - OF_LIBRARIES <= fields.keys()
    assert {name for name, field in fields.items() if field.required} <= spec.environment.keys()
    assert load(settings, spec.environment)
    assert sum(len(name) + len(value) for name, value in spec.environment.items()) < 4096


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_has_its_own_role_tracing_and_a_log_group_that_ends(function: str) -> None:
    resources = resolved()
    properties = resources[function].properties
    roles = [other.properties["Role"] for other in of_type(resources, "AWS::Lambda::Function").values()]
    assert roles.count(properties["Role"]) == 1
    assert properties["TracingConfig"] == {"Mode": "Active"}
    assert properties["Runtime"] == "python3.13"
    assert properties["LoggingConfig"]["LogFormat"] == "JSON"
    group = properties["LoggingConfig"]["LogGroup"]
    (retention,) = [
        found.properties["RetentionInDays"]
        for found in of_type(resources, "AWS::Logs::LogGroup").values()
        if found.ref == group
    ]
    assert str(retention) == "30"


def test_lambda_never_drops_a_line_without_a_level() -> None:
    for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
        logging = resolved({"LogLevel": level})["ApiFunction"].properties["LoggingConfig"]
        assert logging["ApplicationLogLevel"] in {"DEBUG", "INFO"}


def test_every_route_may_call_its_function() -> None:
    resources = resolved()
    api = resources["HttpApi"]
    prefix = f"arn:aws:execute-api:us-east-1:000000000000:{api.ref}/"
    allowed = {
        (permission.properties["FunctionName"], permission.properties["SourceArn"].removeprefix(prefix))
        for permission in of_type(resources, "AWS::Lambda::Permission").values()
        if permission.properties["Principal"] == "apigateway.amazonaws.com"
    }
    wanted = set()
    for path, operations in api.properties["Body"]["paths"].items():
        for verb, operation in operations.items():
            wanted.add((_called(operation["x-amazon-apigateway-integration"]["uri"]), _source(verb, path)))
    (scheme,) = api.properties["Body"]["components"]["securitySchemes"].values()
    wanted.add((_called(scheme["x-amazon-apigateway-authorizer"]["authorizerUri"]), "authorizers/*"))
    assert wanted == allowed
    assert len(wanted) > 9


def _called(uri: str) -> str:
    return uri.partition("/functions/")[2].removesuffix("/invocations")


def _source(verb: str, path: str) -> str:
    segments = ("*" if segment.startswith("{") else segment for segment in path.split("/"))
    return f"*/{verb.upper()}{'/'.join(segments)}"


@pytest.mark.parametrize("function", SERVED)
def test_callers_reach_the_alias_and_a_new_version_gets_there_in_steps(function: str) -> None:
    resources = translated({"DeploymentType": "Linear10PercentEvery1Minute"})["Resources"]
    alias = resources[f"{function}Aliaslive"]
    version = alias["Properties"]["FunctionVersion"]["Fn::GetAtt"][0]
    assert resources[version]["Type"] == "AWS::Lambda::Version"
    assert resources[version]["Properties"]["FunctionName"] == {"Ref": function}
    update = alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    group = resources[update["DeploymentGroupName"]["Ref"]]["Properties"]
    assert group["AlarmConfiguration"]["Alarms"]
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    config = resolved({"DeploymentType": "Linear10PercentEvery1Minute"})[f"{function}DeploymentGroup"].properties
    assert config["DeploymentConfigName"] == "CodeDeployDefault.LambdaLinear10PercentEvery1Minute"
    alarms = {alarm.name for alarm in of_type(resolved(), "AWS::CloudWatch::Alarm").values()}
    assert {alarm["Name"] for alarm in config["AlarmConfiguration"]["Alarms"]} <= alarms


def test_a_new_version_is_asked_for_predictions_first() -> None:
    resources = translated()["Resources"]
    alias = resources["PredictFunctionAliaslive"]
    assert alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]["BeforeAllowTrafficHook"] == {
        "Ref": "ReleaseCheckFunction"
    }
    check = resources["ReleaseCheckFunction"]["Properties"]
    version = alias["Properties"]["FunctionVersion"]["Fn::GetAtt"][0]
    assert check["Environment"]["Variables"]["SLUICE_TARGET"] == {"Ref": version}
    # AWSCodeDeployRoleForLambda lets CodeDeploy call functions of this prefix and no others.
    assert resolved()["ReleaseCheckFunction"].properties["FunctionName"].startswith("CodeDeployHook_")
    settings = load(settings_of(check["Handler"]), {"SLUICE_TARGET": "t", "SLUICE_MODELS_TABLE": "m"})
    assert getattr(settings, "budget_s") < check["Timeout"]  # noqa: B009 - one of many Settings


@pytest.mark.parametrize(
    ("parameters", "snap_start", "provisioned"),
    [
        ({}, "PublishedVersions", None),
        ({"PredictSnapStart": "false"}, "None", None),
        ({"PredictProvisionedConcurrency": "3"}, "None", "3"),
        ({"PredictProvisionedConcurrency": "3", "PredictSnapStart": "false"}, "None", "3"),
    ],
)
def test_snapstart_and_provisioned_concurrency_never_meet(
    parameters: dict[str, str], snap_start: str, provisioned: str | None
) -> None:
    resources = resolved(parameters)
    assert resources["PredictFunction"].properties["SnapStart"] == {"ApplyOn": snap_start}
    # Lambda refuses SnapStart with more than 512 MB of /tmp.
    assert "EphemeralStorage" not in resources["PredictFunction"].properties
    alias = resources["PredictFunctionAliaslive"].properties
    expected = None if provisioned is None else {"ProvisionedConcurrentExecutions": provisioned}
    assert alias.get("ProvisionedConcurrencyConfig") == expected


@pytest.mark.parametrize("function", SERVED)
def test_a_parameter_makes_a_new_version_if_it_changes_the_function_and_only_then(function: str) -> None:
    before = resolved()
    changes: dict[str, dict[str, str]] = {
        "Architecture": {"Architecture": "arm64"},
        "LogLevel": {"LogLevel": "ERROR"},
        "AwsEndpointUrl": {"AwsEndpointUrl": "http://127.0.0.1:4566"},
        "PredictMemory": {"PredictMemory": "3538"},
        "PredictSnapStart": {"PredictSnapStart": "false"},
        "PredictProvisionedConcurrency": {"PredictProvisionedConcurrency": "1"},
        "PredictReservedConcurrency": {"PredictReservedConcurrency": "9"},
        "ApiReservedConcurrency": {"ApiReservedConcurrency": "9"},
        "AuthorizerReservedConcurrency": {"AuthorizerReservedConcurrency": "9"},
        "LogRetentionDays": {"LogRetentionDays": "90"},
        "ThrottlingRate": {"ThrottlingRate": "9"},
        "ContainerImage": {"ContainerImage": IMAGE},
    }
    for name, change in changes.items():
        after = resolved(change)
        changed = _version_parts(before[function]) != _version_parts(after[function])
        assert changed == (_description(before, function) != _description(after, function)), name
    # With one of the two on, the number of the other's environments is none of the version's business.
    one, two = (resolved({"PredictProvisionedConcurrency": count}) for count in "12")
    assert _description(one, function) == _description(two, function)


def _version_parts(function: ResolvedResource) -> dict[str, Any]:
    return {name: value for name, value in function.properties.items() if name not in NOT_OF_A_VERSION}


def _description(resources: Mapping[str, ResolvedResource], function: str) -> str:
    (version,) = [
        resource.properties["Description"]
        for resource in of_type(resources, "AWS::Lambda::Version").values()
        if resource.properties["FunctionName"] == resources[function].ref
    ]
    assert len(version) <= 256
    return str(version)
