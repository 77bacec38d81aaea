"""Read and change the configurations of endpoints, one revision at a time."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time

from shared.domain.admin_bounds import MAX_NOTE
from shared.domain.endpoint.changes import Change, changes
from shared.domain.endpoint.checks import problems_of
from shared.domain.endpoint.config import ENDPOINT_NAME, EndpointConfig, StoredEndpoint
from shared.domain.endpoint.shares import Versions, with_shares
from shared.domain.endpoint.version_checks import problems_with_version
from shared.domain.errors import FieldError, NotFound, OutOfRange, PreconditionFailed, TextTooLong, pointer
from shared.domain.field_errors import refused
from shared.domain.model import ModelVersion
from shared.domain.ports import BackendKinds, EndpointStore, ModelRegistry

Changed = tuple[StoredEndpoint, Sequence[Change]]
"""What is in force, or would be, and how it differs from what was before."""


def check_name(endpoint: str) -> None:
    """Raise NotFound for what no endpoint can be called."""
    if not re.fullmatch(ENDPOINT_NAME, endpoint):
        raise NotFound("An endpoint's name has lower-case letters, digits and '._-', at most 64 of them.")


@dataclass(frozen=True, slots=True)
class ManageEndpoints:
    """What administrators do with endpoints; `now` gives seconds since 1970.

    Configurations are held against what is published; a configuration may come before its model. Every change takes
    `expected`, the revision that it was made from (0: none is stored; None: whatever is there), the id of who makes it
    (`by`) and a note, and with `dry_run` changes nothing.
    """

    endpoints: EndpointStore
    kinds: BackendKinds
    models: ModelRegistry
    now: Callable[[], float] = time

    def get(self, endpoint: str) -> StoredEndpoint:
        """What holds for an endpoint: the defaults, as revision 0, as long as nothing is stored.

        Raises NotFound for what no endpoint can be called, BackendError.
        """
        check_name(endpoint)
        return self.endpoints.get(endpoint) or StoredEndpoint(EndpointConfig(endpoint), 0, 0)

    def list(self) -> Sequence[StoredEndpoint]:
        """Everything that is stored, by name. Raises BackendError."""
        return self.endpoints.list()

    def put(
        self, config: EndpointConfig, *, expected: int | None, by: str, note: str = "", dry_run: bool = False
    ) -> Changed:
        """Replace a configuration; what changes nothing makes no revision.

        Raises NotFound, PreconditionFailed, OutOfRange for what does not fit together, TextTooLong, BackendError.
        """
        return self._put(self._current(config.endpoint, expected), config, by, note, dry_run)

    def history(self, endpoint: str, *, limit: int = 20, before: int | None = None) -> Sequence[StoredEndpoint]:
        """The last revisions below `before`, the newest first. Raises NotFound, BackendError."""
        check_name(endpoint)
        return self.endpoints.history(endpoint, limit=limit, before=before)

    def revision(self, endpoint: str, revision: int) -> StoredEndpoint:
        """One of the revisions that are kept. Raises RevisionNotFound, BackendError."""
        return self.endpoints.revision(endpoint, revision)

    def rollback(
        self,
        endpoint: str,
        revision: int,
        *,
        expected: int | None,
        by: str,
        note: str = "",
        dry_run: bool = False,
    ) -> Changed:
        """A new revision with the content of an old one. Raises RevisionNotFound, and what `put` raises."""
        current = self._current(endpoint, expected)
        old = self.endpoints.revision(endpoint, revision)
        return self._put(current, old.config, by, note or f"Back to revision {revision}", dry_run)

    def traffic(
        self,
        endpoint: str,
        shares: Mapping[str, float],
        *,
        expected: int | None,
        by: str,
        note: str = "",
        dry_run: bool = False,
    ) -> Changed:
        """Give versions, labels or variants shares (0 to 1) of the traffic; the others get the rest as before.

        Raises VersionNotFound, and what `put` raises; see `shared.domain.endpoint.shares.with_shares`.
        """
        current = self._current(endpoint, expected)
        numbers = {version.version for version in self._published(endpoint)}
        config = with_shares(current.config, shares, Versions(numbers.__contains__, max(numbers, default=None)))
        return self._put(current, config, by, note, dry_run)

    def _current(self, endpoint: str, expected: int | None) -> StoredEndpoint:
        current = self.get(endpoint)
        if expected not in (None, current.revision):
            raise PreconditionFailed(
                f"{endpoint} has revision {current.revision}, and not {expected}: read it again, and change what it is "
                "now."
            )
        return current

    def _put(
        self,
        current: StoredEndpoint,
        config: EndpointConfig,
        by: str,
        note: str,
        dry_run: bool,
    ) -> Changed:
        if len(note) > MAX_NOTE:
            raise TextTooLong.at("/note", f"must have at most {MAX_NOTE} characters")
        problems = [*problems_of(config), *self._problems_of_backends(config)]
        problems = problems or [*self._problems_with_models(config)]
        if problems:
            raise refused(OutOfRange, problems)
        plan = changes(current.config if current.revision else None, config)
        if not plan:
            return current, plan
        stored = StoredEndpoint(config, current.revision + 1, int(self.now()), by, note)
        if not dry_run:
            self.endpoints.put(stored)
        return stored, plan

    def _problems_of_backends(self, config: EndpointConfig) -> Sequence[FieldError]:
        return [
            FieldError(pointer("/backends", name) + problem.pointer, problem.detail)
            for name, choice in config.backends.items()
            for problem in self.kinds.problems(choice.kind, choice.options)
        ]

    def _published(self, endpoint: str) -> Sequence[ModelVersion]:
        """The versions of the endpoint's model; none if nothing has its name."""
        try:
            return self.models.versions(endpoint)
        except NotFound:
            return ()

    def _problems_with_models(self, config: EndpointConfig) -> Sequence[FieldError]:
        """What the model's versions do not have; a model of which none is published may come later."""
        known = self._published(config.endpoint)
        if not known:
            return []
        by_number = {version.version: version for version in known}
        problems = [
            FieldError(pointer("/labels", name), f"{config.endpoint} has no version {number}")
            for name, number in config.labels.items()
            if number not in by_number
        ]
        served: dict[int, ModelVersion] = {}
        for place, variant in enumerate(config.variants):
            wanted = variant.version if variant.version is not None else max(by_number)
            number = config.labels.get(wanted) if isinstance(wanted, str) else wanted
            if number in by_number:
                served[number] = by_number[number]
            elif isinstance(wanted, int):
                where = pointer("/variants", place, "version")
                problems.append(FieldError(where, f"{config.endpoint} has no version {wanted}"))
        for version in served.values():
            found = problems_with_version(config, version.signature)
            problems += [FieldError(p.pointer, f"{p.detail} (version {version.version})") for p in found]
        return problems
