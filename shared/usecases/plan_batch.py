"""The first step of a run over a file: what runs it is pinned, its input is cut into parts, and they are asked for."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from secrets import token_hex
from time import perf_counter, time
from typing import Final

from shared.codecs.batch.files import check_answer, inspect, part_writer, plan, read
from shared.codecs.batch.ranges import BytesRanges, Ranges
from shared.domain.batch_formats import Bounds, FileType, Layout, PartSpec
from shared.domain.batch_plan import MAX_BYTES, BatchPlan, Pin, encode, read_pin, read_plan
from shared.domain.batch_ports import BatchObjects, BatchQueue, BatchStore, Held, Later, StepRecord, Stopped
from shared.domain.batches import (
    DUE_S,
    HOLD_S,
    MAX_PARTS,
    STALLED_S,
    BatchState,
    Progress,
    part_key,
    part_number,
    pin_key,
    plan_gone,
    plan_key,
    work_prefix,
)
from shared.domain.errors import BackendError, InvalidRequest, JobCrashed, PayloadTooLarge, SluiceError
from shared.domain.jobs import MAX_ATTEMPTS, Job, JobProblem, backoff_s
from shared.domain.ports import JobStore
from shared.usecases.batch_results import JSON
from shared.usecases.end_batch import EndBatch
from shared.usecases.hashed_ranges import HashedRanges
from shared.usecases.predict_rows import Pinned, PredictRows, Running

_log = logging.getLogger(__name__)

# A part should take about so long: short enough to lose little with a killed worker, and to fit well into Lambda's
# 15 minutes; long enough that what surrounds it costs nothing.
_PART_S: Final = 45.0
BOUNDS: Final = Bounds(max_parts=MAX_PARTS)
_LEAST_ROWS: Final = 64
_PART_OUTPUT: Final = 64 * 1024 * 1024
# What is run beforehand, to know how fast the model is.
_TRIAL: Final = Bounds(target_rows=256, target_bytes=512 * 1024)
_TRIAL_S: Final = 5.0
_UNPACKED: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class PlanBatch:
    """Makes the plan of a job, or goes through it for what is left to do; one for each environment."""

    jobs: JobStore
    store: BatchStore
    objects: BatchObjects
    queue: BatchQueue
    predict: PredictRows
    end: EndBatch
    bounds: Bounds = BOUNDS
    now: Callable[[], float] = time

    def __call__(self, job_id: str, held: Held, record: StepRecord) -> Later | None:
        """Plan a job, unless that is done: then its missing parts are asked for again, or its end.

        Later where it is to be tried again. Raises BackendError where the stores fail.
        """
        progress = self.store.progress(job_id)
        if progress is None or progress.state not in ("queued", "running"):
            return None
        if progress.planned and progress.state == "running":
            self._resume(job_id, progress, record)
            return None
        owner = token_hex(8)
        claim = self.jobs.claim(job_id, owner, self.now(), HOLD_S)
        job = record.job = claim.job
        if claim.outcome == "claimed" and job is not None and job.kind == "batch":
            return self._claimed(job, owner, progress, held, record)
        # Somebody is at it, whose own message comes back: this one, as the sweep sends it for a plan that takes long,
        # would only come nearer to the dead letters each time.
        return None

    def _claimed(self, job: Job, owner: str, progress: Progress, held: Held, record: StepRecord) -> Later | None:
        held.keep(lambda: self.jobs.renew(job.job_id, owner, self.now() + HOLD_S, progress.rows_done))
        try:
            if job.attempts > MAX_ATTEMPTS:
                raise JobCrashed(f"The plan was begun {MAX_ATTEMPTS} times, and no worker came to its end.")
            made = self._stored(job)
            if made is None and progress.planned:
                raise plan_gone()
            made = made or self._make(job, held)
        except SluiceError as error:
            return self._failed(job, error, owner, record)
        except Stopped as stopped:
            if stopped.later:
                self.jobs.requeue(job.job_id, owner, None, self.now() + DUE_S)
            return Later(0.0) if stopped.later else None
        if progress.planned:  # a run that is made again goes on from what it has
            self.store.let_go(job.job_id, owner)
            self._resume(job.job_id, replace(progress, updated_at=0.0), record)
        else:
            self._begin(job, owner, made, record)
        return None

    def _failed(self, job: Job, error: SluiceError, owner: str, record: StepRecord) -> Later | None:
        record.error = error
        if not isinstance(error, BackendError) or job.attempts >= MAX_ATTEMPTS:
            self.end(job, error, owner=owner)
            return None
        delay_s = backoff_s(job.attempts)
        self.jobs.requeue(job.job_id, owner, JobProblem.of(error), self.now() + delay_s + DUE_S)
        return Later(delay_s)

    def _begin(self, job: Job, owner: str, made: BatchPlan, record: StepRecord) -> None:
        pin, at = made.pin, self.now()
        state = BatchState.decode(job.batch).with_parts(len(made.parts))
        record.version, record.variant, record.backend = pin.version, pin.variant, pin.backend
        begun = self.store.planned(
            job.job_id,
            owner,
            state.encode(),
            rows_total=made.rows,
            version=pin.version,
            variant=pin.variant,
            backend=pin.backend,
            now=at,
            due_at=at + DUE_S,
        )
        if begun:
            self.queue.send(job, "part", range(len(made.parts)))

    def _resume(self, job_id: str, progress: Progress, record: StepRecord) -> None:
        """Ask again for what has not ended, unless messages are on their way that may well stand for it."""
        job = record.job = self.jobs.find(job_id)
        made = None if job is None else self._stored(job)
        if job is None:
            return
        if made is None:
            record.error = plan_gone()
            self.end(job, record.error)
            return
        stalled = self.now() - progress.updated_at > STALLED_S
        if not stalled and not self.queue.quiet():
            return
        missing = [part.number for part in made.parts if part.number not in progress.parts_done]
        if missing:
            self.queue.send(job, "part", missing)
        else:
            self.queue.send(job, "finish")

    def _stored(self, job: Job) -> BatchPlan | None:
        found = self.objects.get(plan_key(job.job_id), MAX_BYTES)
        return None if found is None else read_plan(found)

    def _make(self, job: Job, held: Held) -> BatchPlan:
        """Cut the input, and store the plan; the one that is stored, should another worker have been first."""
        state = BatchState.decode(job.batch)
        kind, source = state.type, job.request.source
        if kind is None or source is None:
            raise InvalidRequest("The batch has no file of a type that batches read.")
        stored = self.objects.stat(source)
        ranges = HashedRanges(self.objects.ranges(stored))
        pin, layout = self._pinned(job, state, kind, ranges, held)
        parts = self._parts(job, ranges, layout, pin, held)
        for _ in ranges.rest():
            held.check()
        made = BatchPlan(
            pin=pin,
            layout=layout.to_json(),
            parts=tuple(parts),
            rows=sum(part.rows for part in parts),
            size=stored.size,
            sha256=ranges.sha256,
            etag=stored.etag,
        )
        if self.objects.put_once(plan_key(job.job_id), encode(made), JSON):
            return made
        return self._stored(job) or made

    def _pinned(self, job: Job, state: BatchState, kind: FileType, ranges: Ranges, held: Held) -> tuple[Pin, Layout]:
        """What runs the batch: as an attempt before this one chose it, so that the same parts are cut."""
        found = self.objects.get(pin_key(job.job_id), MAX_BYTES)
        if found is not None:
            pin = read_pin(found)
            pinned = self.predict.again(job.model, pin)
            return pin, inspect(ranges, kind, pinned.signature)
        pinned = self.predict.pin(job.model, job.request.version, job.tenant, job.key_id)
        check_answer(kind.format, pinned.signature, errors_allowed=state.max_error_share > 0)
        layout = inspect(ranges, kind, pinned.signature)
        held.check()
        target = pinned.target
        rows = self._part_rows(job, ranges, layout, pinned, held)
        pin = Pin(
            version=target.version.version,
            variant=target.variant,
            backend=target.backend,
            revision=pinned.revision,
            part_rows=rows,
        )
        if not self.objects.put_once(pin_key(job.job_id), encode(pin), JSON):
            return self._pinned(job, state, kind, ranges, held)
        return pin, layout

    def _parts(self, job: Job, ranges: Ranges, layout: Layout, pin: Pin, held: Held) -> list[PartSpec]:
        prefix = work_prefix(job.job_id, "in")
        # What an attempt before this one has unpacked need not be stored again: it is cut in the same way.
        there = {part_number(each.ref.key) for each in self.objects.below(prefix)} if layout.type.packed else set()

        def keep(number: int, content: bytes) -> None:
            held.check()
            if number not in there:
                self.objects.put_once(part_key(job.job_id, "in", number), content, _UNPACKED)

        bounds = replace(self.bounds, target_rows=pin.part_rows)
        parts: list[PartSpec] = []
        for part in plan(ranges, layout, bounds, keep if layout.type.packed else None):
            held.check()
            parts.append(part)
            if len(parts) > MAX_PARTS:
                raise PayloadTooLarge(f"The file has more than {MAX_PARTS} parts: cut it into several files.")
        return parts

    def _part_rows(self, job: Job, ranges: Ranges, layout: Layout, pinned: Pinned, held: Held) -> int:
        """Rows of a part, by how fast the first rows of the file are predicted and how much comes of them."""
        unpacked: list[bytes] = []
        trial = plan(ranges, layout, _TRIAL, lambda _, content: unpacked.append(content))
        part = next(trial, None)
        if part is None:
            return self.bounds.target_rows
        source: Ranges = BytesRanges(unpacked[0]) if unpacked else ranges
        written = BytesIO()
        writer = part_writer(written, layout, pinned.signature)
        running = Running(held, job)
        ended = perf_counter() + _TRIAL_S
        rate, count = 0.0, 0
        most = min(16, pinned.most_rows)
        for rows in read(source, layout, part, pinned.signature, most):
            began = perf_counter()
            for done, outputs in self.predict(pinned, rows, running):
                writer.write(done, outputs)
            count += rows.count
            # The best of several: the first one may have loaded the model.
            rate = max(rate, rows.count / max(perf_counter() - began, 1e-6))
            if perf_counter() > ended:
                break
        rate = max(rate, self.predict.rate(pinned))
        by_output = _PART_OUTPUT * count // max(1, written.tell())
        return min(self.bounds.target_rows, max(_LEAST_ROWS, min(int(rate * _PART_S), by_output)))
