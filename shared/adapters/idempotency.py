"""Exactly once: the requests with one `Idempotency-Key` run once and have one answer.

The engine is Powertools' idempotency (the states of a record, payload validation, expiry in progress);
`shared.adapters.idempotency_records` keeps its records, each with an owner.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from shared.adapters.answer_seal import Seal
from shared.adapters.s3_answers import AnswerLost, S3Answers
from shared.domain.errors import IdempotencyInFlight, IdempotencyMismatch, IdempotencyUnavailable
from shared.domain.idempotency import IdempotencyScope, StoredAnswer, check_key, record_id, retry_after_s

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyPersistenceLayerError
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

# The run itself, and one more look at the record for a run that was overtaken.
_ATTEMPTS: Final = 2

_log = logging.getLogger(__name__)


class _NotKept(Exception):
    """An answer that frees the key, made an exception since that is what makes Powertools free it."""

    def __init__(self, answer: StoredAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class PowertoolsIdempotency:
    """Implements `shared.domain.ports.IdempotencyStore` on a DynamoDB table (key `id`, TTL `expiration`) and a bucket.

    `dynamodb` should give up early, since a request waits for it; `s3` makes its client when an answer of more than
    256 KiB first needs it. Records count for `hours`. Holds nothing of a request.
    """

    def __init__(
        self, dynamodb: "DynamoDBClient", table: str, s3: "Callable[[], S3Client]", bucket: str, hours: int
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._answers = S3Answers(s3, bucket)
        self._hours = hours

    def run(
        self,
        scope: IdempotencyScope,
        key: str,
        payload_digest: bytes,
        remaining_ms: int,
        produce: Callable[[], StoredAnswer],
        *,
        seal_with: bytes | None = None,
    ) -> tuple[StoredAnswer, bool]:
        """The one answer to `key` in `scope`, and whether it is a replay.

        `payload_digest` is the SHA-256 of all that makes the request what it is; `remaining_ms` is the time until this
        invocation is ended, after which the key is free if no answer is stored by then. With `seal_with` (a secret of
        the stack) the answer is stored encrypted. Two calls of DynamoDB for a first request, one for a replay.

        An answer of 400 or more, and whatever `produce` raises, passes through and frees the key. Raises
        InvalidIdempotencyKey, IdempotencyInFlight (with `retry_after_s`), IdempotencyMismatch and
        IdempotencyUnavailable: then nothing ran. Once it ran, the answer is given even if it cannot be stored.
        """
        name = record_id(scope, check_key(key))
        seal = None if seal_with is None else Seal(seal_with, key, name)
        from shared.adapters.idempotency_records import Superseded

        run = _Run(produce, remaining_ms)
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(name, payload_digest.hex(), seal, run)
            except _NotKept as refused:
                return refused.answer, False
            except Superseded:
                fields = {"idempotency_overtaken": 1, "idempotency_id": name}
                _log.warning("a request outlived its deadline and was overtaken", extra={"fields": fields})
        raise _in_flight(None)

    def _attempt(self, name: str, payload: str, seal: Seal | None, run: "_Run") -> tuple[StoredAnswer, bool]:
        """Once through Powertools; raises Superseded if the record was another's when the answer was to be stored."""
        from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig
        from aws_lambda_powertools.utilities.idempotency import exceptions as powertools
        from aws_lambda_powertools.utilities.idempotency.base import IdempotencyHandler

        from shared.adapters.idempotency_records import AnswerSerializer, OwnedRecords, Superseded

        # A layer and a configuration for each attempt: Powertools keeps the state of a call in them.
        records = OwnedRecords(self._dynamodb, self._table, self._answers, owner=uuid4().hex, seal=seal)
        config = IdempotencyConfig(
            payload_validation_jmespath="payload",
            expires_after_seconds=self._hours * 3600,
            hash_function="sha256",
            lambda_context=cast("LambdaContext", run),
        )
        run.owns_record = False
        handler = IdempotencyHandler(
            run.work, {"id": name, "payload": payload}, config, records, AnswerSerializer(), None, (), {}
        )
        try:
            answer = cast("StoredAnswer", handler.handle())
        except powertools.IdempotencyValidationError:
            raise IdempotencyMismatch(
                "This Idempotency-Key was used for another request. Use a new key for every new request."
            ) from None
        except (powertools.IdempotencyAlreadyInProgressError, powertools.IdempotencyInconsistentStateError):
            raise _in_flight(records.in_flight) from None
        except powertools.IdempotencyPersistenceLayerError as error:
            if isinstance(error.__cause__, Superseded):
                raise error.__cause__ from None
            if not run.owns_record:
                raise _unavailable(error) from error.__cause__
            # It ran, and the caller may have what came of it; the key is taken until the deadline.
            fields = {"idempotency_not_stored": 1, "idempotency_id": name}
            _log.warning("an answer could not be stored", exc_info=error, extra={"fields": fields})
            return run.answer, False
        return answer, not run.owns_record


class _Run:
    """The work of one request, done once at most, however often Powertools asks for it; and its deadline."""

    def __init__(self, produce: Callable[[], StoredAnswer], remaining_ms: int) -> None:
        self._produce = produce
        self._ends = time.monotonic() + remaining_ms / 1000
        self._answer: StoredAnswer | None = None
        # Whether Powertools asked for the work in this attempt, which it does once the record is this run's.
        self.owns_record = False

    @property
    def answer(self) -> StoredAnswer:
        if self._answer is None:
            self._answer = self._produce()
        return self._answer

    def work(self) -> StoredAnswer:
        self.owns_record = True
        if not self.answer.is_kept:
            raise _NotKept(self.answer)
        return self.answer

    def get_remaining_time_in_millis(self) -> int:
        """What Powertools asks of Lambda's context."""
        return max(int((self._ends - time.monotonic()) * 1000), 0)


def _in_flight(times: tuple[int, int] | None) -> IdempotencyInFlight:
    wait = 1.0 if times is None else retry_after_s(*times, now_ms=int(time.time() * 1000))
    return IdempotencyInFlight("A request with this Idempotency-Key is being answered.", retry_after_s=wait)


def _unavailable(error: "IdempotencyPersistenceLayerError") -> Exception:
    """What a failure before the work began is to the caller; a fault of the program stays one."""
    match error.__cause__:
        case AnswerLost() as lost:
            unavailable = IdempotencyUnavailable(
                f"The request was answered before, and the stored answer is lost: {lost}. Running it again would be"
                " running it twice: if that is wanted, use a new Idempotency-Key."
            )
            # Waiting does not help.
            unavailable.retry_after_s = None
            return unavailable
        case ClientError() | BotoCoreError():
            return IdempotencyUnavailable(
                "The store of idempotency records cannot be used now: try again with the same key."
            )
    return error
