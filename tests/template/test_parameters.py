"""What a person who deploys sees: parameters, outputs, environments."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from infra.local.template import load_stack
from tests.template.support import KEPT, NESTED, ROOT, SECRETS, TEMPLATE, references, source

EVERY = pytest.mark.parametrize("path", [TEMPLATE, *NESTED], ids=lambda path: path.name)


@EVERY
def test_every_parameter_is_described_and_belongs_to_one_group(path: Path) -> None:
    template = source(path)
    interface = template["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(template["Parameters"])
    assert all(group["Label"]["default"] for group in interface["ParameterGroups"])
    for name, parameter in template["Parameters"].items():
        assert parameter["Description"].endswith("."), name
    for name, output in template.get("Outputs", {}).items():
        assert output["Description"].endswith("."), name


@EVERY
def test_every_parameter_is_used(path: Path) -> None:
    template = source(path)
    used = set(references({key: value for key, value in template.items() if key != "Parameters"}))
    assert set(template["Parameters"]) <= used


def test_every_parameter_of_the_stack_has_a_label_and_a_default() -> None:
    template = source()
    labels = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterLabels"]
    assert labels.keys() == template["Parameters"].keys()
    assert len({label["default"] for label in labels.values()}) == len(labels)
    assert all("Default" in parameter for parameter in template["Parameters"].values())


def test_nested_stacks_get_every_parameter() -> None:
    stacks = [item for item in source()["Resources"].values() if item["Type"] == "AWS::CloudFormation::Stack"]
    assert sorted(ROOT / stack["Properties"]["TemplateURL"] for stack in stacks) == NESTED
    for stack in stacks:
        nested = source(ROOT / stack["Properties"]["TemplateURL"])
        assert stack["Properties"]["Parameters"].keys() == nested["Parameters"].keys()


def test_outputs_tell_where_everything_is() -> None:
    image = {"ContainerImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/sluice:1"}
    domain = {"DomainName": "models.example.com", "DomainHostedZoneId": "Z1"}
    always = {"ApiUrl", "PredictFunctionAlias", "DashboardUrl", "AlarmTopic"}
    # Whatever outlives the stack: who is rid of the stack must know what is left.
    always |= {f"{name}Name" for name in KEPT} | {f"{name}Arn" for name in SECRETS}
    # What the command line works with.
    always |= {"JobsTableName", "JobsQueueUrl", "JobsDeadLettersUrl", "BatchQueueUrl", "BatchDeadLettersUrl"}
    always |= {"WebhooksDeadLettersArn"}
    # What is done by hand: looking at what waits, and sending again what telemetry gave up.
    always |= {"WebhooksQueueUrl", "WebhooksDeadLettersUrl", "TelemetryFailuresUrl", "TelemetryFunctionName"}
    assert load_stack(TEMPLATE).outputs.keys() == always
    outputs = load_stack(TEMPLATE, parameters=image | domain).outputs
    assert outputs.keys() == always | {"EndpointName", "DomainUrl", "DomainTarget"}
    assert outputs["DomainUrl"] == "https://models.example.com"
    queue = load_stack(TEMPLATE, parameters=image | {"ContainerAsyncMaxInstances": "1"}).outputs
    assert queue.keys() == always | {"EndpointName", "AsyncEndpointName", "AsyncEndpointArn"}
    assert queue["AsyncEndpointName"] == f"{queue['EndpointName']}-async"


@pytest.mark.parametrize("environment", ["default", "dev", "prod"])
def test_the_environments_of_samconfig_fit_the_template(environment: str) -> None:
    config: dict[str, Any] = tomllib.loads((ROOT / "samconfig.toml").read_text())
    deploy = config[environment]["deploy"]["parameters"]
    given = dict(override.split("=", 1) for override in deploy["parameter_overrides"])
    assert load_stack(TEMPLATE, stack_name=deploy["stack_name"], parameters=given).functions
    assert set(deploy["capabilities"]) == {"CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"}


def test_what_is_dear_or_dangerous_is_off_unless_asked_for() -> None:
    defaults = {name: str(facts["Default"]) for name, facts in source()["Parameters"].items()}
    assert defaults["ContainerImage"] == ""
    assert defaults["ContainerCapturePercentage"] == defaults["PredictProvisionedConcurrency"] == "0"
    assert defaults["ContainerAsyncMaxInstances"] == "0"
    assert defaults["DeletionProtection"] == "true"
    assert defaults["AwsEndpointUrl"] == ""
