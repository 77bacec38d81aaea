"""Write and read the features of entities, for administrators and the jobs that compute features."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time

from shared.domain.errors import BackendUnavailable, BatchTooLarge, InvalidRequest, NotFound, OutOfRange, TenantNotFound
from shared.domain.features import SET_NAME, EntityKey, FeatureRecord
from shared.domain.new_features import MAX_WRITTEN, NewFeatures, NotStored, check_entity, record_of
from shared.domain.plans import TENANT_NAME
from shared.domain.ports import FeatureStore, TenantStore


@dataclass(frozen=True, slots=True)
class ManageFeatures:
    """What is done with the features of a tenant's entities; `now` gives seconds since 1970."""

    store: FeatureStore
    tenants: TenantStore
    now: Callable[[], float] = time

    def put(self, tenant: str, set_: str, new: NewFeatures) -> FeatureRecord:
        """Store the features of one entity, in place of those that it has in the set.

        Raises TenantNotFound, InvalidRequest with the place that is wrong (`/features/<name>`, `/entity`, `/at`,
        `/expires_at`, `/set`), BackendError.
        """
        self._check(tenant, set_)
        record = record_of(set_, new, self.now())
        if self.store.put(tenant, [record]):
            raise _busy()
        return record

    def put_many(self, tenant: str, set_: str, rows: Sequence[NewFeatures]) -> Sequence[NotStored]:
        """Store the features of at most `MAX_WRITTEN` entities; those that could not be stored, by their place.

        What is wrong with one of them keeps none of the others. Of several for one entity the last one counts. The same
        rows may be stored again. Raises TenantNotFound, OutOfRange, BatchTooLarge, BackendError if nothing was stored.
        """
        if len(rows) > MAX_WRITTEN:
            raise BatchTooLarge.at("/entities", f"holds {len(rows)} entities; at most {MAX_WRITTEN} are stored at once")
        self._check(tenant, set_)
        now = self.now()
        failed: list[NotStored] = []
        records: list[tuple[int, FeatureRecord]] = []
        for index, row in enumerate(rows):
            try:
                records.append((index, record_of(set_, row, now)))
            except InvalidRequest as error:
                failed.append(NotStored(index, row.entity, error))
        left = set(self.store.put(tenant, [record for _, record in records])) if records else set()
        failed += [NotStored(index, record.key.entity, _busy()) for index, record in records if record.key in left]
        return sorted(failed, key=lambda each: each.index)

    def get(self, tenant: str, set_: str, entity: str) -> FeatureRecord:
        """The features of an entity. Raises TenantNotFound, OutOfRange, NotFound, BackendError."""
        key = self._key(tenant, set_, entity)
        found = self.store.get(tenant, key)
        if found is None or (found.expires_at is not None and found.expires_at <= self.now()):
            raise _nothing(key)
        return found

    def delete(self, tenant: str, set_: str, entity: str) -> FeatureRecord:
        """Remove the features of an entity. Raises TenantNotFound, OutOfRange, NotFound, BackendError."""
        key = self._key(tenant, set_, entity)
        removed = self.store.delete(tenant, key)
        if removed is None:
            raise _nothing(key)
        return removed

    def _key(self, tenant: str, set_: str, entity: str) -> EntityKey:
        self._check(tenant, set_)
        check_entity(entity)
        return EntityKey(set_, entity)

    def _check(self, tenant: str, set_: str) -> None:
        if not re.fullmatch(SET_NAME, set_):
            raise OutOfRange.at("/set", "must be lower-case letters, digits and '._-', at most 64, none of '._-' first")
        if not re.fullmatch(TENANT_NAME, tenant) or self.tenants.get(tenant) is None:
            raise TenantNotFound(f"There is no tenant {tenant[:63]!r}.")


def _nothing(key: EntityKey) -> NotFound:
    return NotFound(f"There are no features of {key.entity!r} in the set {key.set!r}.")


def _busy() -> BackendUnavailable:
    return BackendUnavailable("The feature store cannot take the request now.", retry_after_s=1)
