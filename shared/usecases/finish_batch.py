"""The last step of a run over a file: the parts' outputs are joined in the order of the input, and the job succeeds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from secrets import token_hex
from time import time

from shared.codecs.batch.files import join
from shared.domain.batch_plan import MAX_BYTES, BatchPlan, read_plan
from shared.domain.batch_ports import BatchObjects, BatchStore, Held, Later, StepRecord, Stopped, Stored
from shared.domain.batches import (
    HOLD_S,
    MAX_PART_ATTEMPTS,
    BatchState,
    Progress,
    part_number,
    plan_gone,
    plan_key,
    result_prefix,
    too_many,
    too_many_errors,
    work_prefix,
)
from shared.domain.errors import BackendError, JobCrashed, SluiceError
from shared.domain.jobs import Job, JobResult, Outcome, backoff_s
from shared.domain.ports import JobStore
from shared.usecases.batch_results import Output, write_manifest
from shared.usecases.end_batch import EndBatch
from shared.usecases.predict_rows import PredictRows


@dataclass(frozen=True, slots=True)
class FinishBatch:
    """Ends runs whose parts are done; one for each environment. `cost` gives what a step has cost so far."""

    jobs: JobStore
    store: BatchStore
    objects: BatchObjects
    predict: PredictRows
    end: EndBatch
    cost: Callable[[StepRecord], int]
    now: Callable[[], float] = time

    def __call__(self, job_id: str, attempts: int, held: Held, record: StepRecord) -> Later | None:
        """Join what there is of a job if all of its parts are done, and write what came of it.

        Later where it is to be tried again. Raises BackendError where the stores fail.
        """
        job = record.job = self.jobs.find(job_id)
        progress = self.store.progress(job_id)
        if job is None or progress is None or job.kind != "batch":
            return None
        if job.state == "succeeded":  # a worker before this one ended between the job's end and this
            self.objects.remove(work_prefix(job_id))
            return None
        if job.state != "running" or not progress.planned:
            return None
        stored = self.objects.get(plan_key(job_id), MAX_BYTES)
        if stored is None:
            record.error = plan_gone()
            self.end(job, record.error)
            return None
        made = read_plan(stored)
        if len(progress.parts_done) < len(made.parts):
            return None
        return self._held(job, made, progress, attempts, held, record)

    def _held(
        self, job: Job, made: BatchPlan, progress: Progress, attempts: int, held: Held, record: StepRecord
    ) -> Later | None:
        owner = token_hex(8)
        if not self.store.hold(job.job_id, owner, self.now(), HOLD_S):
            return None  # somebody is at it, whose own message comes back; the sweep asks for what is left
        held.keep(lambda: self.jobs.renew(job.job_id, owner, self.now() + HOLD_S, progress.rows_done))
        try:
            if attempts > MAX_PART_ATTEMPTS:
                raise JobCrashed(f"The end was begun {MAX_PART_ATTEMPTS} times, and no worker came to it.")
            self._finish(job, made, progress, owner, held, record)
        except Stopped as stopped:
            if not stopped.later:
                return None
            self.store.let_go(job.job_id, owner)
            return Later(0.0)
        except BackendError as error:
            record.error = error
            if attempts >= MAX_PART_ATTEMPTS:
                self.end(job, error, owner=owner)
                return None
            self.store.let_go(job.job_id, owner)
            return Later(backoff_s(attempts))
        except SluiceError as error:
            record.error = error
            self.end(job, error, owner=owner)
        return None

    def _finish(
        self, job: Job, made: BatchPlan, progress: Progress, owner: str, held: Held, record: StepRecord
    ) -> None:
        state, pin = BatchState.decode(job.batch), made.pin
        record.version, record.variant, record.backend = pin.version, pin.variant, pin.backend
        if too_many(progress.rows_failed, made.rows, state.max_error_share):
            raise too_many_errors(progress.rows_failed, made.rows, state.max_error_share)
        output = self._joined(job, made, state, held)
        record.bytes_out = output.size
        cost_nusd, at = progress.cost_nusd + self.cost(record), self.now()
        state = write_manifest(
            self.objects,
            job,
            state,
            plan=made,
            progress=progress,
            output=output,
            problem=None,
            at=at,
            cost_nusd=cost_nusd,
        )
        held.check()
        outcome = Outcome(
            "succeeded",
            result=JobResult(output.media_type, output.size, stored=output.ref),
            rows_total=made.rows,
            rows_done=progress.rows_done,
            version=pin.version,
            variant=pin.variant,
            backend=pin.backend,
            cost_nusd=cost_nusd,
            batch=state.encode(),
        )
        if self.jobs.finish(job.job_id, outcome, at, owner=owner):
            self.objects.remove(work_prefix(job.job_id))

    def _joined(self, job: Job, made: BatchPlan, state: BatchState, held: Held) -> Output:
        layout = made.of_layout
        parts = self._outputs(job, made)
        signature = self.predict.again(job.model, made.pin).signature
        pieces = join([self.objects.ranges(part) for part in parts], layout, signature, made.rows)

        def checked() -> Iterator[bytes]:
            for piece in pieces:
                held.check()
                yield piece

        key = result_prefix(job.tenant, job.model, job.job_id) + state.output_name
        ref = self.objects.write(key, checked(), layout.type.media_type, sum(part.size for part in parts))
        return Output(ref, layout.type.media_type, pieces.size, pieces.sha256)

    def _outputs(self, job: Job, made: BatchPlan) -> Sequence[Stored]:
        """The parts' outputs in order; BackendError if one is gone."""
        found = {part_number(each.ref.key): each for each in self.objects.below(work_prefix(job.job_id, "out"))}
        missing = [part.number for part in made.parts if part.number not in found]
        if missing:
            raise BackendError(f"The output of part {missing[0]} is gone.")
        return [found[part.number] for part in made.parts]
