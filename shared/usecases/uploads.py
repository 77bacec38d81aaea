"""Uploads: where a caller's content goes to, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time

from shared.domain.errors import InsufficientScope
from shared.domain.jobs import ObjectRef, new_job_id
from shared.domain.ports import UploadAddresses
from shared.domain.principal import Principal
from shared.domain.uploads import NewUpload, Upload, UploadAddress, upload_key
from shared.usecases.sources import Sources


@dataclass(frozen=True, slots=True)
class Uploads:
    """What is done with a tenant's uploads; an address works for `url_s` seconds.

    Who may have anything predicted may upload: the scopes are `predict`, `predict:<model>` of any model, and `jobs`.
    """

    addresses: UploadAddresses
    sources: Sources
    bucket: str
    url_s: int
    now: Callable[[], float] = time

    def create(self, principal: Principal, new: NewUpload) -> UploadAddress:
        """An address that takes exactly this content, once; InsufficientScope, BackendError. Makes no AWS call."""
        _check(principal)
        now = self.now()
        upload_id = new_job_id(now)
        ref = ObjectRef(self.bucket, upload_key(principal.tenant, upload_id))
        url, headers = self.addresses.put_url(ref, new, self.url_s)
        return UploadAddress(upload_id, url, headers, now + self.url_s)

    def get(self, principal: Principal, upload_id: str) -> Upload:
        """An upload whose content is there; UploadNotFound, InsufficientScope, BackendError."""
        _check(principal)
        return self.sources.upload(principal.tenant, upload_id)


def _check(principal: Principal) -> None:
    if not any(scope in {"predict", "jobs"} or scope.startswith("predict:") for scope in principal.scopes):
        raise InsufficientScope("This needs a credential with the scope 'predict' or 'jobs'.")
