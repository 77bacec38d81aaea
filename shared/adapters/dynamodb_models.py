"""The model registry in a DynamoDB table: partition key `model` (S), sort key `version` (N).

Every version is an item of its own. Beside them, the partition `#latest` holds a copy of the highest version of each
model, so that the list of models costs one query over as many items as there are models, whatever number of versions
they have. Its sort key is a number made from the model's name. No model can have the name `#latest`.
"""

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from pydantic import ValidationError

from shared.adapters.aws import aws_errors, error_code
from shared.domain.errors import InvalidPackage, ModelNotFound, VersionConflict, VersionNotFound
from shared.domain.features import ModelFeatures
from shared.domain.model import ModelVersion, PackageFile, Placement
from shared.domain.pipeline import Pipeline
from shared.domain.signature import Signature
from shared.schemas.features import FeaturesDocument
from shared.schemas.manifest import SignatureDocument
from shared.schemas.pipeline import PipelineDocument

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, QueryInputTypeDef

_WHAT = "The model registry"
_LATEST = "#latest"
_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# DynamoDB's numbers have 38 digits: a larger version cannot be a key.
_MAX_VERSION = 10**37
# Source: Amazon DynamoDB, "Constraints": 400 KB with the names of the attributes. Whether that means 1000 or 1024
# bytes differs between DynamoDB and its stand-ins, so the smaller one holds.
MAX_ITEM_BYTES = 400_000
# Kept free for what differs between a version's item and its copy in `#latest`.
_RESERVE = 256
# A page has 1 MB: this bounds a listing to 100 MB, thousands of versions.
_MAX_PAGES = 100

Item = dict[str, "AttributeValueTypeDef"]


class DynamoDBModels:
    """Implements `shared.domain.ports.ModelRegistry`. Reads are strongly consistent: what is published is found."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def latest(self, model: str) -> ModelVersion:
        """One query for one item. Raises ModelNotFound, BackendError."""
        items = self._query(model, limit=1) if _MODEL.fullmatch(model) else []
        if not items:
            raise _no_model(model)
        return _from_item(items[0])

    def get(self, model: str, version: int) -> ModelVersion:
        """One GetItem, and one query where it finds nothing. Raises ModelNotFound, VersionNotFound, BackendError."""
        if not _MODEL.fullmatch(model):
            raise _no_model(model)
        if 0 < version < _MAX_VERSION:
            with aws_errors(_WHAT):
                found = self._client.get_item(
                    TableName=self._table,
                    Key={"model": {"S": model}, "version": {"N": str(version)}},
                    ConsistentRead=True,
                )
            if "Item" in found:
                return _from_item(found["Item"])
        highest = self.latest(model).version
        raise VersionNotFound(f"The model {model!r} has no version {version}; its highest is {highest}.")

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """One query for each megabyte of items. Raises ModelNotFound, BackendError."""
        items = self._query(model) if _MODEL.fullmatch(model) else []
        if not items:
            raise _no_model(model)
        return [_from_item(item) for item in items]

    def models(self) -> Sequence[ModelVersion]:
        """One query for each megabyte of highest versions (some hundred models). Raises BackendError."""
        return sorted((_from_item(item) for item in self._query(_LATEST)), key=lambda version: version.model)

    def add(self, version: ModelVersion) -> bool:
        """Two conditional writes: the version, then its copy for the list of models unless a higher one is there.

        Where a process died between the two, adding the same version again makes up for it. Raises VersionConflict,
        InvalidPackage for a version that no item can hold, BackendError.
        """
        if not _MODEL.fullmatch(version.model) or not 0 < version.version < _MAX_VERSION:
            raise InvalidPackage(f"{version.model!r} version {version.version} cannot be a model and its version.")
        item = _to_item(version)
        if (size := _size(item)) > MAX_ITEM_BYTES - _RESERVE:
            raise InvalidPackage(
                f"The registry entry of {version.model} version {version.version} would have {size} bytes, over the "
                f"limit of {MAX_ITEM_BYTES - _RESERVE}: shorten the manifest (class names, metrics, lineage)."
            )
        with aws_errors(_WHAT):
            existing = self._put(item, "attribute_not_exists(model)")
            if existing is not None and existing["digest"]["S"] != version.digest:
                raise VersionConflict(
                    f"{version.model} version {version.version} is published with other content. Versions are "
                    "immutable: publish this one under the next number."
                )
            source = item if existing is None else existing
            self._put(_as_latest(source), "attribute_not_exists(model) OR latest_version < :version", item["version"])
        return existing is None

    def _put(self, item: Item, condition: str, version: "AttributeValueTypeDef | None" = None) -> Item | None:
        """Write `item` under `condition`; the item that stands in its way, or None once written."""
        values: dict[str, Any] = {} if version is None else {"ExpressionAttributeValues": {":version": version}}
        try:
            self._client.put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression=condition,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **values,
            )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise
            existing: Item = error.response["Item"]  # type: ignore[typeddict-item]  # the service model has it
            return existing
        return None

    def _query(self, partition: str, limit: int | None = None) -> list[Item]:
        """The items of a partition, the highest sort key first."""
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "KeyConditionExpression": "model = :model",
            "ExpressionAttributeValues": {":model": {"S": partition}},
            "ScanIndexForward": False,
            "ConsistentRead": True,
        }
        if limit is not None:
            query["Limit"] = limit
        items: list[Item] = []
        for _ in range(_MAX_PAGES):
            with aws_errors(_WHAT):
                page = self._client.query(**query)
            items += page["Items"]
            if "LastEvaluatedKey" not in page or (limit is not None and len(items) >= limit):
                break
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return items


def _no_model(model: str) -> ModelNotFound:
    return ModelNotFound(f"No model {model[:64]!r} is published.")


def _to_item(version: ModelVersion) -> Item:
    files = [[file.path, file.size, file.sha256] for file in version.files]
    item: Item = {
        "model": {"S": version.model},
        "version": {"N": str(version.version)},
        "digest": {"S": version.digest},
        "files": {"S": _json(files)},
        "signature": {"S": SignatureDocument.from_signature(version.signature).model_dump_json()},
        "placement": {"S": version.placement.value},
        "created_at": {"S": version.created_at},
        "metadata": {"S": _json(dict(version.metadata))},
    }
    if version.features is not None:
        features = FeaturesDocument.from_features(version.features)
        item["features"] = {"S": _json(features.model_dump(mode="json", exclude_none=True))}
    if version.pipeline is not None:
        pipeline = PipelineDocument.from_pipeline(version.pipeline)
        item["pipeline"] = {"S": _json(pipeline.model_dump(mode="json", exclude_none=True))}
    return item


def _features(item: Item, signature: Signature) -> ModelFeatures | None:
    if "features" not in item:
        return None
    return FeaturesDocument.model_validate_json(item["features"]["S"]).to_features(signature)


def _pipeline(item: Item) -> Pipeline | None:
    return PipelineDocument.model_validate_json(item["pipeline"]["S"]).to_pipeline() if "pipeline" in item else None


def _as_latest(item: Item) -> Item:
    """The copy of a version's item for the partition `#latest`."""
    name = item["model"]["S"]
    number = int.from_bytes(sha256(name.encode()).digest()[:15])  # at most 37 digits
    keys: Item = {"model": {"S": _LATEST}, "version": {"N": str(number)}}
    return {**item, **keys, "latest_model": {"S": name}, "latest_version": item["version"]}


def _from_item(item: Item) -> ModelVersion:
    """Read an item of either kind; InvalidPackage for one that this release cannot read."""
    model = item.get("latest_model", item["model"])["S"]
    number = item.get("latest_version", item["version"])["N"]
    try:
        signature = SignatureDocument.model_validate_json(item["signature"]["S"]).to_signature()
        return ModelVersion(
            model=model,
            version=int(number),
            digest=item["digest"]["S"],
            files=tuple(PackageFile(*file) for file in json.loads(item["files"]["S"])),
            signature=signature,
            placement=Placement(item["placement"]["S"]),
            created_at=item["created_at"]["S"],
            metadata=json.loads(item["metadata"]["S"]),
            features=_features(item, signature),
            pipeline=_pipeline(item),
        )
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        raise InvalidPackage(f"The registry entry of {model} version {number} cannot be read.") from error


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidPackage(f"The manifest holds what JSON cannot: {error}.") from None


def _size(item: Item) -> int:
    """Bytes of an item as DynamoDB counts them: names and values in UTF-8, a number at its longest."""
    return sum(len(name.encode()) + len(value.get("S", "9" * 21).encode()) for name, value in item.items())
