"""What a fresh local stack holds: the demo tenant with its plan and keys, and the example models."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Final

from infra.local.aws_client import isolated_session, local_client
from infra.local.stack import StackSpec
from infra.packages import publisher
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.adapters.secrets_manager import SecretText
from shared.domain.credentials import new_key
from shared.domain.errors import Conflict
from shared.domain.plans import Plan, Rate
from shared.domain.tenants import Tenant

TENANT = "demo"
PLAN: Final = Plan("demo", key=Rate(500, 1000), tenant=Rate(500, 1000))
CALLER_SCOPES = frozenset({"predict", "jobs", "ingest", "webhooks"})
ADMIN_SCOPES = CALLER_SCOPES | {"admin", "models:write"}


@dataclass(frozen=True, slots=True)
class Keys:
    """The texts of the keys made for this run of the stack; only their hashes are stored."""

    api_key: str
    admin_key: str


def seed_keys(stack: StackSpec, aws_url: str) -> Keys:
    """Store the demo plan and tenant, then make and store a fresh caller key and a fresh admin key of it."""
    session, now = isolated_session(), time()
    dynamodb = local_client(session, "dynamodb", aws_url)
    tenants = DynamoDBTenants(dynamodb, stack.outputs["TenantsTableName"], stack.outputs["UsageTableName"])
    tenants.put_plan(PLAN)
    # AWS services that outlived the last run have the tenant: what was set there since stays.
    with suppress(Conflict):
        tenants.add(Tenant(TENANT, PLAN.name, created_at=int(now), description="The tenant of the keys made at start."))
    pepper = SecretText(lambda: local_client(session, "secretsmanager", aws_url), stack.outputs["KeyPepperArn"])()
    store = DynamoDBKeys(dynamodb, stack.outputs["KeysTableName"])
    texts: list[str] = []
    for name, scopes in (("demo caller", CALLER_SCOPES), ("demo admin", ADMIN_SCOPES)):
        text, key = new_key(TENANT, scopes, pepper, name=name, now=now)
        store.add(key)
        texts.append(text)
    return Keys(*texts)


def seed_models(stack: StackSpec, aws_url: str, packages: Sequence[Path]) -> None:
    """Publish the packages."""
    publish = publisher(aws_url, stack.outputs["ModelsTableName"], stack.outputs["ModelBucketName"])
    for package in packages:
        publish(package)
