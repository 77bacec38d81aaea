"""Answers kept in a DynamoDB table, for all environments.

An answer, under the partition key `id` (S) that `shared.domain.answer_key` makes:

    tenant          S  to whom the answer belongs, `*` if to all
    made_at         N  s since 1970
    variant, backend   S  what made it
    outputs         B  a V2 response with binary tensors, whose id is the item's
    header          N  how many bytes of `outputs` are its JSON header
    coding          S  the content coding of `outputs`, if that is smaller
    expires_at      N  s since 1970: from then on the item does not count (the table's TTL)

A lease is an item of its own, `<id>#lease`: an update costs by the size of the whole item. `until` (N) is its end, in
ms since 1970, and `owner` (S) a token of the call that took it.
"""

import logging
from collections.abc import Callable
from math import ceil
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.codecs.compression import compress, decompress
from shared.codecs.json_documents import JsonLimits
from shared.codecs.v2 import V2Response, decode_response, encode_response, to_wire
from shared.domain.answer_key import tenant_of
from shared.domain.dtypes import DType
from shared.domain.endpoint.target import KeptAnswer
from shared.domain.errors import InvalidRequest
from shared.domain.tensors import NUMPY_DTYPES, Tensors

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = dict[str, AttributeValueTypeDef]

_WHAT: Final = "The store of answers"
_CODING: Final = "deflate"
# An item holds 400 KB with its names, and what is written costs by the KB.
MAX_IN_ITEM: Final = 350 * 1024
MAX_ENCODED: Final = 4 * 1024 * 1024
"""Bytes of an answer before it is compressed; larger ones are not kept."""
_LIMITS: Final = JsonLimits(max_bytes=MAX_ENCODED)
_LEASE_MARGIN_S: Final = 60
_MAX_HELD: Final = 256
# By what NumPy calls them. BF16 is carried in arrays of UINT16, and comes back in one.
_DTYPES: Final = {
    numpy.str: dtype for dtype, numpy in NUMPY_DTYPES.items() if dtype not in {DType.BF16, DType.BYTES}
} | {NUMPY_DTYPES[DType.BYTES].str: DType.BYTES}

_log = logging.getLogger(__name__)


class NotKept(ValueError):
    """An item that is not the answer that was asked for; the message says why."""


class DynamoDBAnswers:
    """Implements `shared.domain.ports.AnswerStore`; safe to use from many threads.

    Every call is bounded by the timeouts of `client`, which should be short: an answer can always be made. All methods
    raise BackendError. Reads are eventually consistent. An item that is damaged or another's does not count, and is
    logged. `now` is in seconds since 1970.
    """

    def __init__(self, client: "DynamoDBClient", table: str, *, now: Callable[[], float] = time) -> None:
        self._client = client
        self._table = table
        self._now = now
        self._lock = Lock()
        self._held: dict[str, str] = {}

    def get(self, key: str) -> KeptAnswer | None:
        """One GetItem: half a read unit for each 4 KB of the answer."""
        with aws_errors(_WHAT):
            item = self._client.get_item(TableName=self._table, Key={"id": {"S": key}}).get("Item")
        if item is None:
            return None
        try:
            return None if float(item["expires_at"]["N"]) <= self._now() else _answer(key, item)
        except (NotKept, InvalidRequest, KeyError, TypeError, ValueError) as error:
            fields = {"answer_id": key, "answer_damaged": 1, "cause": f"{type(error).__name__}: {error}"[:300]}
            _log.warning("a kept answer is damaged or another's, and is made anew", extra={"fields": fields})
            return None

    def put(self, key: str, answer: KeptAnswer, keep_s: float) -> bool:
        """One PutItem: a write unit for each KB; none, and False, for an answer that is too large for an item."""
        item = _item(key, answer, expires_at=ceil(self._now() + keep_s))
        if item is None:
            return False
        with aws_errors(_WHAT):
            self._client.put_item(TableName=self._table, Item=item)
        return True

    def lease(self, key: str, seconds: float) -> bool:
        """One conditional UpdateItem, one write unit: whether the caller is the one to make this answer (anew)."""
        now = self._now()
        owner = uuid4().hex
        # The last part is for an attempt of this very call, whose answer was lost on the way: botocore sent it again.
        taken = self._update(
            key,
            "SET #until = :until, #owner = :owner, expires_at = :expires_at",
            "attribute_not_exists(#until) OR #until <= :now OR #owner = :owner",
            owner,
            {
                ":until": ceil((now + seconds) * 1000),
                ":now": int(now * 1000),
                ":expires_at": ceil(now + seconds) + _LEASE_MARGIN_S,
            },
        )
        if taken:
            with self._lock:
                while len(self._held) >= _MAX_HELD:
                    del self._held[next(iter(self._held))]
                self._held[key] = owner
        return taken

    def release(self, key: str) -> None:
        """Give a lease back before its time, by one conditional UpdateItem; nothing happens to another's."""
        with self._lock:
            owner = self._held.pop(key, None)
        if owner is not None:
            self._update(key, "SET #until = :none", "#owner = :owner", owner, {":none": 0})

    def _update(self, key: str, update: str, condition: str, owner: str, values: dict[str, int]) -> bool:
        """Whether the condition held."""
        with aws_errors(_WHAT):
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key={"id": {"S": f"{key}#lease"}},
                    UpdateExpression=update,
                    ConditionExpression=condition,
                    ExpressionAttributeNames={"#until": "until", "#owner": "owner"},
                    ExpressionAttributeValues={
                        ":owner": {"S": owner},
                        **{name: {"N": str(value)} for name, value in values.items()},
                    },
                )
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                return False
        return True


def _item(key: str, answer: KeptAnswer, *, expires_at: int) -> "Item | None":
    """The item of an answer; None if it is too large, or holds what has no name in the protocol."""
    try:
        dtypes = {name: _DTYPES[array.dtype.str] for name, array in answer.outputs.items()}
    except KeyError:
        return None
    if sum(array.nbytes for array in answer.outputs.values()) > MAX_ENCODED:
        return None
    response = V2Response("", "", to_wire(answer.outputs, dtypes), key)
    body, header = encode_response(response, binary=True)
    if len(body) > MAX_ENCODED:
        return None
    content, coding = compress(body, _CODING)
    if len(content) > MAX_IN_ITEM:
        return None
    item: Item = {
        "id": {"S": key},
        "tenant": {"S": tenant_of(key)},
        "made_at": {"N": f"{answer.made_at:.3f}"},
        "variant": {"S": answer.variant},
        "backend": {"S": answer.backend},
        "outputs": {"B": content},
        "header": {"N": str(len(body) if header is None else header)},
        "expires_at": {"N": str(expires_at)},
    }
    if coding is not None:
        item["coding"] = {"S": coding}
    return item


def _answer(key: str, item: "Item") -> KeptAnswer:
    """The answer of an item; raises NotKept, InvalidRequest, KeyError or ValueError."""
    if item["id"]["S"] != key or item["tenant"]["S"] != tenant_of(key):
        raise NotKept("the item is not the one that was asked for")
    content: Any = item["outputs"]["B"]
    if "coding" in item:
        if item["coding"]["S"] != _CODING:
            raise NotKept("the outputs are in another coding")
        content = decompress(content, _CODING, MAX_ENCODED)
    response = decode_response(bytes(content), int(item["header"]["N"]), _LIMITS)
    if response.id != key:
        raise NotKept("the outputs belong to another request")
    outputs: Tensors = {name: tensor.array for name, tensor in response.outputs.items()}
    return KeptAnswer(outputs, item["variant"]["S"], item["backend"]["S"], float(item["made_at"]["N"]))
