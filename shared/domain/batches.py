"""Runs over files: what a job of kind `batch` knows beside what every job does, and where its objects are.

    plan ──▶ part 0 … part n-1 ──▶ finish

The plan cuts the input into parts and pins the version that runs them. What is between input and output lies below
`batch/work/<job_id>/`; each of those objects is written once, so a step that is made again finds what is done.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from shared.domain.batch_formats import FileType, Format
from shared.domain.endpoint.config import ENDPOINT_NAME
from shared.domain.errors import FieldError, InvalidRequest, ModelNotFound, SluiceError, SourceNotFound, TooManyErrors
from shared.domain.jobs import JobState, ObjectRef

Step = Literal["plan", "part", "finish"]

DROPS: Final = "batch/in/"
WORK: Final = "batch/work/"
OUT: Final = "batch/out/"
DEFAULT_ERROR_SHARE: Final = 0.01
# Of the object that is dropped, as S3 hands on the header `x-amz-meta-max-error-share`.
SHARE_METADATA: Final = "max-error-share"
# Their numbers are a set of the job's item, which may have 400 KB: 2,000 of them take some 10 KB.
MAX_PARTS: Final = 2000
MANIFEST_NAME: Final = "manifest.json"
ERRORS_NAME: Final = "errors.jsonl"
# So many errors are in the manifest itself; all of them are in an object beside it.
MAX_MANIFEST_ERRORS: Final = 1000
MAX_PART_ATTEMPTS: Final = 5
# A run in which nothing ends for so long is looked after by the sweep; parts may take as long as Lambda lets them.
DUE_S: Final = 120.0
# Below the visibility of messages (30 s) by more than one renewal: a killed worker's message finds its job free.
HOLD_S: Final = 20.0
STALLED_S: Final = 1200.0
_TIME_MASK: Final = (1 << 48) - 1
_MODEL: Final = re.compile(ENDPOINT_NAME)
_MAX_NAME: Final = 255


class BatchState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What only a batch knows, as the job's item has it (`Job.batch`).

    `name` is that of the file, and of the output. `format` and `packed` are None and False for a file of no known type.
    `size` is the input's in bytes. `parts` is None until the plan is made. `rows_failed` counts once the run has ended;
    `manifest` and `errors` are then keys in the data bucket.
    """

    source: str
    name: str
    format: Format | None = None
    packed: bool = False
    max_error_share: Annotated[float, Meta(ge=0, le=1)] = DEFAULT_ERROR_SHARE
    size: int = 0
    parts: int | None = None
    rows_failed: int = 0
    manifest: str | None = None
    errors: str | None = None

    @property
    def type(self) -> FileType | None:
        """The type of input and output."""
        return None if self.format is None else FileType(self.format, self.packed)

    @property
    def output_name(self) -> str:
        """The name of the output: the file's own, unless what lies beside the output is called so."""
        return f"output-{self.name}" if self.name == ERRORS_NAME else self.name

    def with_parts(self, parts: int) -> "BatchState":
        """The same once it is planned."""
        return msgspec.structs.replace(self, parts=parts)

    def encode(self) -> bytes:
        """As `Job.batch` has it."""
        return _encode(self)

    @classmethod
    def decode(cls, document: bytes | None) -> "BatchState":
        """Read back what `encode` wrote; ValueError for what it did not."""
        if document is None:
            raise ValueError("the job is not a batch")
        return _decode(document)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(BatchState).decode


def public(batch: bytes) -> dict[str, Any]:
    """What a job's document shows of its batch: the member `batch`."""
    state = BatchState.decode(batch)
    shown: dict[str, Any] = {
        "source": state.source,
        "format": state.format,
        "packed": state.packed,
        "max_error_share": state.max_error_share,
        "size": state.size,
        "parts": state.parts,
    }
    if state.manifest is not None:
        shown["rows_failed"] = state.rows_failed
        shown["manifest"] = True
        shown["errors"] = state.errors is not None
    return shown


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, as its job's item says; counts are those of finished parts.

    `updated_at` is when something of it ended last, in seconds since 1970.
    """

    state: JobState
    planned: bool = False
    parts_done: frozenset[int] = frozenset()
    rows_done: int = 0
    rows_failed: int = 0
    cost_nusd: int = 0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class PartCounts:
    """What came of a part; its output's object has them as metadata, so that whoever finds it can count it."""

    rows: int
    failed: int
    ms: int = 0
    cost_nusd: int = 0

    def metadata(self) -> dict[str, str]:
        """As an object carries it."""
        return {
            "rows": str(self.rows),
            "failed": str(self.failed),
            "ms": str(self.ms),
            "cost-nusd": str(self.cost_nusd),
        }

    @classmethod
    def of_metadata(cls, metadata: "dict[str, str]") -> "PartCounts":
        """Read back what `metadata` gave; KeyError or ValueError for what it did not."""
        return cls(int(metadata["rows"]), int(metadata["failed"]), int(metadata["ms"]), int(metadata["cost-nusd"]))


@dataclass(frozen=True, slots=True)
class Drop:
    """Who dropped a file, and for which model; `name` is the last part of its key."""

    tenant: str
    model: str
    name: str


def read_drop(key: str) -> Drop:
    """What the key `batch/in/<tenant>/<model>/<name>` says; InvalidRequest for one that has not that form.

    The name may have folders before it.
    """
    parts = key.removeprefix(DROPS).split("/")
    if not key.startswith(DROPS) or len(parts) < 3 or not all(parts):
        raise InvalidRequest(f"A file for a batch belongs under {DROPS}<tenant>/<model>/.")
    if len(parts[-1].encode()) > _MAX_NAME or any(part in (".", "..") for part in parts):
        raise InvalidRequest(f"A file's name has at most {_MAX_NAME} bytes, and no folder is '.' or '..'.")
    return Drop(parts[0], parts[1], parts[-1])


def tenant_of(key: str) -> str | None:
    """The tenant of a dropped file, also where the rest of its key is wrong."""
    tenant, slash, _ = key.removeprefix(DROPS).partition("/")
    return tenant if slash and tenant and key.startswith(DROPS) else None


def check_model(name: str) -> str:
    """The name of a model; ModelNotFound for what cannot be one."""
    if not _MODEL.fullmatch(name):
        raise ModelNotFound("A model's name has lower-case letters, digits and '._-', at most 64 of them.")
    return name


def batch_id(ref: ObjectRef, stored_at: float) -> str:
    """The id of the job for an object: the same whenever that is told of.

    It begins with the time at which the object was stored, so that jobs are listed in the order of time.
    """
    name = "\0".join((ref.bucket, ref.key, ref.version_id or ""))
    return f"{int(stored_at * 1000) & _TIME_MASK:012x}{sha256(name.encode()).hexdigest()[:20]}"


def read_share(text: str | None) -> float:
    """The share of wrong rows that a file's metadata declares; InvalidRequest for what is none."""
    if text is None:
        return DEFAULT_ERROR_SHARE
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:  # NaN is neither
        raise InvalidRequest(f"The metadata {SHARE_METADATA} is a number from 0 to 1.")
    return share


def too_many(failed: int, rows: int, share: float) -> bool:
    """Whether more of the run's rows are wrong than was declared; what rounding takes from the product counts not."""
    return failed > share * rows * (1 + 1e-12) + 1e-9


def too_many_errors(failed: int, rows: int, share: float) -> SluiceError:
    """The error of a run that ends for that."""
    return TooManyErrors(
        f"At least {failed} of {rows} rows are wrong, and the run bears a share of {share:g}: "
        "the manifest names the rows.",
        fields=[FieldError("/max_error_share", f"{failed} of {rows} rows are wrong")],
    )


def answers_later(model: str, backend: str) -> SluiceError:
    """The error of a run that would need an asynchronous backend."""
    return InvalidRequest(
        f"{model} runs on {backend}, which answers later: batches need a backend that answers at once. "
        "Choose a version of another variant."
    )


def plan_gone() -> SluiceError:
    """The error of a run whose plan is not there any more: cut anew, its parts would not be those that are done."""
    return SourceNotFound("What was done of the run is no longer kept: start it anew.")


def pin_key(job_id: str) -> str:
    """Where what runs a run is, chosen before its plan is made."""
    return f"{WORK}{job_id}/pin.json"


def plan_key(job_id: str) -> str:
    """Where a run's plan is."""
    return f"{WORK}{job_id}/plan.json"


def work_prefix(job_id: str, kind: Literal["in", "out", "errors"] | None = None) -> str:
    """What the keys of a run's work objects begin with: unpacked inputs, outputs, or errors; None: all of it."""
    return f"{WORK}{job_id}/" if kind is None else f"{WORK}{job_id}/{kind}/"


def part_key(job_id: str, kind: Literal["in", "out", "errors"], number: int) -> str:
    """The object of one part; keys sort by its number."""
    return f"{work_prefix(job_id, kind)}{number:05d}"


def part_number(key: str) -> int:
    """The part whose object this is."""
    return int(key.rpartition("/")[2])


def result_prefix(tenant: str, model: str, job_id: str) -> str:
    """What the keys of a run's results begin with."""
    return f"{OUT}{tenant}/{model}/{job_id}/"
