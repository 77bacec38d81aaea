"""One part of a run over a file: its rows are read, predicted and written, and counted once."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from time import perf_counter, time
from typing import BinaryIO, Final, cast

import msgspec

from shared.codecs.batch.answers import PartWriter
from shared.codecs.batch.files import part_writer, read
from shared.codecs.batch.ranges import Ranges
from shared.codecs.batch.rows import Rows
from shared.domain.batch_formats import PartSpec
from shared.domain.batch_plan import MAX_BYTES, BatchPlan, read_plan
from shared.domain.batch_ports import BatchObjects, BatchQueue, BatchStore, Held, Later, StepRecord, Stopped
from shared.domain.batches import (
    DUE_S,
    MAX_PART_ATTEMPTS,
    BatchState,
    PartCounts,
    Progress,
    part_key,
    plan_gone,
    plan_key,
    too_many,
    too_many_errors,
)
from shared.domain.errors import BackendError, JobCrashed, SluiceError, SourceNotFound
from shared.domain.jobs import Job, backoff_s
from shared.domain.ports import JobStore
from shared.domain.tensors import Tensors
from shared.usecases.batch_results import JSON_LINES
from shared.usecases.end_batch import EndBatch
from shared.usecases.predict_rows import Pinned, PredictRows, Running
from shared.usecases.read_ahead import ReadAhead
from shared.usecases.write_behind import WriteBehind

# What is written is held in memory up to here, and beyond it in a file.
_IN_MEMORY: Final = 4 * 1024 * 1024
_PLANS: Final = 2
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Written:
    """What a part has brought so far; the files are closed by whoever opened them."""

    output: BinaryIO
    errors: BinaryIO
    rows: int = 0
    failed: int = 0


@dataclass(slots=True)
class RunPart:
    """Runs parts; one for each environment. `cost` gives what a step has cost so far, in 10⁻⁹ US dollars."""

    jobs: JobStore
    store: BatchStore
    objects: BatchObjects
    queue: BatchQueue
    predict: PredictRows
    end: EndBatch
    cost: Callable[[StepRecord], int]
    now: Callable[[], float] = time
    _plans: "OrderedDict[str, BatchPlan]" = field(default_factory=OrderedDict)

    def __call__(self, job_id: str, number: int, attempts: int, held: Held, record: StepRecord) -> Later | None:
        """Do a part unless it is done; `attempts` counts how often its message was received, this time included.

        Later where it is to be tried again. Raises BackendError where the stores fail.
        """
        job = record.job = self.jobs.find(job_id)
        progress = self.store.progress(job_id)
        if job is None or progress is None or progress.state != "running" or not progress.planned:
            return None
        try:
            made = self._plan(job)
        except SourceNotFound as error:
            return self._failed(job, error, attempts, record)
        if number in progress.parts_done:
            self._counted(job, made, progress, record)  # the message for what comes after may have been lost
        if number in progress.parts_done or not 0 <= number < len(made.parts):
            return None
        held.keep(lambda: self._still_runs(job_id))
        try:
            counts = self._there(job_id, number) or self._done(job, made, number, attempts, progress, held, record)
        except Stopped as stopped:
            return Later(0.0) if stopped.later else None
        except SluiceError as error:
            return self._failed(job, error, attempts, record)
        at = self.now()
        counted = self.store.part_done(job_id, number, counts, now=at, due_at=at + DUE_S)
        if counted is not None:
            self._counted(job, made, counted, record)
        return None

    def _failed(self, job: Job, error: SluiceError, attempts: int, record: StepRecord) -> Later | None:
        record.error = error
        if isinstance(error, BackendError) and attempts < MAX_PART_ATTEMPTS:
            return Later(backoff_s(attempts))
        self.end(job, error)
        return None

    def _counted(self, job: Job, made: BatchPlan, progress: Progress, record: StepRecord) -> None:
        """Have the run ended if this was its last part, or if too many rows are wrong by now."""
        share = BatchState.decode(job.batch).max_error_share
        if too_many(progress.rows_failed, made.rows, share):
            error = too_many_errors(progress.rows_failed, made.rows, share)
            record.error = error
            self.end(job, error)
        elif len(progress.parts_done) == len(made.parts):
            self.queue.send(job, "finish")

    def _still_runs(self, job_id: str) -> bool:
        progress = self.store.progress(job_id)
        return progress is not None and progress.state == "running"

    def _there(self, job_id: str, number: int) -> PartCounts | None:
        """What came of the part, if a worker before this one has written it and could not count it any more."""
        stored = self.objects.of_key(part_key(job_id, "out", number))
        return None if stored is None else PartCounts.of_metadata(dict(stored.metadata))

    def _done(
        self,
        job: Job,
        made: BatchPlan,
        number: int,
        attempts: int,
        progress: Progress,
        held: Held,
        record: StepRecord,
    ) -> PartCounts:
        """Do the part, and store its errors and then its output, which says that it is done."""
        if attempts > MAX_PART_ATTEMPTS:
            raise JobCrashed(f"Part {number} was begun {MAX_PART_ATTEMPTS} times, and no worker came to its end.")
        part = made.parts[number]
        began = perf_counter()
        pin = made.pin
        record.version, record.variant, record.backend = pin.version, pin.variant, pin.backend
        pinned = self.predict.again(job.model, pin)
        running = Running(held, job)
        with _spool() as output, _spool() as errors:
            written = _Written(output, errors)
            whole = self._run(made, part, pinned, progress, written, running)
            record.rows, record.failed = written.rows, written.failed
            record.bytes_in, record.bytes_out = part.length, output.tell()
            record.backend_ms = running.backend_ms
            key = part_key(job.job_id, "errors", part.number)
            if written.failed:
                errors.seek(0)
                self.objects.put(key, errors, JSON_LINES)
            elif self.objects.of_key(key) is not None:  # of an attempt that had no end, and of rows that are good now
                self.objects.remove(key)
            if not whole:
                share = BatchState.decode(job.batch).max_error_share
                raise too_many_errors(progress.rows_failed + written.failed, made.rows, share)
            held.check()
            ms = round((perf_counter() - began) * 1e3)
            counts = PartCounts(written.rows, written.failed, ms, self.cost(record))
            output.seek(0)
            key = part_key(job.job_id, "out", part.number)
            media_type = made.of_layout.type.media_type
            if self.objects.put_once(key, output, media_type, counts.metadata()):
                return counts
        return self._there(job.job_id, part.number) or counts

    def _run(
        self,
        made: BatchPlan,
        part: PartSpec,
        pinned: Pinned,
        progress: Progress,
        written: _Written,
        running: Running,
    ) -> bool:
        """Predict and write all rows; False where it has ended early, since the run has too many wrong ones."""
        job = running.job
        layout, bearable = made.of_layout, BatchState.decode(job.batch).max_error_share
        source = self._source(job, made, part)
        # The writer is closed in any case: Arrow's would do so by itself some time, when its file is closed already.
        with (
            closing(part_writer(written.output, layout, pinned.signature)) as writer,
            ReadAhead(read(source, layout, part, pinned.signature, pinned.read_rows)) as ahead,
            WriteBehind(lambda rows, outputs: _write(writer, written.errors, rows, outputs)) as behind,
        ):
            for rows in ahead:
                for done, outputs in self.predict(pinned, rows, running):
                    behind(done, outputs)
                    written.failed += len(done.errors)
                written.rows += rows.count
                if too_many(progress.rows_failed + written.failed, made.rows, bearable):
                    return False
        return True

    def _source(self, job: Job, made: BatchPlan, part: PartSpec) -> Ranges:
        source = job.request.source
        if made.of_layout.type.packed:
            unpacked = self.objects.of_key(part_key(job.job_id, "in", part.number))
            if unpacked is None:
                raise SourceNotFound(f"The unpacked part {part.number} is gone.")
            return self.objects.ranges(unpacked)
        if source is None:
            raise SourceNotFound("The batch has no file.")
        stored = self.objects.stat(source)
        if made.etag and stored.etag != made.etag:  # a bucket without versions: what was checked and cut is gone
            raise SourceNotFound("The file is another one than it was when the run was planned.")
        return self.objects.ranges(stored)

    def _plan(self, job: Job) -> BatchPlan:
        """The plan, which never changes; the last ones are kept."""
        kept = self._plans.get(job.job_id)
        if kept is None:
            stored = self.objects.get(plan_key(job.job_id), MAX_BYTES)
            if stored is None:
                raise plan_gone()
            kept = self._plans[job.job_id] = read_plan(stored)
            while len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        return kept


def _write(writer: PartWriter, errors: BinaryIO, rows: Rows, outputs: Tensors) -> None:
    writer.write(rows, outputs)
    errors.writelines(_encode(error.to_json()) + b"\n" for error in rows.errors)


def _spool() -> BinaryIO:
    return cast("BinaryIO", SpooledTemporaryFile(_IN_MEMORY))
