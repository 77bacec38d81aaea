"""Issue, list, rotate and revoke credentials: API keys, and IAM roles or users that are bound to a tenant."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import time

from shared.domain import admin_bounds as bounds
from shared.domain.credentials import iam_key_id, new_key
from shared.domain.errors import Conflict, FieldError, KeyNotFound, OutOfRange, TenantNotFound, TextTooLong, pointer
from shared.domain.plans import DEFAULT_PLAN
from shared.domain.ports import ApiKey, KeyStore, TenantStore
from shared.domain.principal import SCOPE_PATTERN

IAM = "iam#"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; its `text` is known to nobody else, and kept nowhere."""

    text: str = field(repr=False)
    key: ApiKey


@dataclass(frozen=True, slots=True)
class ManageKeys:
    """What administrators do with credentials; `now` gives seconds since 1970.

    How many keys a tenant has is read before one is added: two calls at the same time may go one over the plan.
    """

    keys: KeyStore
    tenants: TenantStore
    pepper: Callable[[], bytes]
    now: Callable[[], float] = time

    def create(self, tenant: str, scopes: Iterable[str], *, name: str = "", expires_at: int | None = None) -> NewKey:
        """A new key; `expires_at` is in seconds since 1970, None is never.

        Raises TenantNotFound, OutOfRange, TextTooLong, Conflict if the tenant has as many usable keys as its plan
        allows, and BackendError.
        """
        granted = _checked_scopes(scopes)
        _check_name(name)
        now = int(self.now())
        _check_expiry(expires_at, now)
        self._check_room(tenant, now)
        made = NewKey(*new_key(tenant, granted, self.pepper(), name=name, expires_at=expires_at, now=now))
        self.keys.add(made.key)
        return made

    def get(self, key_id: str) -> ApiKey:
        """A key as it is stored. Raises KeyNotFound, BackendError."""
        found = self.keys.get(key_id)
        if found is None:
            raise KeyNotFound("There is no key with this id.")
        return found

    def of_tenant(self, tenant: str) -> Sequence[ApiKey]:
        """The keys of a tenant by id, those that have ended and are still stored included.

        Raises TenantNotFound, BackendError.
        """
        self._check_tenant(tenant)
        return sorted(self.keys.of_tenant(tenant), key=lambda key: key.key_id)

    def rotate(
        self, key_id: str, *, overlap_s: int = bounds.DEFAULT_OVERLAP_S, expires_at: int | None = None
    ) -> NewKey:
        """A new key with the tenant, scopes and name of an old one, which ends `overlap_s` seconds from now at most.

        Without `expires_at` the new key lives as long as the old one was to live. The plan's number of keys is not
        asked: who has as many as it allows must still be able to change them. Raises KeyNotFound, OutOfRange, Conflict
        for a key that has ended, was rotated before or has no secret, and BackendError.
        """
        if not 0 <= overlap_s <= bounds.MAX_OVERLAP_S:
            raise OutOfRange.at("/overlap_s", f"must be from 0 to {bounds.MAX_OVERLAP_S} (30 days)")
        now = int(self.now())
        _check_expiry(expires_at, now)
        old = self.get(key_id)
        _check_can_rotate(old, now)
        if expires_at is None and old.expires_at is not None:
            expires_at = now + min(old.expires_at - old.created_at, bounds.MAX_LIFETIME_S)
        made = NewKey(*new_key(old.tenant, old.scopes, self.pepper(), name=old.name, expires_at=expires_at, now=now))
        end = now + overlap_s
        self.keys.replace(key_id, made.key, end if old.expires_at is None else min(end, old.expires_at))
        return made

    def revoke(self, key_id: str) -> ApiKey:
        """End a key now; one that is revoked already stays as it is. Raises KeyNotFound, BackendError."""
        return self.keys.revoke(key_id, int(self.now()))

    def bind_role(self, arn: str, tenant: str, scopes: Iterable[str]) -> ApiKey:
        """Let an IAM role or user act for a tenant: what was bound before, revoked or not, is replaced.

        Raises TenantNotFound, OutOfRange, Conflict if the plan allows no more keys, and BackendError.
        """
        granted = _checked_scopes(scopes)
        key_id = role_key_id(arn)
        now = int(self.now())
        before = self.keys.get(key_id)
        if before is None or before.tenant != tenant or not _usable(before, now):
            self._check_room(tenant, now)
        bound = ApiKey(key_id=key_id, secret_hash="", tenant=tenant, scopes=granted, created_at=now)
        self.keys.bind(bound)
        return bound

    def _check_tenant(self, tenant: str) -> str:
        found = self.tenants.get(tenant)
        if found is None:
            raise TenantNotFound(
                f"There is no tenant {tenant[:63]!r}. Create it first: `sluice tenants create NAME` or "
                "POST /v1/admin/tenants."
            )
        return found.plan

    def _check_room(self, tenant: str, now: int) -> None:
        name = self._check_tenant(tenant)
        allowed = (self.tenants.plan(name) or DEFAULT_PLAN).max_keys
        taken = (key for key in self.keys.of_tenant(tenant) if _usable(key, now) and key.replaced_by is None)
        if len(list(islice(taken, allowed))) == allowed:
            raise Conflict(
                f"The tenant {tenant} has {allowed} usable keys, as many as its plan {name} allows: revoke one first."
            )


def role_key_id(arn: str) -> str:
    """The key id of an IAM role or user; OutOfRange for any other ARN.

    A role is known by its name alone, since the session of an assumed role does not tell its path; a user by its whole
    ARN.
    """
    # A session is no role: who binds one means its role, and should say so.
    key_id = None if ":assumed-role/" in arn else iam_key_id(arn)
    if key_id is None:
        raise OutOfRange.at(
            "/arn", "must be the ARN of an IAM role or user, such as arn:aws:iam::123456789012:role/caller"
        )
    return key_id


def _usable(key: ApiKey, now: int) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)


def _checked_scopes(scopes: Iterable[str]) -> frozenset[str]:
    wanted = list(islice(scopes, bounds.MAX_SCOPES + 1))
    if not 0 < len(wanted) <= bounds.MAX_SCOPES:
        raise OutOfRange.at("/scopes", f"must hold 1 to {bounds.MAX_SCOPES} scopes")
    wrong = [place for place, scope in enumerate(wanted) if not re.fullmatch(SCOPE_PATTERN, scope)]
    if wrong:
        known = "predict, predict:<model>, ingest, jobs, webhooks, models:write, admin"
        fields = [FieldError(pointer("/scopes", place), f"is none of {known}") for place in wrong[:8]]
        raise OutOfRange(f"{wanted[wrong[0]][:80]!r} is no scope: there are {known}.", fields=fields)
    return frozenset(wanted)


def _check_name(name: str) -> None:
    if len(name) > bounds.MAX_KEY_NAME:
        raise TextTooLong.at("/name", f"must have at most {bounds.MAX_KEY_NAME} characters")


def _check_expiry(expires_at: int | None, now: int) -> None:
    if expires_at is not None and not now < expires_at <= now + bounds.MAX_LIFETIME_S:
        raise OutOfRange.at("/expires_at", "must lie in the future, at most ten years away")


def _check_can_rotate(key: ApiKey, now: int) -> None:
    if key.key_id.startswith(IAM):
        raise Conflict("An IAM role or user has no secret that could be rotated.")
    if key.revoked_at is not None:
        raise Conflict("The key is revoked: create a new one.")
    if key.expires_at is not None and key.expires_at <= now:
        raise Conflict("The key has expired: create a new one.")
    if key.replaced_by is not None:
        raise Conflict(f"The key was rotated before: {key.replaced_by} is in its place.")
