"""What the use cases of batches need from the outside, beside the ports of jobs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from shared.domain.batch_formats import Ranges
from shared.domain.batches import PartCounts, Progress, Step
from shared.domain.errors import SluiceError
from shared.domain.jobs import Job, ObjectRef


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it is there; `stored_at` is in seconds since 1970, names of metadata are in lower case."""

    ref: ObjectRef
    size: int
    media_type: str
    etag: str
    stored_at: float
    metadata: Mapping[str, str]


class BatchStore(Protocol):
    """What a run adds to its job's item. Every change is one conditional write; raises BackendError."""

    def progress(self, job_id: str) -> Progress | None:
        """How far a run is; None if there is no such job."""

    def planned(
        self,
        job_id: str,
        owner: str,
        batch: bytes,
        *,
        rows_total: int,
        version: int,
        variant: str,
        backend: str,
        now: float,
        due_at: float,
    ) -> bool:
        """Begin with the parts, none of them done, and let go of the job; False if it is not the owner's any more."""

    def part_done(self, job_id: str, part: int, counts: PartCounts, *, now: float, due_at: float) -> Progress | None:
        """Count a part, once however often it is told; None if the job is not running any more."""

    def hold(self, job_id: str, owner: str, now: float, lease_s: float) -> bool:
        """Take a running job that nobody holds, for its last step."""

    def let_go(self, job_id: str, owner: str) -> None:
        """Hold a job no longer; nothing happens if it is not the owner's."""


class BatchObjects(Protocol):
    """The objects of runs in the data bucket, and their sources wherever they are; raises BackendError."""

    @property
    def bucket(self) -> str:
        """The data bucket."""

    def stat(self, ref: ObjectRef) -> Stored:
        """What is there; SourceNotFound."""

    def ranges(self, stored: Stored) -> Ranges:
        """The content of a source, in pieces; SourceNotFound if it is another by now."""

    def of_key(self, key: str) -> Stored | None:
        """An object of the data bucket, None if there is no such one."""

    def get(self, key: str, max_bytes: int) -> bytes | None:
        """The content of a small object of the data bucket, None if there is no such one; PayloadTooLarge."""

    def put_once(
        self, key: str, body: bytes | BinaryIO, media_type: str, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """Store an object; False if there is one under this key, which stays."""

    def put(self, key: str, body: bytes | BinaryIO, media_type: str) -> None:
        """Store an object, in place of what is there."""

    def write(self, key: str, pieces: Iterable[bytes], media_type: str, size_hint: int) -> ObjectRef:
        """Store what comes in pieces, without ever having all of it; the object is there once it is whole."""

    def below(self, prefix: str) -> Iterator[Stored]:
        """The objects of the data bucket whose keys begin so, in the order of their keys; without their metadata."""

    def remove(self, prefix: str) -> None:
        """Delete all objects below a prefix."""


class BatchQueue(Protocol):
    """Where the steps of runs wait for a worker."""

    def send(self, job: Job, step: Step, parts: Iterable[int] = ()) -> None:
        """Ask for a step, for `part` of each of these; the tenants take turns. Raises BackendError."""

    def quiet(self) -> bool:
        """Whether no message waits, and none but the caller's own is being worked on."""


class Held(Protocol):
    """A step's hold on its message while it runs."""

    def keep(self, still_ours: Callable[[], bool]) -> None:
        """Ask this from time to time, on another thread; the step is to end once it is answered with False."""

    def check(self) -> None:
        """Raise `Stopped` if the step is to end here."""

    def left_s(self) -> float:
        """Seconds that the step may take from now on."""


class Stopped(Exception):
    """The step ends where it is: its job was cancelled (or ended otherwise), or the worker has no time left.

    `later` says that it is to be done again by whoever gets the message next.
    """

    def __init__(self, reason: str, *, later: bool) -> None:
        super().__init__(reason)
        self.later = later


@dataclass(frozen=True, slots=True)
class Later:
    """A step is to be tried again in so many seconds."""

    delay_s: float


@dataclass(slots=True)
class StepRecord:
    """What a step tells of itself for the log, of which usage and cost are made.

    `rows` is None where none were predicted; `error` is what it ended with, or is tried again for.
    """

    job: Job | None = None
    version: int | None = None
    variant: str | None = None
    backend: str | None = None
    rows: int | None = None
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    backend_ms: float = 0.0
    error: SluiceError | None = None
