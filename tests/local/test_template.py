import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from infra.local import sam_transform
from infra.local.template import TemplateError, UnknownResourceType, load_stack
from tests.conftest import Translate

ROOT = Path(__file__).parents[2]
ACCOUNT = "000000000000"


def write(folder: Path, text: str, name: str = "template.yaml") -> Path:
    path = folder / name
    path.write_text(dedent(text))
    return path


def outputs(folder: Path, text: str, **parameters: str) -> dict[str, str]:
    """The outputs of a plain CloudFormation template with one bucket and the given text below it."""
    head = "Resources: {Bucket: {Type: 'AWS::S3::Bucket'}}\n"
    return dict(load_stack(write(folder, head + dedent(text)), stack_name="demo", parameters=parameters).outputs)


# ------------------------------------------------------------------ the project's own template
def test_the_projects_template_gives_functions_with_text_environments() -> None:
    stack = load_stack(ROOT / "template.yaml")
    assert {"AuthorizerFunction", "PredictFunction", "ApiFunction"} <= set(stack.functions)
    predict = stack.functions["PredictFunction"]
    assert predict.name == "sluice-PredictFunction"
    assert predict.arn == f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:sluice-PredictFunction"
    assert predict.handler == "functions.predict.handler.handler"
    assert (predict.code_dir, predict.memory_mb, predict.timeout_s) == (ROOT, 1769, 29.0)
    assert predict.environment["SLUICE_MODELS_TABLE"] == "sluice-ModelsTable"
    assert predict.environment["SLUICE_MODEL_BUCKET"] == f"sluice-modelbucket-{ACCOUNT}"
    assert predict.environment["SLUICE_ENDPOINT_NAME"] == ""
    assert all(isinstance(value, str) for spec in stack.functions.values() for value in spec.environment.values())


def test_the_projects_api_has_its_routes_and_its_authorizer() -> None:
    (api,) = load_stack(ROOT / "template.yaml", parameters={"AuthorizerCacheSeconds": "7"}).http_apis.values()
    assert api.stage == "$default"
    assert len(api.api_id) == 10
    routes = {route.key: route for route in api.routes}
    assert len(routes) == len(api.routes)
    predict = routes["POST /v1/models/{model}/predict"]
    assert (predict.function, predict.authorizer, predict.timeout_s) == ("PredictFunction", "Credential", 30.0)
    assert routes["GET /openapi.json"].authorizer is None
    authorizer = api.authorizers["Credential"]
    assert authorizer.function == "AuthorizerFunction"
    assert authorizer.identity_sources == ("$request.header.Authorization",)
    assert authorizer.ttl_s == 7


def test_a_condition_brings_the_endpoint_and_its_containers_environment() -> None:
    without = load_stack(ROOT / "template.yaml")
    assert without.of_type("AWS::SageMaker::Endpoint") == ()
    stack = load_stack(ROOT / "template.yaml", parameters={"ContainerImage": "local"})
    (endpoint,) = stack.of_type("AWS::SageMaker::Endpoint")
    assert stack.functions["PredictFunction"].environment["SLUICE_ENDPOINT_NAME"] == endpoint.name
    (model,) = stack.of_type("AWS::SageMaker::Model")
    container = model.properties["PrimaryContainer"]
    assert container["Image"] == "local"
    assert container["Environment"]["SLUICE_MODEL_URI"] == f"s3://sluice-modelbucket-{ACCOUNT}/models/"


def test_every_load_gives_the_same_stack_and_the_cache_spares_the_translator(
    tmp_path: Path, kept_translations: Translate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam_transform, "_translate", kept_translations)
    first = load_stack(ROOT / "template.yaml", cache_dir=tmp_path)
    assert first == load_stack(ROOT / "template.yaml", cache_dir=tmp_path) == load_stack(ROOT / "template.yaml")
    code = (
        "import sys; from pathlib import Path; from infra.local.template import load_stack;"
        f"load_stack(Path({str(ROOT / 'template.yaml')!r}), cache_dir=Path({str(tmp_path)!r}));"
        "sys.exit('samtranslator' in sys.modules or 'boto3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_the_cache_tells_apart_what_differs_and_survives_a_broken_entry(tmp_path: Path) -> None:
    path = ROOT / "template.yaml"
    load_stack(path, cache_dir=tmp_path)
    entries = set(tmp_path.glob("*.json"))  # one for each template, nested ones included
    for entry in entries:
        entry.write_text('{"Resources": ')
    stack = load_stack(path, cache_dir=tmp_path)
    assert "PredictFunction" in stack.functions
    assert set(tmp_path.glob("*.json")) == entries
    assert load_stack(path, parameters={"LogLevel": "DEBUG"}, cache_dir=tmp_path) != stack
    assert len(set(tmp_path.glob("*.json")) - entries) == 1


# ------------------------------------------------------------------ parameters
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"LogLevel": "LOUD"}, "Parameter LogLevel must be one of DEBUG, INFO, WARNING, ERROR, not 'LOUD'"),
        ({"AuthorizerCacheSeconds": "3601"}, "Parameter AuthorizerCacheSeconds must be at most 3600, not 3601"),
        ({"AuthorizerCacheSeconds": "-1"}, "Parameter AuthorizerCacheSeconds must be at least 0, not -1"),
        ({"AuthorizerCacheSeconds": "soon"}, "Parameter AuthorizerCacheSeconds must be a number, not 'soon'"),
        ({"AuthorizerCacheSeconds": "nan"}, "Parameter AuthorizerCacheSeconds must be"),
        ({"LogLvl": "INFO"}, "no parameter LogLvl"),
    ],
)
def test_a_bad_parameter_is_named(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        load_stack(ROOT / "template.yaml", parameters=parameters)


@pytest.mark.parametrize(
    ("declaration", "given", "message"),
    [
        ("{Type: String}", {}, "Parameter P has no default"),
        ("{Type: String, AllowedPattern: '[a-z]+'}", {"P": "A1"}, "Parameter P must match"),
        ("{Type: String, MinLength: 3}", {"P": "ab"}, "length of parameter P must be at least 3"),
        ("{Type: 'AWS::SSM::Parameter::Value<String>', Default: /a}", {}, "Parameter P reads the Systems Manager"),
        ("{Type: 'List<Number>'}", {"P": "1, two"}, "Parameter P must be a number, not 'two'"),
    ],
)
def test_parameter_constraints(tmp_path: Path, declaration: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        outputs(tmp_path, f"Parameters: {{P: {declaration}}}", **given)


def test_rules_between_parameters_hold_here_too(tmp_path: Path) -> None:
    text = """\
        Parameters: {A: {Type: String, Default: ''}, B: {Type: String, Default: ''}}
        Rules:
          Together:
            RuleCondition: !Not [!Equals [!Ref A, '']]
            Assertions: [{Assert: !Not [!Equals [!Ref B, '']], AssertDescription: A needs B}]
        Outputs: {Out: {Value: !Sub '${A}${B}'}}
    """
    assert outputs(tmp_path, text, B="b") == {"Out": "b"}
    assert outputs(tmp_path, text, A="a", B="b") == {"Out": "ab"}
    with pytest.raises(TemplateError, match=r"Rules\.Together: A needs B"):
        outputs(tmp_path, text, A="a")


# ------------------------------------------------------------------ functions
@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("!Ref Bucket", f"demo-bucket-{ACCOUNT}"),
        ("!Ref AWS::Region", "us-east-1"),
        ("!Ref AWS::AccountId", ACCOUNT),
        ("!Ref AWS::Partition", "aws"),
        ("!Ref AWS::StackName", "demo"),
        ("!Ref AWS::URLSuffix", "amazonaws.com"),
        ("!GetAtt Bucket.Arn", f"arn:aws:s3:::demo-bucket-{ACCOUNT}"),
        ("!Sub '${Bucket.Arn}/x-${Count}-${!Literal}'", f"arn:aws:s3:::demo-bucket-{ACCOUNT}/x-3-${{Literal}}"),
        ("!Sub ['${a}/${Count}', {a: !Ref Names}]", TemplateError),
        ("!Sub ['${a}/${Count}', {a: !Select [1, !Ref Names]}]", "b/3"),
        ("!If [IsThree, yes-it-is, no]", "yes-it-is"),
        ("!If [Not3, 1, 2]", "2"),
        ("!If [Both, both, not]", "both"),
        ("!If [Either, either, neither]", "either"),
        ("!Join ['-', [a, !Ref Count, !If [Not3, x, !Ref AWS::NoValue]]]", "a-3"),
        ("!Join ['', !Ref Names]", "abc"),
        ("!Select [2, !Split ['/', x/y/z]]", "z"),
        ("!FindInMap [Sizes, !Ref AWS::Region, big]", "9"),
        ("!Base64 hi", "aGk="),
        ("true", "true"),
    ],
)
def test_intrinsic_functions(tmp_path: Path, expression: str, result: Any) -> None:
    text = f"""\
        Parameters:
          Count: {{Type: Number, Default: 3}}
          Names: {{Type: CommaDelimitedList, Default: 'a, b,c'}}
        Mappings: {{Sizes: {{us-east-1: {{big: 9}}}}}}
        Conditions:
          IsThree: !Equals [!Ref Count, 3]
          Not3: !Not [{{Condition: IsThree}}]
          Both: !And [{{Condition: IsThree}}, !Equals [a, a]]
          Either: !Or [{{Condition: Not3}}, {{Condition: IsThree}}]
        Outputs: {{Out: {{Value: {expression}}}}}
    """
    if result is TemplateError:
        with pytest.raises(TemplateError, match="text is needed"):
            outputs(tmp_path, text)
    else:
        assert outputs(tmp_path, text) == {"Out": result}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("{'Fn::ImportValue': other}", "Outputs.Out.Value: the local runtime does not know .* Fn::ImportValue"),
        ("{'Fn::Cidr': [a, 1, 2]}", "Fn::Cidr"),
        ("!GetAtt Bucket.WebsiteURL", "attribute WebsiteURL of Bucket .AWS::S3::Bucket."),
        ("!Ref Nothing", "Outputs.Out.Value: the template has no parameter or resource Nothing"),
        ("!Sub '${Nothing.Arn}'", "no parameter or resource Nothing"),
        ("!FindInMap [Sizes, a, b]", "no mapping Sizes"),
        ("!If [Unknown, a, b]", "no condition Unknown"),
        ("!Select [3, [a]]", "item 3 of 1"),
        ("!Join [a]", "Fn::Join takes a list of 2 items"),
        ("'{{resolve:ssm:/a}}'", "dynamic references"),
        ("!Ref Circle", "condition Circle|circular"),
    ],
)
def test_what_cannot_be_evaluated_is_named_with_its_place(tmp_path: Path, expression: str, message: str) -> None:
    text = f"""\
        Conditions: {{Circle: {{'Fn::Not': [{{Condition: Circle}}]}}}}
        Outputs: {{Out: {{Value: {expression}}}}}
    """
    if expression == "!Ref Circle":
        text = text.replace("Value: !Ref Circle", "Value: !If [Circle, a, b]")
    with pytest.raises(TemplateError, match=message):
        outputs(tmp_path, text)


def test_a_reference_to_a_resource_that_its_condition_leaves_out_is_an_error(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
        Conditions: {Never: !Equals [a, b]}
        Resources:
          Ghost: {Type: AWS::S3::Bucket, Condition: Never}
          Queue: {Type: AWS::SQS::Queue, Properties: {QueueName: !Ref Ghost}}
        """,
    )
    with pytest.raises(TemplateError, match="Ghost is referred to, but its condition Never is false"):
        load_stack(path)


def test_queues_and_topics_are_referred_to_as_in_aws(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
        Resources:
          Dead: {Type: AWS::SQS::Queue, Properties: {FifoQueue: true}}
          Named: {Type: AWS::SNS::Topic, Properties: {TopicName: news}}
        Outputs:
          Url: {Value: !Ref Dead}
          Arn: {Value: !GetAtt Dead.Arn}
          Topic: {Value: !Ref Named}
        """,
    )
    assert load_stack(path).outputs == {
        "Url": f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/sluice-Dead.fifo",
        "Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:sluice-Dead.fifo",
        "Topic": f"arn:aws:sns:us-east-1:{ACCOUNT}:news",
    }


# ------------------------------------------------------------------ what is refused
def test_every_unknown_resource_type_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
        Resources:
          Orders: {Type: AWS::SQS::Queue}
          Pump:
            Type: AWS::Pipes::Pipe
            Properties: {Source: !GetAtt Orders.Arn, Target: f}
          Bus: {Type: AWS::Events::EventBus}
        """,
    )
    with pytest.raises(UnknownResourceType) as raised:
        load_stack(path)
    assert raised.value.unknown == {"Pump": "AWS::Pipes::Pipe", "Bus": "AWS::Events::EventBus"}
    assert "Pump is of type AWS::Pipes::Pipe" in str(raised.value)
    assert "infra/local/resource_types.py" in str(raised.value)


SAM_FUNCTION = """\
    Transform: AWS::Serverless-2016-10-31
    Resources:
      Work:
        Type: AWS::Serverless::Function
        Properties:
          Handler: work.handler
          Runtime: python3.13
          CodeUri: src
"""


@pytest.mark.parametrize(
    ("addition", "named"),
    [
        ("Events: {E: {Type: IoTRule, Properties: {Sql: SELECT 1}}}", "WorkE.* AWS::IoT::TopicRule"),
        ("Events: {E: {Type: Api, Properties: {Path: /, Method: get}}}", "AWS::ApiGateway::RestApi"),
        ("Layers: ['arn:aws:lambda:us-east-1:1:layer:l:1']", "Work .*AWS::Lambda::Function with the layer arn"),
        ("FunctionUrlConfig: {AuthType: NONE}", "AWS::Lambda::Url"),
    ],
)
def test_events_that_the_local_runtime_does_not_run_are_named(tmp_path: Path, addition: str, named: str) -> None:
    (tmp_path / "src").mkdir()
    path = write(tmp_path, dedent(SAM_FUNCTION) + f"      {addition}\n")
    with pytest.raises(UnknownResourceType, match=named):
        load_stack(path)


def test_layers_of_the_stack_itself_are_taken(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    layer = "  Libraries: {Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: build/layers/libraries}}\n"
    path = write(tmp_path, dedent(SAM_FUNCTION) + "      Layers: [!Ref Libraries]\n" + layer)
    assert load_stack(path).functions.keys() == {"Work"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Resources: [", "not valid YAML"),
        ("Description: nothing", "has no Resources"),
        ("Transform: AWS::LanguageExtensions\nResources: {}", "does not know the transform AWS::LanguageExtensions"),
        (
            "Transform: AWS::Serverless-2016-10-31\nResources: {F: {Type: AWS::Serverless::Function, Properties: {}}}",
            "F",
        ),
    ],
)
def test_a_template_that_cannot_be_read_or_translated(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        load_stack(write(tmp_path, text))
    with pytest.raises(TemplateError, match="cannot be read"):
        load_stack(tmp_path / "nowhere.yaml")


def test_a_function_needs_a_folder_that_is_there_and_python(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"Resources.Work.Properties.CodeUri: .*src is not a folder"):
        load_stack(write(tmp_path, SAM_FUNCTION))
    (tmp_path / "src").mkdir()
    assert load_stack(write(tmp_path, SAM_FUNCTION)).functions["Work"].code_dir == tmp_path / "src"
    with pytest.raises(TemplateError, match=r"Resources.Work.Properties.Runtime: .* not nodejs22.x"):
        load_stack(write(tmp_path, SAM_FUNCTION.replace("python3.13", "nodejs22.x")))


# ------------------------------------------------------------------ routes
def test_integration_timeouts_any_methods_and_aliases(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    text = dedent(SAM_FUNCTION) + "".join(
        f"      {line}\n"
        for line in (
            "AutoPublishAlias: live",
            "Environment: {Variables: {COUNT: 3, ENABLED: true}}",
            "Events:",
            "  All: {Type: HttpApi, Properties: {Path: '/x/{proxy+}', Method: any, TimeoutInMillis: 1500}}",
            "  Rest: {Type: HttpApi}",
        )
    )
    stack = load_stack(write(tmp_path, text))
    assert stack.functions["Work"].environment == {"COUNT": "3", "ENABLED": "true"}
    assert (stack.functions["Work"].memory_mb, stack.functions["Work"].timeout_s) == (128, 3.0)
    (api,) = stack.http_apis.values()
    assert {(route.key, route.function, route.timeout_s) for route in api.routes} == {
        ("$default", "Work", 30.0),
        ("ANY /x/{proxy+}", "Work", 1.5),
    }


def test_an_authorizer_that_the_gateway_does_not_have_is_named(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    jwt = "{IdentitySource: $request.header.Authorization, JwtConfiguration: {issuer: 'https://i', audience: [a]}}"
    text = dedent(SAM_FUNCTION) + "".join(
        f"{line}\n"
        for line in (
            "      Events: {E: {Type: HttpApi, Properties: {ApiId: !Ref Door, Path: /, Method: get}}}",
            "  Door:",
            "    Type: AWS::Serverless::HttpApi",
            f"    Properties: {{Auth: {{DefaultAuthorizer: Jwt, Authorizers: {{Jwt: {jwt}}}}}}}",
        )
    )
    with pytest.raises(TemplateError, match=r"Resources.Door.*securitySchemes.Jwt"):
        load_stack(write(tmp_path, text))


# ------------------------------------------------------------------ nested stacks
def nested_templates(folder: Path) -> Path:
    (folder / "parts" / "code").mkdir(parents=True)
    write(
        folder / "parts",
        """\
        Transform: AWS::Serverless-2016-10-31
        Parameters:
          Table: {Type: String}
          Retries: {Type: Number, Default: 2, MaxValue: 5}
        Resources:
          Worker:
            Type: AWS::Serverless::Function
            Properties:
              Handler: worker.handler
              Runtime: python3.13
              CodeUri: code
              Environment: {Variables: {TABLE: !Ref Table, RETRIES: !Ref Retries, INBOX: !Ref Inbox}}
          Inbox: {Type: AWS::SQS::Queue}
        Outputs:
          InboxArn: {Value: !GetAtt Inbox.Arn}
          WorkerArn: {Value: !GetAtt Worker.Arn}
        """,
        "jobs.yaml",
    )
    return write(
        folder,
        """\
        Transform: AWS::Serverless-2016-10-31
        Resources:
          Jobs:
            Type: AWS::Serverless::Application
            Properties:
              Location: parts/jobs.yaml
              Parameters: {Table: !Ref Records, Retries: 4}
          Records:
            Type: AWS::DynamoDB::Table
            Properties:
              AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
              KeySchema: [{AttributeName: id, KeyType: HASH}]
        Outputs:
          Inbox: {Value: !GetAtt Jobs.Outputs.InboxArn}
          Worker: {Value: !Sub "${Jobs.Outputs.WorkerArn}:live"}
        """,
    )


def test_nested_stacks_are_merged_and_give_their_outputs(tmp_path: Path) -> None:
    stack = load_stack(nested_templates(tmp_path))
    worker = stack.functions["Jobs.Worker"]
    assert worker.name == "sluice-Jobs-Worker"
    assert worker.code_dir == tmp_path / "parts" / "code"
    assert worker.environment == {
        "TABLE": "sluice-Records",
        "RETRIES": "4",
        "INBOX": f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/sluice-Jobs-Inbox",
    }
    assert set(stack.resources) == {"Jobs.Inbox", "Records"}
    assert stack.outputs == {
        "Inbox": f"arn:aws:sqs:us-east-1:{ACCOUNT}:sluice-Jobs-Inbox",
        "Worker": f"{worker.arn}:live",
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Retries: 4", "Retries: 9", "Parameter Retries must be at most 5"),
        ("Retries: 4", "Tries: 4", "sluice-Jobs has no parameter Tries"),
        ("Outputs.InboxArn", "Outputs.Outbox", "stack sluice-Jobs has no output Outbox"),
        ("parts/jobs.yaml", "s3://elsewhere/jobs.yaml", "local path of its template"),
        ("parts/jobs.yaml", "{ApplicationId: a, SemanticVersion: 1.0.0}", "only a local path"),
        ("parts/jobs.yaml", "template.yaml", "no parameter|nested more than"),
        ("!Ref Records", "!GetAtt Jobs.Outputs.InboxArn", "circular"),
    ],
)
def test_faults_of_nested_stacks_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = nested_templates(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(TemplateError, match=message):
        load_stack(path)


def test_an_unknown_type_in_a_nested_stack_is_named_with_its_way(tmp_path: Path) -> None:
    path = nested_templates(tmp_path)
    part = tmp_path / "parts" / "jobs.yaml"
    part.write_text(part.read_text().replace("AWS::SQS::Queue", "AWS::Kinesis::Stream"))
    with pytest.raises(UnknownResourceType, match=r"Jobs.Inbox is of type AWS::Kinesis::Stream"):
        load_stack(path)


def test_a_stack_that_contains_itself_is_refused(tmp_path: Path) -> None:
    resources = "{Type: 'AWS::CloudFormation::Stack', Properties: {TemplateURL: template.yaml}}"
    with pytest.raises(TemplateError, match="nested more than"):
        load_stack(write(tmp_path, f"Resources: {{Again: {resources}}}"))
