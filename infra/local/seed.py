"""What a fresh local stack holds: keys for the demo tenant, and the example models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.local.aws_client import isolated_session, local_client
from infra.local.stack import StackSpec
from infra.packages import publisher
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.domain.credentials import new_key

TENANT = "demo"
CALLER_SCOPES = frozenset({"predict", "jobs", "ingest"})
ADMIN_SCOPES = CALLER_SCOPES | {"admin", "models:write"}


@dataclass(frozen=True, slots=True)
class Keys:
    """The texts of the keys made for this run of the stack; only their hashes are stored."""

    api_key: str
    admin_key: str


def seed_keys(stack: StackSpec, aws_url: str) -> Keys:
    """Make and store a fresh caller key and a fresh admin key of the demo tenant."""
    store = DynamoDBKeys(local_client(isolated_session(), "dynamodb", aws_url), stack.outputs["KeysTableName"])
    texts: list[str] = []
    for scopes in (CALLER_SCOPES, ADMIN_SCOPES):
        text, key = new_key(TENANT, scopes, plan="demo")
        store.add(key)
        texts.append(text)
    return Keys(*texts)


def seed_models(stack: StackSpec, aws_url: str, packages: Sequence[Path]) -> None:
    """Publish the packages."""
    publish = publisher(aws_url, stack.outputs["ModelsTableName"], stack.outputs["ModelBucketName"])
    for package in packages:
        publish(package)
