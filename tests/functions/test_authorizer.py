import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from botocore.session import Session

from functions.authorizer.bootstrap import Handler, authorizer, build
from infra.local.stack import REGION
from shared.adapters.aws import client
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.adapters.secrets_manager import SecretText
from shared.domain.credentials import new_key
from shared.domain.errors import BackendError, BackendUnavailable
from shared.domain.plans import Plan, Rate
from shared.domain.ports import ApiKey
from shared.domain.principal import Principal
from shared.domain.settings import SettingsError
from shared.domain.tenants import Tenant, day_of, end_of_day
from shared.usecases.authorize import Authorize
from tests.adapters.issuer import AUDIENCE, DISCOVERY, JWKS, Issuer, claims, ec_key
from tests.adapters.samples import unique
from tests.conftest import ROOT, LocalAws
from tests.fakes import InMemoryKeys, InMemoryTenants
from tests.faults import BROKEN, CLOSED, SILENT, THROTTLED, Fault, FaultProxy
from tests.functions.conftest import LogLines
from tests.functions.support import EVENTS

PEPPER = b"pepper"
TEXT, KEY = new_key("acme", frozenset({"predict"}), PEPPER, now=1)
PLAN = Plan("demo", key=Rate(500, 1000), tenant=Rate(500, 1000), daily_quota=1000)
EC = ec_key()


def over(keys: InMemoryKeys, log: logging.Logger) -> Handler:
    return authorizer(Authorize(keys, InMemoryTenants(Tenant("acme", "demo"), PLAN), lambda: PEPPER), log)


@pytest.fixture
def handler(log: logging.Logger) -> Handler:
    return over(InMemoryKeys(KEY), log)


def request(credential: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / "authorizer.json").read_text())
    event["identitySource"] = [credential]
    return event


def test_a_key_is_answered_with_its_principal(handler: Handler, log_lines: LogLines) -> None:
    answer = handler(request(f"Bearer {TEXT}"), None)
    assert answer["isAuthorized"] is True
    expected = Principal("acme", KEY.key_id, frozenset({"predict"}), "demo", PLAN.limits)
    assert Principal.from_context(answer["context"]) == expected
    (line,) = log_lines.lines
    assert (line["authorized"], line["tenant"], line["key_id"]) == (True, "acme", KEY.key_id)


def test_the_sample_event_has_an_unknown_key(handler: Handler, log_lines: LogLines) -> None:
    event = json.loads((EVENTS / "authorizer.json").read_text())
    assert handler(event, None) == {"isAuthorized": False}
    (line,) = log_lines.lines
    assert (line["authorized"], line["reason"]) == (False, "unknown_key")
    assert line["request_id"] == event["requestContext"]["requestId"]


def test_the_secret_is_never_logged(handler: Handler, log_lines: LogLines) -> None:
    handler(request(f"Bearer {TEXT}"), None)
    handler(request(f"Bearer {TEXT[:-1]}a"), None)
    handler(request(f"Basic {TEXT}"), None)
    handler(request("Bearer secretheader.secretbody.secretsignature"), None)
    assert TEXT.split("_")[2][:20] not in log_lines.text
    assert "secretbody" not in log_lines.text


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        None,
        "event",
        {"identitySource": None},
        {"identitySource": []},
        {"identitySource": f"Bearer {TEXT}"},
        {"identitySource": [None]},
        {"identitySource": [f"Bearer {TEXT}", "more"]},
        {"headers": {"authorization": f"Bearer {TEXT}"}},
        {"identitySource": [""], "requestContext": 3},
    ],
)
def test_a_malformed_event_is_not_authorized(handler: Handler, event: Any) -> None:
    assert handler(event, None) == {"isAuthorized": False}


def test_a_failing_store_fails_the_function(log: logging.Logger) -> None:
    keys = InMemoryKeys(KEY)
    keys.error = BackendUnavailable("The key store cannot be reached.")
    with pytest.raises(BackendUnavailable):
        over(keys, log)(request(f"Bearer {TEXT}"), None)


# ---------------------------------------------------------------- as the composition root makes it, on local services


class Built:
    """The real handler behind a proxy that can fail, with a tenant of its own."""

    def __init__(self, proxy: FaultProxy, aws: LocalAws, session: Session, **settings: str) -> None:
        self.proxy = proxy
        self.tenant = unique("t")
        dynamodb = client("dynamodb", session=session, endpoint_url=aws.url)
        names = aws.stack.outputs
        self.dynamodb = dynamodb
        self.usage = names["UsageTableName"]
        self.keys = DynamoDBKeys(dynamodb, names["KeysTableName"])
        self.tenants = DynamoDBTenants(dynamodb, names["TenantsTableName"], self.usage)
        self.plan = replace(PLAN, name=unique("p"))
        self.tenants.put_plan(self.plan)
        self.tenants.add(Tenant(self.tenant, self.plan.name))
        secrets = client("secretsmanager", session=session, endpoint_url=aws.url)
        self.pepper = SecretText(lambda: secrets, names["KeyPepperArn"])()
        self.environment = {
            "SLUICE_KEYS_TABLE": names["KeysTableName"],
            "SLUICE_TENANTS_TABLE": names["TenantsTableName"],
            "SLUICE_USAGE_TABLE": self.usage,
            "SLUICE_KEY_PEPPER_ARN": names["KeyPepperArn"],
            "SLUICE_READ_TIMEOUT_S": "0.3",
            "POWERTOOLS_LOG_LEVEL": "ERROR",
            **settings,
        }
        self.handler = build(self.environment)

    def key(self, **changes: Any) -> tuple[str, ApiKey]:
        text, key = new_key(self.tenant, frozenset({"predict"}), self.pepper, now=time.time(), **changes)
        self.keys.add(key)
        return f"Bearer {text}", key

    def __call__(self, credential: str) -> Principal | None:
        answer = self.handler(request(credential), None)
        return Principal.from_context(answer["context"]) if answer["isAuthorized"] else None


Make = Callable[..., Built]


@pytest.fixture
def make(local_aws: LocalAws, aws_session: Session, monkeypatch: pytest.MonkeyPatch, keep_loggers: None) -> Any:
    with FaultProxy(local_aws.url) as proxy:
        for name, value in {
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }.items():
            monkeypatch.setenv(name, value)
        yield lambda **settings: Built(proxy, local_aws, aws_session, **settings)


def test_a_key_costs_two_reads_once_pepper_and_plan_are_known(make: Make) -> None:
    built = make()
    credential, key = built.key()
    expected = Principal(built.tenant, key.key_id, frozenset({"predict"}), built.plan.name, built.plan.limits)
    assert built.proxy.calls == {}
    assert built(credential) == expected
    assert built.proxy.calls == {"GetItem": 2, "GetSecretValue": 1, "BatchGetItem": 1}
    assert built(credential) == expected
    assert built.proxy.calls == {"GetItem": 3, "GetSecretValue": 1, "BatchGetItem": 2}


def test_revocation_rotation_suspension_and_quota_hold_at_the_next_call(make: Make) -> None:
    built = make()
    (first, old), (second, gone) = built.key(), built.key()
    built.keys.revoke(gone.key_id, int(time.time()))
    assert built(second) is None
    text, new = new_key(built.tenant, old.scopes, built.pepper, now=time.time())
    ends = int(time.time()) + 3600
    built.keys.replace(old.key_id, new, ends)
    renewed = built(f"Bearer {text}")
    overlapping = built(first)
    assert renewed is not None
    assert overlapping is not None
    assert (renewed.expires_at, overlapping.expires_at) == (None, ends)
    now = time.time()
    built.dynamodb.put_item(
        TableName=built.usage,
        Item={"tenant": {"S": built.tenant}, "period": {"S": day_of(now)}, "requests": {"N": "1000"}},
    )
    used_up = built(first)
    assert used_up is not None
    assert (used_up.limits.exhausted, used_up.limits.exhausted_until) == ("day", end_of_day(now))
    built.tenants.update(Tenant(built.tenant, built.plan.name, suspended=True))
    assert built(first) is None


@pytest.mark.parametrize("fault", [THROTTLED, BROKEN, CLOSED, SILENT], ids=["throttled", "broken", "closed", "silent"])
@pytest.mark.parametrize("operation", ["GetItem", "BatchGetItem", "GetSecretValue"])
def test_whatever_store_fails_nobody_is_let_in_and_two_attempts_are_made(
    make: Make, fault: Fault, operation: str
) -> None:
    built = make()
    credential, _ = built.key()
    built.proxy.fail(fault, operation=operation)
    with pytest.raises(BackendError):
        built(credential)
    assert built.proxy.calls[operation] == 2
    built.proxy.heal()
    assert built(credential) is not None


@pytest.mark.parametrize("operation", ["GetItem", "BatchGetItem", "GetSecretValue"])
def test_one_failure_is_tried_again(make: Make, operation: str) -> None:
    built = make()
    credential, _ = built.key()
    built.proxy.fail(THROTTLED, operation=operation, times=1)
    assert built(credential) is not None


def test_a_token_of_the_configured_issuer_is_let_in(make: Make) -> None:
    with Issuer() as issuer:
        issuer.publish(EC.jwk())
        claim = "https://sluice.example/tenant"
        built = make(SLUICE_JWT_ISSUER=issuer.url, SLUICE_JWT_AUDIENCE=AUDIENCE, SLUICE_JWT_TENANT_CLAIM=claim)
        now = int(time.time())
        made = claims(issuer.url, now, tenant=None, **{claim: built.tenant})
        principal = built(f"Bearer {EC.sign(made)}")
        assert principal is not None
        assert (principal.tenant, principal.scopes) == (built.tenant, frozenset({"predict", "jobs"}))
        assert (principal.key_id[:4], principal.expires_at) == ("jwt:", now + 360)
        assert built(f"Bearer {EC.sign(made | {'aud': 'other'})}") is None
        assert built(f"Bearer {EC.sign(made | {claim: 'nobody'})}") is None
        assert built.proxy.calls["GetSecretValue"] == 0
        assert issuer.hits == {DISCOVERY: 1, JWKS: 1}
        # API keys go on, whatever becomes of the issuer, and so do tokens whose key is known.
        issuer.stop()
        assert built(built.key()[0]) is not None
        assert built(f"Bearer {EC.sign(made)}") is not None


@pytest.mark.parametrize("body", [None, b"<html>"], ids=["silent", "garbage"])
def test_an_issuer_that_fails_from_the_start_is_an_error(make: Make, body: bytes | None) -> None:
    with Issuer() as issuer:
        issuer.answer(JWKS, body)
        built = make(
            SLUICE_JWT_ISSUER=issuer.url,
            SLUICE_JWT_AUDIENCE=AUDIENCE,
            SLUICE_JWT_JWKS_URL=issuer.url + JWKS,
            SLUICE_JWT_TIMEOUT_S="0.2",
        )
        token = f"Bearer {EC.sign(claims(issuer.url, time.time(), tenant=built.tenant))}"
        for _ in range(2):  # fetched, and within the pause after a failure
            with pytest.raises(BackendUnavailable):
                built(token)
        assert issuer.hits[JWKS] >= 1
        assert built(built.key()[0]) is not None


def test_without_an_issuer_no_token_holds(make: Make) -> None:
    assert make()(f"Bearer {EC.sign(claims('https://login.example.com', time.time()))}") is None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"SLUICE_JWT_ISSUER": "http://login.example.com", "SLUICE_JWT_AUDIENCE": "a"}, "SLUICE_JWT_ISSUER"),
        ({"SLUICE_JWT_ISSUER": "https://login.example.com"}, "SLUICE_JWT_AUDIENCE"),
        ({"SLUICE_JWT_JWKS_URL": "https://login.example.com/keys"}, "SLUICE_JWT_ISSUER"),
        (
            {"SLUICE_JWT_ISSUER": "https://a.example", "SLUICE_JWT_AUDIENCE": "a", "SLUICE_JWT_JWKS_URL": "ftp://x"},
            "SLUICE_JWT_JWKS_URL",
        ),
        ({"SLUICE_KEY_PEPPER_ARN": ""}, "SLUICE_KEY_PEPPER_ARN"),
    ],
)
def test_settings_that_would_let_strangers_in_stop_the_start(settings: Mapping[str, str], named: str) -> None:
    tables = {f"SLUICE_{name}_TABLE": "t" for name in ("KEYS", "TENANTS", "USAGE")}
    with pytest.raises(SettingsError, match=named):
        build({**tables, "SLUICE_KEY_PEPPER_ARN": "arn", **settings})


_LATE = """
import sys, time
from botocore.session import Session
from functions.authorizer.bootstrap import build
handler = build({
    "SLUICE_KEYS_TABLE": "k", "SLUICE_TENANTS_TABLE": "t", "SLUICE_USAGE_TABLE": "u", "SLUICE_KEY_PEPPER_ARN": "arn",
    "SLUICE_JWT_ISSUER": sys.argv[1], "SLUICE_JWT_AUDIENCE": "sluice", "POWERTOOLS_LOG_LEVEL": "ERROR",
})
def loaded():
    return [name for name in ("jwt", "cryptography", "shared.adapters.jwks", "boto3") if name in sys.modules]
print(loaded())
try:
    handler({"identitySource": ["Bearer " + sys.argv[2]]}, None)
except Exception as error:
    print(type(error).__name__)
print(loaded())
"""


def test_jwt_libraries_are_imported_by_the_first_token(local_aws: LocalAws) -> None:
    with Issuer() as issuer:
        issuer.publish(EC.jwk())
        token = EC.sign(claims(issuer.url, time.time(), aud="other"))
        done = subprocess.run(
            [sys.executable, "-c", _LATE, issuer.url, token],
            cwd=ROOT,
            env={"AWS_DEFAULT_REGION": REGION, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.splitlines() == ["[]", "['jwt', 'cryptography', 'shared.adapters.jwks']"]
