"""Whatever is switched on or off, everything that is left resolves."""

import json
from graphlib import TopologicalSorter

import pytest

from functions.batch_runner.lines import ROUTE as BATCH
from infra.local.template import TemplateError, load_stack
from shared.bootstrap.job_lines import ROUTE as JOB
from tests.template.support import COMBINATIONS, IMAGE, TEMPLATE, of_type, references, resolved, translated


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_property_resolves_and_the_local_runtime_takes_the_stack(combination: str) -> None:
    parameters = COMBINATIONS[combination]
    resources = resolved(parameters)
    assert {"PredictFunction", "KeysTable", "Monitoring.Dashboard"} <= resources.keys()
    assert (
        load_stack(TEMPLATE, parameters=parameters).functions.keys()
        == of_type(resources, "AWS::Lambda::Function").keys()
    )


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_nothing_depends_on_itself(combination: str) -> None:
    """Aliases wait for deployment groups, these for alarms: what CloudFormation orders by, update policies included."""
    resources = translated(COMBINATIONS[combination])["Resources"]
    graph = {
        logical_id: {name for name in references({"body": resource}) if name in resources}
        | set([resource["DependsOn"]] if isinstance(resource.get("DependsOn"), str) else resource.get("DependsOn", []))
        for logical_id, resource in resources.items()
    }
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("FunctionAlarms.".rstrip(".")) < order.index("PredictFunctionAliaslive") < order.index("HttpApi")
    assert order.index("ReleaseCheckFunction") < order.index("PredictFunctionAliaslive")


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_the_dashboard_is_a_document(combination: str) -> None:
    parameters = COMBINATIONS[combination]
    dashboard = json.loads(resolved(parameters)["Monitoring.Dashboard"].properties["DashboardBody"])
    widgets = dashboard["widgets"]
    titles = [widget["properties"]["title"] for widget in widgets]
    assert len(titles) == len(set(titles)) == (27 if "ContainerImage" in parameters else 23)
    places = [(widget["x"], widget["y"]) for widget in widgets]
    assert len(set(places)) == len(places)
    assert all(widget["x"] + widget["width"] <= 24 for widget in widgets)
    shown = json.dumps(dashboard)
    assert "${" not in shown
    assert ("sluice-container" in shown) == ("ContainerImage" in parameters)
    assert ("AsyncResultFunction" in shown) == ("ContainerAsyncMaxInstances" in parameters)


def test_the_dashboard_shows_queues_and_what_works_them_off() -> None:
    resources = resolved(COMBINATIONS["container with a queue"])
    dashboard = json.loads(resources["Monitoring.Dashboard"].properties["DashboardBody"])
    metrics = [metric for widget in dashboard["widgets"] for metric in widget["properties"]["metrics"]]
    shown = {(metric[1], metric[3]) for metric in metrics if isinstance(metric[0], str)}
    for logical_id, queue in of_type(resources, "AWS::SQS::Queue").items():
        assert ("ApproximateNumberOfMessagesVisible", queue.name) in shown, logical_id
        # How long a message has waited says nothing where nobody takes any.
        assert (("ApproximateAgeOfOldestMessage", queue.name) in shown) == ("RedrivePolicy" in queue.properties)
    functions = of_type(resources, "AWS::Lambda::Function")
    # CodeDeploy calls this one, once a deployment, and says what came of it.
    for logical_id in functions.keys() - {"ReleaseCheckFunction"}:
        for metric in ("Invocations", "Errors", "ConcurrentExecutions"):
            assert (metric, functions[logical_id].ref) in shown, logical_id
    searched = [metric[0]["expression"] for metric in metrics if isinstance(metric[0], dict)]
    for route in (JOB, BATCH):
        assert any(f'route="{route}" MetricName="ms"' in expression for expression in searched)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"DomainName": "models.example.com"}, "DomainName needs DomainCertificateArn, or DomainHostedZoneId"),
        ({"ContainerChallengerImage": IMAGE}, "second variant beside ContainerImage, which is empty"),
        (
            {"AlarmEmail": "a@b.example", "AlarmTopicArn": "arn:aws:sns:us-east-1:000000000000:ops"},
            "AlarmEmail is subscribed to the stack's own topic",
        ),
        ({"DomainName": "Models.example.com"}, "DomainName must match"),
        ({"ContainerCanaryPercentage": "51"}, "ContainerCanaryPercentage must be at most 50"),
        ({"ContainerImage": IMAGE, "ContainerInstanceType": "ml.t2.medium"}, "ContainerInstanceType must be one of"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        load_stack(TEMPLATE, parameters=parameters)


def test_alarms_have_somebody_to_tell() -> None:
    for combination in COMBINATIONS.values():
        resources = resolved(combination)
        topic = combination.get("AlarmTopicArn") or resources["AlarmTopic"].ref
        alarms = of_type(resources, "AWS::CloudWatch::Alarm")
        assert len(alarms) >= 7
        for logical_id, alarm in alarms.items():
            if logical_id == "Container.AsyncWakeAlarm":  # no trouble: it starts an instance
                assert alarm.properties["AlarmActions"] == [resources["Container.AsyncWakePolicy"].ref]
                continue
            assert alarm.properties["AlarmActions"] == [topic], logical_id
            assert alarm.properties["AlarmDescription"]
            assert alarm.properties["TreatMissingData"] in {"notBreaching", "ignore"}
        assert ("AlarmTopic" in resources) == ("AlarmTopicArn" not in combination)
        assert ("AlarmEmailSubscription" in resources) == ("AlarmEmail" in combination)


def test_the_domain_has_its_certificate_and_its_record_or_the_one_it_was_given() -> None:
    made = resolved(COMBINATIONS["domain"])
    (configuration,) = made["Domain.Domain"].properties["DomainNameConfigurations"]
    assert configuration["CertificateArn"] == made["Domain.Certificate"].ref
    assert made["Domain.Record"].properties["Name"] == "models.example.com"
    assert made["Domain.Mapping"].properties["Stage"] == "$default"
    assert made["Domain.Mapping"].properties["ApiId"] == made["HttpApi"].ref
    given = resolved(COMBINATIONS["domain with certificate"])
    assert "Domain.Certificate" not in given
    assert "Domain.Record" not in given
    (dimension,) = given["Domain.CertificateAlarm"].properties["Dimensions"]
    assert dimension["Value"] == COMBINATIONS["domain with certificate"]["DomainCertificateArn"]
    assert not [logical_id for logical_id in resolved() if logical_id.startswith("Domain")]
