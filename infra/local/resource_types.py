"""The resource types that the local runtime knows, in three tables: run, created, and without effect here.

Every type states what `Ref` and `Fn::GetAtt` give for it (source: "Return values" of each type in the AWS
CloudFormation resource reference). A type in none of the tables stops the start: it would be ignored otherwise, and
the stack would behave differently here and in AWS.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from infra.local.intrinsics import TemplateError
from infra.local.stack import ACCOUNT_ID, REGION, STREAM_LABEL


class UnknownResourceType(TemplateError):
    """Resources, by logical id and type, or properties of theirs that the local runtime does not know."""

    def __init__(self, unknown: Mapping[str, str]) -> None:
        listed = "; ".join(f"{logical_id} is of type {type_}" for logical_id, type_ in unknown.items())
        super().__init__(
            f"The local runtime does not know these resources of the template: {listed}. Teach it the type (the tables"
            " of infra/local/resource_types.py), or put the resource under a condition that does not hold locally."
        )
        self.unknown = dict(unknown)


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """How one type is named and referred to.

    `name_property` is the property that may set the physical name. The other fields are patterns over `name`,
    `lower` (the name in lower case), `id` (ten characters, as API Gateway's ids), `region`, `account` and `parent`
    (the value of `parent_property`).
    """

    name_property: str | None
    ref: str = "{name}"
    attributes: Mapping[str, str] = field(default_factory=dict)
    default_name: str = "{stack}-{logical_id}"
    parent_property: str | None = None


_REGIONAL = f"{REGION}:{ACCOUNT_ID}"
_FUNCTION_ARN = f"arn:aws:lambda:{_REGIONAL}:function"
# A UUID.
_MAPPING_ID = "00000000-0000-0000-0000-00{id}"
_MAPPING_ARN = f"arn:aws:lambda:{_REGIONAL}:event-source-mapping:{_MAPPING_ID}"
_EXECUTE_API = f"execute-api.{REGION}.amazonaws.com"

RUN: Final[Mapping[str, TypeFacts]] = {
    "AWS::Lambda::Function": TypeFacts("FunctionName", attributes={"Arn": _FUNCTION_ARN + ":{name}"}),
    "AWS::ApiGatewayV2::Api": TypeFacts(
        "Name", ref="{id}", attributes={"ApiId": "{id}", "ApiEndpoint": "https://{id}." + _EXECUTE_API}
    ),
    "AWS::ApiGatewayV2::Stage": TypeFacts("StageName"),
    "AWS::Lambda::EventInvokeConfig": TypeFacts(None),
    "AWS::Lambda::EventSourceMapping": TypeFacts(
        None, ref=_MAPPING_ID, attributes={"EventSourceMappingArn": _MAPPING_ARN, "Id": _MAPPING_ID}
    ),
    "AWS::Logs::SubscriptionFilter": TypeFacts("FilterName"),
    "AWS::Events::Rule": TypeFacts("Name", attributes={"Arn": f"arn:aws:events:{_REGIONAL}:rule/" + "{name}"}),
    "AWS::Scheduler::Schedule": TypeFacts(
        "Name", attributes={"Arn": f"arn:aws:scheduler:{_REGIONAL}:schedule/default/" + "{name}"}
    ),
    # A nested stack: its resources are merged into the whole; its outputs are its attributes.
    "AWS::CloudFormation::Stack": TypeFacts(
        None, ref=f"arn:aws:cloudformation:{_REGIONAL}:stack/" + "{name}/00000000-0000-0000-0000-000000000000"
    ),
}

_TABLE_ARN = f"arn:aws:dynamodb:{_REGIONAL}:table/" + "{name}"
_QUEUE_URL = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT_ID}/" + "{name}"
_TOPIC_ARN = f"arn:aws:sns:{_REGIONAL}:" + "{name}"
# SNS ends it in a UUID.
_SUBSCRIPTION_ARN = "{parent}:00000000-0000-0000-0000-00{id}"
_SECRET_ARN = f"arn:aws:secretsmanager:{_REGIONAL}:secret:" + "{name}-local0"
_SAGEMAKER_ARN = f"arn:aws:sagemaker:{_REGIONAL}:"

CREATED: Final[Mapping[str, TypeFacts]] = {
    "AWS::DynamoDB::Table": TypeFacts(
        "TableName", attributes={"Arn": _TABLE_ARN, "StreamArn": f"{_TABLE_ARN}/stream/{STREAM_LABEL}"}
    ),
    "AWS::S3::Bucket": TypeFacts(
        "BucketName",
        default_name="{lower_stack}-{lower_logical_id}-" + ACCOUNT_ID,
        attributes={
            "Arn": "arn:aws:s3:::{name}",
            "DomainName": "{name}.s3.amazonaws.com",
            "RegionalDomainName": "{name}.s3." + REGION + ".amazonaws.com",
        },
    ),
    "AWS::SQS::Queue": TypeFacts(
        "QueueName",
        ref=_QUEUE_URL,
        attributes={"Arn": f"arn:aws:sqs:{_REGIONAL}:" + "{name}", "QueueName": "{name}", "QueueUrl": _QUEUE_URL},
    ),
    "AWS::SNS::Topic": TypeFacts(
        "TopicName", ref=_TOPIC_ARN, attributes={"TopicArn": _TOPIC_ARN, "TopicName": "{name}"}
    ),
    "AWS::SNS::Subscription": TypeFacts(
        None, ref=_SUBSCRIPTION_ARN, attributes={"Arn": _SUBSCRIPTION_ARN}, parent_property="TopicArn"
    ),
    # Secrets Manager adds six characters of its own to the name; here they are always the same.
    "AWS::SecretsManager::Secret": TypeFacts("Name", ref=_SECRET_ARN, attributes={"Id": _SECRET_ARN}),
    "AWS::SageMaker::Model": TypeFacts(
        "ModelName", ref=_SAGEMAKER_ARN + "model/{lower}", attributes={"ModelName": "{name}"}
    ),
    "AWS::SageMaker::EndpointConfig": TypeFacts(
        "EndpointConfigName",
        ref=_SAGEMAKER_ARN + "endpoint-config/{lower}",
        attributes={"EndpointConfigName": "{name}"},
    ),
    "AWS::SageMaker::Endpoint": TypeFacts(
        "EndpointName", ref=_SAGEMAKER_ARN + "endpoint/{lower}", attributes={"EndpointName": "{name}"}
    ),
}

_ALARM_ARN = f"arn:aws:cloudwatch:{_REGIONAL}:alarm:" + "{name}"

NO_EFFECT: Final[Mapping[str, TypeFacts]] = {
    # Permissions: everything on 127.0.0.1 belongs to the one user who started it.
    "AWS::IAM::Role": TypeFacts("RoleName", attributes={"Arn": f"arn:aws:iam::{ACCOUNT_ID}:role/" + "{name}"}),
    "AWS::IAM::Policy": TypeFacts("PolicyName"),
    "AWS::IAM::ManagedPolicy": TypeFacts("ManagedPolicyName", ref=f"arn:aws:iam::{ACCOUNT_ID}:policy/" + "{name}"),
    "AWS::Lambda::Permission": TypeFacts(None),
    "AWS::S3::BucketPolicy": TypeFacts(None),
    "AWS::SQS::QueuePolicy": TypeFacts(None),
    "AWS::SNS::TopicPolicy": TypeFacts(None),
    # The environment that runs the functions has their libraries; layers of other stacks are refused.
    "AWS::Lambda::LayerVersion": TypeFacts("LayerName", ref=f"arn:aws:lambda:{_REGIONAL}:layer:" + "{name}:1"),
    # There is one copy of the code here, so every qualifier means the same function.
    "AWS::Lambda::Version": TypeFacts(
        None,
        default_name="1",
        ref=_FUNCTION_ARN + ":{parent}:{name}",
        attributes={"Version": "{name}", "FunctionArn": _FUNCTION_ARN + ":{parent}:{name}"},
        parent_property="FunctionName",
    ),
    "AWS::Lambda::Alias": TypeFacts(
        "Name",
        ref=_FUNCTION_ARN + ":{parent}:{name}",
        attributes={"AliasArn": _FUNCTION_ARN + ":{parent}:{name}"},
        parent_property="FunctionName",
    ),
    # Logs are files under .sluice; nothing evaluates metrics here.
    "AWS::Logs::LogGroup": TypeFacts(
        "LogGroupName", attributes={"Arn": f"arn:aws:logs:{_REGIONAL}:log-group:" + "{name}:*"}
    ),
    "AWS::Logs::MetricFilter": TypeFacts("FilterName"),
    "AWS::CloudWatch::Alarm": TypeFacts("AlarmName", attributes={"Arn": _ALARM_ARN}),
    "AWS::CloudWatch::CompositeAlarm": TypeFacts("AlarmName", attributes={"Arn": _ALARM_ARN}),
    "AWS::CloudWatch::Dashboard": TypeFacts("DashboardName"),
    # There is one container here: nothing to scale.
    "AWS::ApplicationAutoScaling::ScalableTarget": TypeFacts(None),
    "AWS::ApplicationAutoScaling::ScalingPolicy": TypeFacts("PolicyName"),
    # The local gateway listens on 127.0.0.1 only.
    "AWS::CertificateManager::Certificate": TypeFacts(
        None, ref=f"arn:aws:acm:{_REGIONAL}:certificate/00000000-0000-0000-0000-000000000000"
    ),
    "AWS::ApiGatewayV2::DomainName": TypeFacts(
        "DomainName",
        attributes={"RegionalDomainName": "d-{id}." + _EXECUTE_API, "RegionalHostedZoneId": "Z1UJRXOUMOOFQ8"},
    ),
    "AWS::ApiGatewayV2::ApiMapping": TypeFacts(None),
    "AWS::Route53::RecordSet": TypeFacts("Name"),
    # Nothing is deployed in steps here.
    "AWS::CodeDeploy::Application": TypeFacts("ApplicationName"),
    "AWS::CodeDeploy::DeploymentGroup": TypeFacts("DeploymentGroupName"),
}

KNOWN: Final[Mapping[str, TypeFacts]] = {**RUN, **CREATED, **NO_EFFECT}

# Properties that make a known type do something which the local runtime would leave undone.
UNSUPPORTED_PROPERTIES: Final[Mapping[str, frozenset[str]]] = {
    "AWS::ApiGatewayV2::Api": frozenset({"BodyS3Location", "RouteKey", "Target"}),
    "AWS::Lambda::Function": frozenset({"FileSystemConfigs", "ImageConfig"}),
    "AWS::Lambda::EventSourceMapping": frozenset(
        {
            "AmazonManagedKafkaEventSourceConfig",
            "DocumentDBEventSourceConfig",
            "KmsKeyArn",
            "ProvisionedPollerConfig",
            "Queues",
            "SelfManagedEventSource",
            "SelfManagedKafkaEventSourceConfig",
            "SourceAccessConfigurations",
            "StartingPositionTimestamp",
            "Topics",
            "TumblingWindowInSeconds",
        }
    ),
    "AWS::Logs::SubscriptionFilter": frozenset(
        {"ApplyOnTransformedLogs", "EmitSystemFields", "FieldSelectionCriteria"}
    ),
    "AWS::S3::Bucket": frozenset({"ReplicationConfiguration", "WebsiteConfiguration"}),
    "AWS::SNS::Topic": frozenset({"Subscription"}),
    "AWS::SageMaker::Model": frozenset({"Containers", "InferenceExecutionConfig"}),
}
