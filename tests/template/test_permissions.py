"""Least privilege: no wildcard without a reason written beside it, no action without a resource of ours."""

import re
from pathlib import Path

import pytest

from tests.template.support import COMBINATIONS, NESTED, TEMPLATE, listed, of_type, resolved, statements

# Actions that AWS does not bind to a resource.
UNBOUND = {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}
# Places in other buckets are of any partition: a list of them can be joined by nothing that differs between partitions.
ARN = r"arn:(aws:[a-z0-9-]+:[a-z0-9-]*:\d*|\*:s3::):[^*].+"


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_statements_name_actions_and_resources(combination: str) -> None:
    for logical_id, role in of_type(resolved(COMBINATIONS[combination]), "AWS::IAM::Role").items():
        for statement in statements(role):
            actions = set(listed(statement["Action"]))
            assert statement["Effect"] == "Allow"
            assert not [action for action in actions if "*" in action], logical_id
            if "*" in listed(statement["Resource"]):
                assert actions <= UNBOUND, logical_id
            for resource in listed(statement["Resource"]):
                assert resource == "*" or re.fullmatch(ARN, resource), logical_id


@pytest.mark.parametrize("path", [TEMPLATE, *NESTED], ids=lambda path: path.name)
def test_a_wildcard_has_its_reason_beside_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.search(r"(Resource: .*|- !(Sub|GetAtt) arn.*|- !Sub .*)\*", line) and "*" in line:
            above = lines[max(number - 7, 0) : number]
            assert [text for text in above if text.strip().startswith("#")], f"{path.name}:{number + 1}: {line.strip()}"


def test_roles_take_no_policies_of_aws_but_those_that_sam_gives() -> None:
    expected = {
        "AWSLambdaBasicExecutionRole",
        "AWSXrayWriteOnlyAccess",
        "AWSCodeDeployRoleForLambda",
    }
    for role in of_type(resolved(COMBINATIONS["container"]), "AWS::IAM::Role").values():
        assert {arn.rpartition("/")[2] for arn in role.properties.get("ManagedPolicyArns", [])} <= expected


def test_the_image_is_pulled_from_its_own_repository() -> None:
    role = resolved(COMBINATIONS["two variants, captured"])["Container.Role"]
    pulls = [item for item in statements(role) if "ecr:BatchGetImage" in listed(item["Action"])]
    arn = "arn:aws:ecr:eu-west-1:123456789012:repository/team/sluice"
    assert [statement["Resource"] for statement in pulls] == [[arn, arn]]


def test_only_a_stack_that_captures_may_write_to_the_bucket() -> None:
    for name in ("container", "two variants, captured"):
        role = resolved(COMBINATIONS[name])["Container.Role"]
        writes = [item["Resource"] for item in statements(role) if "s3:PutObject" in listed(item["Action"])]
        expected = ["arn:aws:s3:::sluice-modelbucket-000000000000/captured/*"] if "captured" in name else []
        assert writes == expected


def test_a_queue_reads_inputs_and_writes_answers_where_they_belong() -> None:
    role = resolved(COMBINATIONS["container with a queue"])["Container.Role"]
    bucket = "arn:aws:s3:::sluice-databucket-000000000000/async"
    reads = [item["Resource"] for item in statements(role) if listed(item["Action"]) == ["s3:GetObject"]]
    writes = [item["Resource"] for item in statements(role) if "s3:PutObject" in listed(item["Action"])]
    assert f"{bucket}/in/*" in reads
    assert writes == [[f"{bucket}/out/*", f"{bucket}/failed/*"]]
