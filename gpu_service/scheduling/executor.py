"""Who runs when: short batches on the event loop, longer ones in threads, fair between models.

A model's queue wakes the executor; all that one pass of the event loop brought is then one batch. Nobody waits for a
window: a batch grows only while there is nobody free to run it.
"""

import logging
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Thread
from time import monotonic

from gpu_service.execution.cancel import Cancel
from gpu_service.scheduling.model_queue import ModelQueue
from gpu_service.scheduling.run import BatchRun

_log = logging.getLogger(__name__)

# A batch of at most this length runs on the event loop: to a thread and back takes about as long as a short one.
INLINE_SECONDS = 0.002
# A run on the event loop that took this long was no short one after all: its model goes to the threads for a while.
_OVERRUN_SECONDS = 0.05
_BANISHED_SECONDS = 60.0
_SWEEP_SECONDS = 0.01


class Executor:
    """One for a container; belongs to the event loop."""

    def __init__(self, loop: AbstractEventLoop, *, cpus: int, gpu_callers: int = 0) -> None:
        self._loop = loop
        self._ready: list[ModelQueue] = []
        self._waking = False
        self._sweeping: TimerHandle | None = None
        self._waiting: set[ModelQueue] = set()
        self._cpu = Pool(self, loop, "cpu", cpus)
        self._gpu = Pool(self, loop, "gpu", gpu_callers) if gpu_callers else self._cpu
        self.pools = (self._cpu, self._gpu) if gpu_callers else (self._cpu,)

    def wake(self, queue: ModelQueue) -> None:
        """Run what waits in `queue`, once the event loop has read all that has arrived."""
        if queue.ready:
            return
        queue.ready = True
        self._ready.append(queue)
        if not self._waking:
            self._waking = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._waking = False
        ready, self._ready = self._ready, []
        for queue in ready:
            queue.ready = False
            try:
                self._run(queue)
            except Exception:  # noqa: BLE001 - logged; it must not spread
                # Whatever is wrong with one model, the others go on.
                _log.exception("a queue could not be run")

    def _run(self, queue: ModelQueue) -> None:
        rows = self._inline_rows(queue)
        if rows:
            self._run_inline(queue, rows)
        elif queue.fair:
            self._pool_of(queue).offer(queue)
            self._waiting.add(queue)
            self._sweep_soon()

    def _inline_rows(self, queue: ModelQueue) -> int:
        """How many rows may run on the event loop now; 0 if not even the smallest batch may."""
        batching = queue.batching
        if not batching.inline or queue.running_batches or monotonic() < queue.inline_from:
            return 0
        rows = min(queue.fair.rows, batching.max_rows)
        # 0 means that nothing is known of the model yet.
        while rows and not 0.0 < queue.cost.predict(rows) <= INLINE_SECONDS:
            rows //= 2
        return rows

    def _run_inline(self, queue: ModelQueue, rows: int) -> None:
        requests = queue.take(rows)
        if requests:
            run = BatchRun(queue.model, requests, wide=False, cancel=None)
            run.run()
            if run.run_seconds > _OVERRUN_SECONDS:
                queue.inline_from = monotonic() + _BANISHED_SECONDS
            self.finished(run)
        if queue.fair:
            self.wake(queue)  # the next pass: what has arrived for others comes first

    def finished(self, run: BatchRun) -> None:
        """Learn from a run and answer its requests."""
        queue = run.model.queue
        if run.run_seconds:
            if run.clean and not run.wide:
                queue.cost.observe(run.rows, run.run_seconds)
            done = [request for request in run.requests if request.error is None]
            began = run.run_began
            rows = sum(request.rows for request in done)
            queue.stats.batch(done, began, began + run.run_seconds, rows, began - run.started)
        queue.finished(run.requests)

    def running(self) -> Iterator[BatchRun]:
        """What runs in threads now."""
        for pool in self.pools:
            yield from pool.running

    def close(self) -> None:
        """End the threads once they have done what they are at."""
        for pool in self.pools:
            pool.close()
        if self._sweeping:
            self._sweeping.cancel()

    def _pool_of(self, queue: ModelQueue) -> "Pool":
        return self._gpu if queue.model.loaded.device == "gpu" else self._cpu

    def _sweep_soon(self) -> None:
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Answer those whose time is up, and stop the runs that nobody waits for."""
        self._sweeping = None
        now = monotonic()
        for queue in tuple(self._waiting):
            queue.sweep(now)
            if not queue.fair:
                self._waiting.discard(queue)
        running = list(self.running())
        for run in running:
            _stop_if_useless(run, now)
        if running or self._waiting:
            self._sweep_soon()


class Pool:
    """Threads for one kind of device: `slots` batches run at once, or one that uses all of it."""

    def __init__(self, executor: Executor, loop: AbstractEventLoop, name: str, slots: int) -> None:
        self._executor = executor
        self._loop = loop
        self.name = name
        self.slots = slots
        self._free = slots
        self._offered: list[ModelQueue] = []
        self._clock = 0.0
        self._work: SimpleQueue[BatchRun | None] = SimpleQueue()
        self.running: list[BatchRun] = []
        self._threads = [Thread(target=self._serve, name=f"{name}-{n}", daemon=True) for n in range(slots)]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> int:
        """Slots that are taken."""
        return self.slots - self._free

    def offer(self, queue: ModelQueue) -> None:
        """Run what waits in `queue` as soon as a thread is free."""
        if queue not in self._offered:
            # A model that was idle starts level with the others: it has saved up no time.
            queue.virtual_time = max(queue.virtual_time, self._clock)
            self._offered.append(queue)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._free and self._offered:
            able = [queue for queue in self._offered if queue.running_batches < queue.batching.callers]
            if not able:
                return
            queue = min(able, key=_virtual_time)
            self._clock = queue.virtual_time
            if not self._start(queue):
                self._offered.remove(queue)

    def _start(self, queue: ModelQueue) -> bool:
        """Begin the next batch; False if nothing waits."""
        waiting = len(queue.fair)
        wide = queue.batching.wide and self._free == self.slots and waiting == 1 and len(self._offered) == 1
        requests = queue.take(queue.fair.rows if wide else self._rows_for(queue))
        if not requests:
            return False
        run = BatchRun(queue.model, requests, wide=wide, cancel=Cancel())
        self._free -= self.slots if wide else 1
        self.running.append(run)
        self._work.put(run)
        return True

    def _rows_for(self, queue: ModelQueue) -> int:
        """The rows of the next batch: an equal share for each free caller, within what pays and what may be."""
        batching, waiting = queue.batching, queue.fair.rows
        callers = min(self._free, batching.callers - queue.running_batches)
        best = queue.cost.best_rows(min(waiting, batching.max_rows), queue.seconds_to_answer) if waiting else 1
        rows = min(-(-waiting // callers), best)
        while rows > 1 and queue.cost.predict(rows) > batching.max_seconds:
            rows //= 2
        return max(rows, 1)

    def _serve(self) -> None:
        while (run := self._work.get()) is not None:
            run.run()
            self._loop.call_soon_threadsafe(self._finish, run)

    def _finish(self, run: BatchRun) -> None:
        queue = run.model.queue
        slots = self.slots if run.wide else 1
        self._free += slots
        self.running.remove(run)
        queue.virtual_time += (monotonic() - run.started) * slots
        # The threads go on before the answers are written.
        queue.running_batches -= 1
        self._dispatch()
        queue.running_batches += 1
        self._executor.finished(run)

    def close(self) -> None:
        """Let the threads end."""
        for _ in self._threads:
            self._work.put(None)


def _virtual_time(queue: ModelQueue) -> float:
    return queue.virtual_time


def _stop_if_useless(run: BatchRun, now: float) -> None:
    useful = False
    for request in run.requests:
        if request.cancelled or request.deadline <= now:
            if not request.answered:
                run.model.queue.drop(request)
        else:
            useful = True
    if not useful and run.cancel is not None:
        run.cancel.terminate()
