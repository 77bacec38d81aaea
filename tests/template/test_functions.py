"""What functions are deployed as: handlers, variables, permissions, versions."""

import json
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgspec
import pytest

from infra.local.stack_scope import ResolvedResource
from infra.local.template import TemplateError, load_stack
from shared.domain.settings import SettingsError, load, variable_of
from tests.template.support import (
    COMBINATIONS,
    IMAGE,
    ROOT,
    TEMPLATE,
    listed,
    of_type,
    resolved,
    source,
    statements,
    translated,
)

FUNCTIONS = [
    logical_id
    for logical_id, resource in source()["Resources"].items()
    if resource["Type"] == "AWS::Serverless::Function"
]
# Everything that can be switched on at once, functions under a condition included.
WHOLE = COMBINATIONS["container with a queue"]
AUTHORIZER = "AuthorizerFunction"
# The gateway calls these, and they get new versions step by step. The others are called by CodeDeploy, log
# subscriptions, queues, streams and schedules: there is no traffic to move, and what fails is done again.
BEHIND_GATEWAY = [
    logical_id
    for logical_id in FUNCTIONS
    if logical_id == AUTHORIZER
    or "HttpApi"
    in {event["Type"] for event in source()["Resources"][logical_id]["Properties"].get("Events", {}).values()}
]
ANY_METHOD = "x-amazon-apigateway-any-method"
# What a version is made of. Concurrency and tags are the function's, the log group is the same for ever.
NOT_OF_A_VERSION = {"ReservedConcurrentExecutions", "Tags", "Code"}
# Read by botocore.
OF_LIBRARIES = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"}
# As long as they may be.
PRICES = (
    '{"date":"2026-11-21","http_request":1.11e-06,"log_gb":0.57,'
    '"instance_hour":{"ml.g5.xlarge":1.21,"ml.g6.xlarge":1.0050000000000}}'
)


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


@pytest.mark.parametrize(
    ("function", "combination"),
    [
        (function, combination)
        for function in FUNCTIONS
        for combination in ("defaults", "container with a queue")
        if combination != "defaults" or "Condition" not in source()["Resources"][function]
    ],
)
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
    resources = resolved(WHOLE)
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
    schemes = api.properties["Body"]["components"]["securitySchemes"]
    (authorizer,) = [found for found in schemes.values() if "x-amazon-apigateway-authorizer" in found]
    wanted.add((_called(authorizer["x-amazon-apigateway-authorizer"]["authorizerUri"]), "authorizers/*"))
    assert wanted == allowed
    assert (resources["PredictFunctionAliaslive"].ref, "*/*/iam/*") in wanted
    assert (resources["ApiFunctionAliaslive"].ref, "*/*/iam/v1/jobs/*") in wanted
    assert len(wanted) > 60


def test_policies_are_within_the_limits_of_lambda_and_iam() -> None:
    """Sources: AWS Lambda Developer Guide, "Lambda quotas"; IAM User Guide, "IAM and AWS STS quotas"."""
    inputs = f"{'b' * 60}/{'p' * 20}/,{'c' * 40}/data/"
    resources = resolved({**WHOLE, **COMBINATIONS["endpoints of others"], "InputPrefixes": inputs})
    of_functions: dict[str, int] = {}
    for name, permission in of_type(resources, "AWS::Lambda::Permission").items():
        given = permission.properties
        # As Lambda keeps it, for a stack with a long name.
        statement = {
            "Sid": f"{'s' * 47}-{name}-{'x' * 12}",
            "Effect": "Allow",
            "Principal": {"Service": given["Principal"]},
            "Action": given["Action"],
            "Resource": f"arn:aws:lambda:ap-southeast-1:000000000000:function:{'f' * 64}:live",
            "Condition": {"ArnLike": {"AWS:SourceArn": given["SourceArn"]}},
        }
        function = given["FunctionName"]
        of_functions[function] = of_functions.get(function, 100) + len(json.dumps(statement)) + 1
    assert max(of_functions.values()) < 20 * 1024
    for name, role in of_type(resources, "AWS::IAM::Role").items():
        policies = role.properties.get("Policies", [])
        assert sum(len(json.dumps(policy["PolicyDocument"])) for policy in policies) < 10_240, name


def _called(uri: str) -> str:
    return uri.partition("/functions/")[2].removesuffix("/invocations")


def _source(verb: str, path: str) -> str:
    segments = ("*" if segment.startswith("{") else segment for segment in path.split("/"))
    return f"*/{'*' if verb == ANY_METHOD else verb.upper()}{'/'.join(segments)}"


def test_every_route_asks_who_calls_but_those_that_tell_nothing() -> None:
    paths = resolved()["HttpApi"].properties["Body"]["paths"]
    needed = {
        path: [*(tuple(scheme) for scheme in operation.get("security", [{"NONE": []}]))]
        for path, operations in paths.items()
        for operation in operations.values()
    }
    open_to_all = {path for path, schemes in needed.items() if schemes == [("NONE",)]}
    assert open_to_all == {"/health", "/ready", "/openapi.json", "/docs", "/docs/{asset}"}
    signed = {path for path, schemes in needed.items() if schemes == [("AWS_IAM",)]}
    assert signed == {path for path in needed if path.startswith("/iam/")}
    asked = {path for path, schemes in needed.items() if schemes == [("Credential",)]}
    assert asked == needed.keys() - open_to_all - signed


def test_signed_requests_reach_the_function_that_has_the_route() -> None:
    paths = resolved()["HttpApi"].properties["Body"]["paths"]
    functions = {
        (verb, path): _called(operation["x-amazon-apigateway-integration"]["uri"])
        for path, operations in paths.items()
        for verb, operation in operations.items()
    }
    signed = {(verb, path): function for (verb, path), function in functions.items() if path.startswith("/iam/")}
    others = {place: function for place, function in functions.items() if place not in signed}
    by_segments = sorted(signed.items(), key=lambda item: (-item[0][1].count("/"), "+" in item[0][1]))
    for (verb, path), function in others.items():
        area = path.split("/")[-1] if path.endswith("/batches") else path.split("/")[2:3]
        if area == "batches" or area in (["jobs"], ["uploads"], ["webhooks"]) or "/predict" in path:
            # The gateway takes the most specific route: an exact one before one that ends in {proxy+}.
            (_, taken) = next(item for item in by_segments if _takes(item[0], verb, f"/iam{path}"))
            assert taken == function, f"{verb} /iam{path}"


def _takes(place: tuple[str, str], verb: str, path: str) -> bool:
    pattern = "/".join(
        ".+" if segment.endswith("+}") else "[^/]+" if segment.startswith("{") else re.escape(segment)
        for segment in place[1].split("/")
    )
    return place[0] in {verb, ANY_METHOD} and re.fullmatch(pattern, path) is not None


def test_only_functions_behind_the_gateway_have_an_alias() -> None:
    resources = translated()["Resources"]
    assert {name for name in FUNCTIONS if f"{name}Aliaslive" in resources} == set(BEHIND_GATEWAY)
    assert set(FUNCTIONS) - set(BEHIND_GATEWAY) == {
        "ReleaseCheckFunction",
        "TelemetryFunction",
        "JobWorkerFunction",
        "JobSweeperFunction",
        "AsyncResultFunction",
        "BatchRunnerFunction",
        "WebhookSenderFunction",
    }


@pytest.mark.parametrize("function", BEHIND_GATEWAY)
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


@pytest.mark.parametrize("function", BEHIND_GATEWAY)
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
        "JwtIssuer": {"JwtIssuer": "https://issuer.example", "JwtAudience": "sluice"},
        "JwtTenantClaim": {"JwtTenantClaim": "org"},
        "IdempotencyHours": {"IdempotencyHours": "1"},
        "AuthorizerCacheSeconds": {"AuthorizerCacheSeconds": "9"},
        "AuditRetentionDays": {"AuditRetentionDays": "9"},
        "Prices": {"Prices": PRICES},
        "InputPrefixes": {"InputPrefixes": "theirs/in/,others/"},
        "JobTimeout": {"JobTimeout": "60"},
        "JobMemory": {"JobMemory": "4096"},
        "JobConcurrency": {"JobConcurrency": "20"},
    }
    for name, change in changes.items():
        after = resolved(change)
        changed = _version_parts(before[function]) != _version_parts(after[function])
        assert changed == (_description(before, function) != _description(after, function)), name
    # With one of the two on, the number of the other's environments is none of the version's business.
    one, two = (resolved({"PredictProvisionedConcurrency": count}) for count in "12")
    assert _description(one, function) == _description(two, function)


@pytest.mark.parametrize("function", BEHIND_GATEWAY)
def test_a_version_is_described_within_lambdas_limit_whatever_the_parameters_say(function: str) -> None:
    longest = {
        "LogLevel": "WARNING",
        "AwsEndpointUrl": "https://" + "e" * 32,
        "JwtIssuer": "https://" + "i" * 88,
        "JwtAudience": "a" * 64,
        "JwtTenantClaim": "c" * 32,
        "IdempotencyHours": "168",
        "PredictMemory": "10240",
        "PredictSnapStart": "false",
        "ContainerImage": IMAGE,
        "ContainerInstanceType": "ml.p4d.24xlarge",
        "ContainerConcurrencyTarget": "1000",
        "Prices": PRICES,
    }
    assert len(PRICES) == 128
    assert _description(resolved(longest), function)  # of 256 characters at most
    # These two may have 130 together.
    inputs = f"{'b' * 60}/{'p' * 20}/,{'c' * 40}/data/"
    assert len(inputs) == 129
    assert _description(resolved({**longest, "Prices": "", "InputPrefixes": inputs}), function)
    for name in ("AwsEndpointUrl", "JwtIssuer", "JwtAudience", "JwtTenantClaim"):
        with pytest.raises(TemplateError, match=name):
            load_stack(TEMPLATE, parameters=longest | {name: longest[name] + "x"})
    with pytest.raises(TemplateError, match="Prices"):
        load_stack(TEMPLATE, parameters=longest | {"Prices": PRICES.replace("0}", "00}")})


@pytest.mark.parametrize("function", ["PredictFunction", "ApiFunction", "AdminFunction"])
def test_prices_of_a_stack_reach_what_reckons_by_them(function: str) -> None:
    spec = load_stack(TEMPLATE, parameters={"Prices": PRICES}).functions[function]
    settings: Any = load(settings_of(spec.handler), spec.environment)
    assert (settings.prices.date, settings.prices.hourly("ml.g5.xlarge")) == ("2026-11-21", 1.21)
    with pytest.raises(SettingsError, match="SLUICE_PRICES"):
        load(settings_of(spec.handler), {**spec.environment, "SLUICE_PRICES": '{"log_gb":1}'})


def test_what_telemetry_cannot_write_waits_in_a_queue() -> None:
    resources = resolved(WHOLE)
    queue = resources["TelemetryFailures"]
    arn = f"arn:aws:sqs:us-east-1:000000000000:{queue.name}"
    telemetry = resources["TelemetryFunction"].properties
    assert telemetry["DeadLetterConfig"] == {"TargetArn": arn}
    assert str(queue.properties["MessageRetentionPeriod"]) == str(14 * 86_400)
    role = next(role for name, role in of_type(resources, "AWS::IAM::Role").items() if name == "TelemetryFunctionRole")
    sends = [found for found in statements(role) if "sqs:SendMessage" in listed(found["Action"])]
    assert [listed(found["Resource"]) for found in sends] == [[arn]]
    # Each line that says who did what reaches it, and nothing reads its own.
    filters = of_type(resources, "AWS::Logs::SubscriptionFilter").values()
    groups = {
        "AuthorizerLogGroup",
        "PredictLogGroup",
        "ApiFunctionLogGroup",
        "AdminFunctionLogGroup",
        "JobWorkerLogGroup",
        "AsyncResultLogGroup",
        "BatchRunnerLogGroup",
    }
    assert {found.properties["LogGroupName"] for found in filters} == {resources[name].ref for name in groups}
    may_call = {
        permission.properties["SourceArn"].split(":log-group:")[1].removesuffix(":*")
        for permission in of_type(resources, "AWS::Lambda::Permission").values()
        if permission.properties["Principal"] == "logs.amazonaws.com"
    }
    assert may_call == {resources[name].ref for name in groups}


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
