"""Anchors of the audit chain in an S3 bucket with object lock: `anchors/<shard>/<seq, 12 digits>.json`.

Object lock keeps every version of an object; it does not keep others from writing a newer one or from putting a delete
marker on top. So what counts is the oldest version, and that there are others is told.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.domain.audit import Anchor

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_WHAT = "The store of anchors"
_PREFIX = "anchors/"
_DIGITS = 12
_MAX_BYTES = 4096
# No more than the connections that a client keeps.
_PARALLEL = 8
# A page of S3's has a thousand keys.
_MAX_PAGES = 1000


class S3Anchors:
    """Implements `shared.domain.ports.AnchorStore`."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def shards(self) -> Sequence[str]:
        """One ListObjectVersions, so that a shard whose anchors are hidden by delete markers is seen."""
        with aws_errors(_WHAT):
            answer = self._client.list_object_versions(Bucket=self._bucket, Prefix=_PREFIX, Delimiter="/")
        return sorted(found["Prefix"].removeprefix(_PREFIX).rstrip("/") for found in answer.get("CommonPrefixes", []))

    def latest(self, shard: str, after: int) -> tuple[int, float] | None:
        """One ListObjectsV2 of at most a thousand keys. Raises BackendError."""
        with aws_errors(_WHAT):
            answer = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=f"{_PREFIX}{shard}/", StartAfter=_key(shard, max(after, 0))
            )
        for found in reversed(answer.get("Contents", [])):
            seq = _seq(shard, found["Key"])
            if seq is not None:
                return seq, found["LastModified"].timestamp()
        return None

    def add(self, anchor: Anchor) -> bool:
        """One PutObject on the condition that there is none, one GetObject where there is. Raises BackendError."""
        document = {"shard": anchor.shard, "seq": anchor.seq, "hash": anchor.hash, "time": anchor.time}
        with aws_errors(_WHAT):
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=_key(anchor.shard, anchor.seq),
                    Body=json.dumps(document, separators=(",", ":")).encode(),
                    ContentType="application/json",
                    ChecksumAlgorithm="SHA256",  # a bucket with object lock asks for a checksum
                    IfNoneMatch="*",
                )
            except ClientError as error:
                if error_code(error) not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                    raise
                # An attempt whose answer was lost has written it, too.
                return bool(self._read(_key(anchor.shard, anchor.seq)).get("hash") == anchor.hash)
        return True

    def of_shard(self, shard: str) -> Iterable[Anchor]:
        """One GetObject for each anchor, and one ListObjectVersions for a thousand. Raises BackendError."""
        from concurrent.futures import ThreadPoolExecutor  # for the one who checks, not for the one who writes

        with ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
            yield from pool.map(lambda found: self._first(shard, *found[:2], hidden=found[2]), self._versions(shard))

    def _first(self, shard: str, seq: int, versions: Sequence[Any], *, hidden: bool) -> Anchor:
        """The anchor as it was first written, of all its versions, the newest first."""
        # Of two from one second the order alone tells.
        oldest = min(reversed(versions), key=lambda version: version["LastModified"], default=None)
        if oldest is None:
            return Anchor(shard, seq, "", rewritten=True)
        found = self._read(oldest["Key"], oldest["VersionId"])
        digest = found.get("hash") if (found.get("shard"), found.get("seq")) == (shard, seq) else None
        return Anchor(
            shard,
            seq,
            digest if isinstance(digest, str) else "",
            str(found.get("time", "")),
            rewritten=hidden or len(versions) > 1,
        )

    def _versions(self, shard: str) -> Iterator[tuple[int, list[Any], bool]]:
        """For each anchor: its number, its versions, and whether it has a delete marker."""
        versions: dict[str, list[Any]] = {}
        markers: set[str] = set()
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": f"{_PREFIX}{shard}/"}
        for _ in range(_MAX_PAGES):
            with aws_errors(_WHAT):
                page = self._client.list_object_versions(**request)
            for version in page.get("Versions", []):
                versions.setdefault(version["Key"], []).append(version)
            markers.update(marker["Key"] for marker in page.get("DeleteMarkers", []))
            if not page.get("IsTruncated"):
                break
            request |= {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
        for key in sorted(versions.keys() | markers):
            seq = _seq(shard, key)
            if seq is not None:
                yield seq, versions.get(key, []), key in markers

    def _read(self, key: str, version: str | None = None) -> Any:
        """The document of an anchor; an empty one for what is none."""
        which: Any = {} if version is None else {"VersionId": version}
        with aws_errors(_WHAT):
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **which)
            with answer["Body"] as body:
                content = body.read(_MAX_BYTES)
        try:
            found = json.loads(content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _key(shard: str, seq: int) -> str:
    return f"{_PREFIX}{shard}/{seq:0{_DIGITS}d}.json"


def _seq(shard: str, key: str) -> int | None:
    """The segment whose anchor has this key; None for an object that is no anchor."""
    number = key.removeprefix(f"{_PREFIX}{shard}/").removesuffix(".json")
    return int(number) if len(number) == _DIGITS and number.isdecimal() and key == _key(shard, int(number)) else None
