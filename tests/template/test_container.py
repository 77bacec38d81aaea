"""The SageMaker endpoint under its parameters."""

import msgspec

from gpu_service.settings import Settings
from shared.domain.settings import load, variable_of
from tests.template.support import COMBINATIONS, IMAGE, ROOT, of_type, resolved, source


def test_without_an_image_nothing_of_it_is_there() -> None:
    resources = resolved()
    assert not [logical_id for logical_id in resources if logical_id.startswith("Container")]
    variables = resources["PredictFunction"].properties["Environment"]["Variables"]
    assert variables["SLUICE_ENDPOINT_NAME"] == ""


def test_one_instance_moves_at_once_and_does_not_scale() -> None:
    resources = resolved(COMBINATIONS["container"])
    endpoint = resources["Container.Endpoint"].properties
    routing = endpoint["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["Type"] == "ALL_AT_ONCE"
    assert endpoint["RetainAllVariantProperties"] is False
    assert not of_type(resources, "AWS::ApplicationAutoScaling::ScalableTarget")
    config = resources["Container.EndpointConfig"].properties
    assert "DataCaptureConfig" not in config
    (variant,) = config["ProductionVariants"]
    assert (
        variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"
    )  # the instance type is ml.g5.xlarge
    assert resources["Container.Model"].properties["PrimaryContainer"]["Image"] == IMAGE


def test_an_instance_with_a_gpu_has_a_driver_for_the_images_cuda() -> None:
    cuda = {
        line for line in (ROOT / "requirements/container-cuda.txt").read_text().splitlines() if "cuda-runtime" in line
    }
    assert {line.partition("==")[2].partition(".")[0] for line in cuda} == {"13"}  # of which 580 is the first driver
    types = source()["Parameters"]["ContainerInstanceType"]["AllowedValues"]
    one_of_each = {type_.split(".")[1]: type_ for type_ in types}
    with_driver = set()
    for family, type_ in one_of_each.items():
        given = {**COMBINATIONS["container"], "ContainerInstanceType": type_}
        (variant,) = resolved(given)["Container.EndpointConfig"].properties["ProductionVariants"]
        if "InferenceAmiVersion" in variant:
            with_driver.add(family)
    assert with_driver == {family for family in one_of_each if family[0] in "gp"}


def test_a_fleet_has_a_canary_of_half_at_most_and_keeps_its_size() -> None:
    resources = resolved(COMBINATIONS["scaled container"])
    endpoint = resources["Container.Endpoint"].properties
    policy = endpoint["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"]["CanarySize"] == {"Type": "CAPACITY_PERCENT", "Value": "25"}
    waits = int(policy["TrafficRoutingConfiguration"]["WaitIntervalInSeconds"]) + int(
        policy["TerminationWaitInSeconds"]
    )
    assert waits < policy["MaximumExecutionTimeoutInSeconds"] <= 28800
    assert endpoint["RetainAllVariantProperties"] is True
    target = resources["Container.ScalableTarget"].properties
    assert (target["MinCapacity"], target["MaxCapacity"]) == ("2", "6")
    assert target["ResourceId"] == f"endpoint/{endpoint['EndpointName']}/variant/main"


def test_an_update_goes_back_on_the_endpoints_own_alarms() -> None:
    for name in ("container", "two variants, captured"):
        resources = resolved(COMBINATIONS[name])
        endpoint = resources["Container.Endpoint"].properties
        named = {alarm["AlarmName"] for alarm in endpoint["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]}
        own = {
            alarm.name
            for logical_id, alarm in of_type(resources, "AWS::CloudWatch::Alarm").items()
            if logical_id.startswith("Container.")
        }
        assert named == own
        assert 2 <= len(named) <= 10


def test_a_second_variant_takes_its_share_and_requests_are_captured() -> None:
    resources = resolved(COMBINATIONS["two variants, captured"])
    config = resources["Container.EndpointConfig"].properties
    weights = {variant["VariantName"]: variant["InitialVariantWeight"] for variant in config["ProductionVariants"]}
    assert weights == {"main": "90", "challenger": "10"}
    assert {variant["InferenceAmiVersion"] for variant in config["ProductionVariants"]} == {
        "al2-ami-sagemaker-inference-gpu-3-1"
    }
    capture = config["DataCaptureConfig"]
    assert capture["InitialSamplingPercentage"] == "10"
    assert capture["DestinationS3Uri"].endswith("/captured/")


def test_a_queue_has_the_same_model_and_no_instance_without_work() -> None:
    resources = resolved(COMBINATIONS["container with a queue"])
    endpoint = resources["Container.AsyncEndpoint"].properties
    assert endpoint["EndpointName"] == f"{resources['Container.Endpoint'].properties['EndpointName']}-async"
    config = resources["Container.AsyncEndpointConfig"]
    assert endpoint["EndpointConfigName"] == config.name
    (variant,) = config.properties["ProductionVariants"]
    (other,) = resources["Container.EndpointConfig"].properties["ProductionVariants"]
    same = ("VariantName", "ModelName", "InstanceType", "InferenceAmiVersion")
    assert {name: variant[name] for name in same} == {name: other[name] for name in same}
    asynchronous = config.properties["AsyncInferenceConfig"]
    paths = {name: asynchronous["OutputConfig"][name] for name in ("S3OutputPath", "S3FailurePath")}
    bucket = resources["DataBucket"].name
    assert paths == {"S3OutputPath": f"s3://{bucket}/async/out/", "S3FailurePath": f"s3://{bucket}/async/failed/"}
    target = resources["Container.AsyncScalableTarget"].properties
    assert (str(target["MinCapacity"]), target["MaxCapacity"]) == ("0", "3")
    assert target["ResourceId"] == f"endpoint/{endpoint['EndpointName']}/variant/main"
    wake = resources["Container.AsyncWakeAlarm"].properties
    assert wake["MetricName"] == "HasBacklogWithoutCapacity"
    without = resolved(COMBINATIONS["container"])
    assert not [logical_id for logical_id in without if logical_id.startswith("Container.Async")]


def test_every_variable_of_the_container_is_one_of_its_settings() -> None:
    resources = resolved(COMBINATIONS["two variants, captured"])
    known = {variable_of(field) for field in msgspec.structs.fields(Settings)}
    main, challenger = (
        resources[f"Container.{name}"].properties["PrimaryContainer"]["Environment"]
        for name in ("Model", "ChallengerModel")
    )
    assert main == challenger
    assert main.keys() <= known
    settings = load(Settings, main)
    assert settings.model_uri.startswith("s3://")
    assert settings.model_uri.endswith("/models/")
    assert settings.grpc_port == 0  # nothing reaches it there
