"""Secrets of AWS Secrets Manager, read once."""

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from shared.adapters.aws import aws_errors
from shared.domain.errors import BackendError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_WHAT = "The secret store"


class SecretText:
    """A secret's current text as bytes (UTF-8), fetched by the first call and kept for the life of the process.

    `make_client` is called by that first call, too: a process that never needs the secret makes no client. A call that
    fails keeps nothing, so the next one asks again.
    """

    def __init__(self, make_client: "Callable[[], SecretsManagerClient]", secret_id: str) -> None:
        self._make_client = make_client
        self._secret_id = secret_id
        self._lock = Lock()
        self._client: SecretsManagerClient | None = None
        self._secret: bytes | None = None

    def __repr__(self) -> str:
        return f"SecretText({self._secret_id!r})"

    def __call__(self) -> bytes:
        """The secret; one GetSecretValue at most. Raises BackendError, for an empty secret too."""
        with self._lock:
            if self._secret is None:
                self._secret = self._fetch()
            return self._secret

    def _fetch(self) -> bytes:
        if self._client is None:
            self._client = self._make_client()
        with aws_errors(_WHAT):
            answer = self._client.get_secret_value(SecretId=self._secret_id)
        secret = answer.get("SecretString", "").encode()
        if not secret:
            raise BackendError(f"{_WHAT} holds no text under this name.")
        return secret
