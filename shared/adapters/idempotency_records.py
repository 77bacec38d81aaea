"""The records behind `Idempotency-Key`, in a DynamoDB table, as a persistence layer of Powertools' idempotency.

Importing Powertools' idempotency takes 40 ms on top of a web function: only a request with a key imports this module.

    id              S  the record's id (partition key)
    status          S  INPROGRESS | COMPLETED
    owner           S  token of the run that made the record
    validation      S  SHA-256 of the payload in hexadecimal
    started, in_progress_expiration   N  ms since 1970: when the run began, and when the key is free if it never ends
    expiration      N  s since 1970: from then on the record does not count (the table's TTL)
    data            S  the answer as JSON, or B: the same, sealed
    object, sha256, size   S, S, N  where the answer is instead if it is large
    sealed          BOOL  whether the object is sealed

Powertools' own layer for DynamoDB updates and deletes unconditionally. This one does so on the condition that the
owner is still the same: a run that was overtaken, since it outlived its deadline, cannot touch what a newer one wrote.
"""

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools.utilities.idempotency import BasePersistenceLayer
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyItemAlreadyExistsError,
    IdempotencyItemNotFoundError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import STATUS_CONSTANTS, DataRecord
from aws_lambda_powertools.utilities.idempotency.serialization.base import BaseIdempotencySerializer
from botocore.exceptions import BotoCoreError, ClientError

from shared.adapters.answer_seal import Seal
from shared.adapters.aws import error_code
from shared.adapters.s3_answers import AnswerLost, AnswerObject, S3Answers
from shared.domain.idempotency import StoredAnswer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = dict[str, AttributeValueTypeDef]

# An item holds 400 KB, and what is written costs by the KB.
MAX_IN_ITEM: Final = 256 * 1024
_IN_PROGRESS: Final = STATUS_CONSTANTS["INPROGRESS"]
_COMPLETED: Final = STATUS_CONSTANTS["COMPLETED"]
# Absent, outlived its hours, or left behind by a run that did not end: then the key is free. And a first attempt of
# this very call, whose answer was lost on the way: botocore has sent it again.
_FREE: Final = (
    "attribute_not_exists(#id) OR #expiration < :now"
    " OR (#status = :in_progress AND (#in_progress_expiration < :now_ms OR #owner = :owner))"
)
_OWNED: Final = "#owner = :owner"

_log = logging.getLogger(__name__)


class Superseded(Exception):
    """The record is not this run's any more: it went on beyond its deadline, and the key was free."""


class AnswerSerializer(BaseIdempotencySerializer):
    """`StoredAnswer` ↔ what Powertools writes as JSON."""

    def to_dict(self, data: Any) -> dict[str, Any]:
        """The document of an answer."""
        return StoredAnswer.to_document(data)

    def from_dict(self, data: dict[str, Any]) -> StoredAnswer:
        """The answer of a document."""
        return StoredAnswer.from_document(data)


class OwnedRecords(BasePersistenceLayer):
    """The record of one request: `owner` is the token of its run. Raises botocore's errors, Superseded, AnswerLost.

    The data that Powertools passes through is `{"id", "payload"}`: the record's id and the payload's SHA-256.
    """

    def __init__(
        self, client: "DynamoDBClient", table: str, answers: S3Answers, *, owner: str, seal: Seal | None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._client = client
        self._table = table
        self._answers = answers
        self._owner = owner
        self._seal = seal
        # When the run in whose way this one is began, and when it ends at the latest, in ms since 1970.
        self.in_flight: tuple[int, int] | None = None

    def _get_hashed_idempotency_key(self, data: dict[str, Any]) -> str:
        return str(data["id"])

    def _get_hashed_payload(self, data: dict[str, Any]) -> str:
        return str(data["payload"])

    def _put_record(self, data_record: DataRecord) -> None:
        now_ms = int(time.time() * 1000)
        item: Item = {
            **_key(data_record),
            "status": {"S": data_record.status},
            "owner": {"S": self._owner},
            "validation": {"S": data_record.payload_hash},
            "started": {"N": str(now_ms)},
            "in_progress_expiration": {"N": str(data_record.in_progress_expiry_timestamp)},
            "expiration": {"N": str(data_record.expiry_timestamp)},
        }
        try:
            self._client.put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression=_FREE,
                ExpressionAttributeNames=_names("id", "status", "owner", "in_progress_expiration", "expiration"),
                ExpressionAttributeValues={
                    ":now": {"N": str(now_ms // 1000)},
                    ":now_ms": {"N": str(now_ms)},
                    ":in_progress": {"S": _IN_PROGRESS},
                    ":owner": item["owner"],
                },
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
            if not _is_failed_condition(error):
                raise
            found = self._found(error.response["Item"], data_record)  # type: ignore[typeddict-item]
            raise IdempotencyItemAlreadyExistsError(old_data_record=found) from error

    def _found(self, item: "Item", mine: DataRecord) -> DataRecord:
        """The record in the way, with its answer; IdempotencyValidationError if it is for another payload."""
        record = DataRecord(
            idempotency_key=mine.idempotency_key,
            status=item["status"]["S"],
            expiry_timestamp=int(item["expiration"]["N"]),
            in_progress_expiry_timestamp=int(item["in_progress_expiration"]["N"]),
            payload_hash=item["validation"]["S"],
        )
        self._validate_payload(mine, record)
        if record.status == _IN_PROGRESS:
            self.in_flight = (int(item["started"]["N"]), int(item["in_progress_expiration"]["N"]))
        elif record.status == _COMPLETED:
            record.response_data = self._read_answer(item)
        return record

    def _get_record(self, idempotency_key: str) -> DataRecord:
        # Never more than the failed condition told: what it did not bring along is gone, and Powertools asks again.
        raise IdempotencyItemNotFoundError(idempotency_key)

    def _update_record(self, data_record: DataRecord) -> None:
        changes: Item = {
            "status": {"S": data_record.status},
            "expiration": {"N": str(data_record.expiry_timestamp)},
            **self._write_answer(data_record),
        }
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key(data_record),
                UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in changes),
                ConditionExpression=_OWNED,
                ExpressionAttributeNames=_names("owner", *changes),
                ExpressionAttributeValues={
                    ":owner": {"S": self._owner},
                    **{f":{name}": value for name, value in changes.items()},
                },
            )
        except ClientError as error:
            if _is_failed_condition(error):
                raise Superseded from error
            raise

    def _delete_record(self, data_record: DataRecord) -> None:
        """Free the key; if that fails the caller is told of its own failure all the same, and the deadline frees it."""
        try:
            self._client.delete_item(
                TableName=self._table,
                Key=_key(data_record),
                ConditionExpression=_OWNED,
                ExpressionAttributeNames=_names("owner"),
                ExpressionAttributeValues={":owner": {"S": self._owner}},
            )
        except (ClientError, BotoCoreError) as error:
            fields: dict[str, object] = {"idempotency_id": data_record.idempotency_key}
            if isinstance(error, ClientError) and _is_failed_condition(error):
                _log.info("an overtaken request failed; the record is another's", extra={"fields": fields})
            else:
                fields |= {"idempotency_not_freed": 1, "cause": str(error)}
                _log.warning("an idempotency key stays taken until its deadline", extra={"fields": fields})

    def _write_answer(self, record: DataRecord) -> "Item":
        """The attributes that hold the answer; a large one goes to S3 first: no record names what is not there."""
        content = record.response_data.encode()
        if self._seal is not None:
            content = self._seal.close(content)
        if len(content) <= MAX_IN_ITEM:
            return {"data": {"S": record.response_data} if self._seal is None else {"B": content}}
        stored = self._answers.put(record.idempotency_key, self._owner, content)
        return {
            "object": {"S": stored.key},
            "sha256": {"S": stored.sha256},
            "size": {"N": str(stored.size)},
            "sealed": {"BOOL": self._seal is not None},
        }

    def _read_answer(self, item: "Item") -> str:
        if "object" in item:
            stored = AnswerObject(item["object"]["S"], item["sha256"]["S"], int(item["size"]["N"]))
            content = self._answers.get(stored)
            sealed = item["sealed"]["BOOL"]
        elif "B" in item["data"]:
            content, sealed = item["data"]["B"], True
        else:
            return item["data"]["S"]
        if not sealed:
            return content.decode()
        if self._seal is None:
            raise AnswerLost("it was sealed, and is read by a route that seals nothing")
        return self._seal.open(content).decode()


def _key(record: DataRecord) -> "Item":
    return {"id": {"S": record.idempotency_key}}


def _names(*names: str) -> dict[str, str]:
    return {f"#{name}": name for name in names}


def _is_failed_condition(error: ClientError) -> bool:
    return error_code(error) == "ConditionalCheckFailedException"
