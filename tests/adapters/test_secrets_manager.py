"""The pepper, from the local Secrets Manager."""

import os
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.secrets_manager import SecretText
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable
from tests.conftest import LocalAws
from tests.faults import BROKEN, CLOSED, SILENT, FaultProxy


def test_the_secret_of_the_template_is_read_once(local_aws: LocalAws, aws_session: Session) -> None:
    made = 0

    def make() -> object:
        nonlocal made
        made += 1
        return client("secretsmanager", session=aws_session, endpoint_url=local_aws.url)

    pepper = SecretText(make, local_aws.stack.outputs["KeyPepperArn"])  # type: ignore[arg-type]
    assert made == 0
    with ThreadPoolExecutor(max_workers=4) as pool:
        (secret,) = set(pool.map(lambda _: pepper(), range(8)))
    assert (len(secret), made) == (64, 1)
    assert secret.decode() not in repr(pepper)


def test_a_secret_that_is_missing_or_empty_is_an_error(local_aws: LocalAws, aws_session: Session) -> None:
    secrets = client("secretsmanager", session=aws_session, endpoint_url=local_aws.url)
    with pytest.raises(BackendError, match="ResourceNotFoundException"):
        SecretText(lambda: secrets, "nobody")()
    name = f"binary-{uuid4().hex}"
    secrets.create_secret(Name=name, SecretBinary=os.urandom(8))
    with pytest.raises(BackendError, match="no text"):
        SecretText(lambda: secrets, name)()


def test_a_store_that_is_down_is_asked_again(local_aws: LocalAws, aws_session: Session) -> None:
    with FaultProxy(local_aws.url) as proxy:
        secrets = client("secretsmanager", session=aws_session, endpoint_url=proxy.url, read_timeout=0.2, retries=0)
        pepper = SecretText(lambda: secrets, local_aws.stack.outputs["KeyPepperArn"])
        for fault, error in ((CLOSED, BackendUnavailable), (BROKEN, BackendUnavailable), (SILENT, BackendTimeout)):
            proxy.fail(fault)
            with pytest.raises(error):
                pepper()
        proxy.heal()
        assert pepper() == pepper()
        assert proxy.calls["GetSecretValue"] == 4
