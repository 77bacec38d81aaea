"""Which objects a tenant may have read, and what is known of them.

Whether an object is not there, is another tenant's, or in a bucket that nobody opened, is one and the same answer:
nothing is told of what a caller may not read.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import Final

from shared.domain.errors import MissingField, OutOfRange, SourceNotFound, UploadNotFound
from shared.domain.jobs import JOB_ID, ObjectRef
from shared.domain.plans import TENANT_NAME
from shared.domain.ports import ObjectStore
from shared.domain.uploads import KEPT_S, InputPrefix, Source, Upload, upload_key

# Where in the data bucket a tenant's own objects are, each below the tenant's name.
OWN: Final = ("uploads/", "batch/in/", "batch/out/", "jobs/out/")
_URI: Final = re.compile(r"s3://([^/]+)/(.+)", re.DOTALL)
# Source: Amazon S3 User Guide, "Naming Amazon S3 objects".
_MAX_KEY: Final = 1024
_VERSION: Final = re.compile(r"\?version-?id=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sources:
    """Finds what jobs and batches read, each with one HEAD.

    `bucket` is the data bucket. `prefixes` are places in other buckets where a tenant may read below its own name.
    """

    store: ObjectStore
    bucket: str
    prefixes: Sequence[InputPrefix] = ()
    now: Callable[[], float] = time

    def resolve(self, tenant: str, *, upload_id: str | None = None, s3_uri: str | None = None) -> Source:
        """The object that a request of `tenant` names, by exactly one of the two.

        Raises UploadNotFound, SourceNotFound, OutOfRange (`/s3_uri` is none), MissingField, BackendError.
        """
        if (upload_id is None) == (s3_uri is None):
            raise MissingField("Name the input by exactly one of upload_id and s3_uri.")
        if upload_id is not None:
            found = self.upload(tenant, upload_id)
            head, ref = found.head, self._upload_ref(tenant, upload_id)
            name = head.name or upload_id
        else:
            ref = self._allowed(tenant, s3_uri or "")
            head = self.store.head(ref)
            name = head.name if head.name and ref.key.startswith(OWN[0]) else ref.key.rpartition("/")[2]
        return Source(ObjectRef(ref.bucket, ref.key, head.version_id), head.size, head.media_type, name)

    def upload(self, tenant: str, upload_id: str) -> Upload:
        """An upload of the tenant whose content is there; UploadNotFound, BackendError."""
        ref = self._upload_ref(tenant, upload_id)
        try:
            head = self.store.head(ref)
        except SourceNotFound as error:
            raise _no_upload() from error
        expires_at = head.modified_at + KEPT_S
        if expires_at <= self.now():
            raise _no_upload()
        return Upload(upload_id, head, expires_at)

    def _upload_ref(self, tenant: str, upload_id: str) -> ObjectRef:
        if not re.fullmatch(TENANT_NAME, tenant) or not re.fullmatch(JOB_ID, upload_id):
            raise _no_upload()
        return ObjectRef(self.bucket, upload_key(tenant, upload_id))

    def _allowed(self, tenant: str, s3_uri: str) -> ObjectRef:
        """The object of a URI if it is below a place of the tenant."""
        found = _URI.fullmatch(s3_uri)
        if found is None:
            raise OutOfRange.at("/s3_uri", "must name an object, as in s3://bucket/key")
        bucket, key = found.groups()
        if _VERSION.search(key):
            raise OutOfRange.at("/s3_uri", "names a version: the newest one is read")
        allowed = any(bucket == place and key.startswith(prefix) for place, prefix in self._places(tenant))
        if not allowed or not _is_plain(key):
            raise SourceNotFound("There is no such object, or this tenant may not read it.")
        return ObjectRef(bucket, key)

    def _places(self, tenant: str) -> Sequence[tuple[str, str]]:
        """Buckets, and what keys there begin with; none for what can be no tenant."""
        if not re.fullmatch(TENANT_NAME, tenant):
            return ()
        own = [(self.bucket, f"{prefix}{tenant}/") for prefix in OWN]
        return own + [(place.bucket, f"{place.prefix}{tenant}/") for place in self.prefixes]


def _is_plain(key: str) -> bool:
    """Whether a key means what it looks like: no part of it is empty or one of dots, and it has no control characters.

    S3 takes keys as they are; proxies and file systems do not.
    """
    parts = key.split("/")
    return (
        not {"", ".", ".."} & set(parts) and key.isprintable() and len(key.encode("utf-8", "surrogatepass")) <= _MAX_KEY
    )


def _no_upload() -> UploadNotFound:
    return UploadNotFound("There is no such upload: its content has not arrived, or it has ended.")
