"""Batches: rows a second and memory of the real steps over a large CSV, against a bare loop over `session.run`.

    python -m benchmarks.batches [--rows 5000000] [--model tumor]

The file is made in a temporary folder. One worker process does plan, parts and finish as the function does; its stores
are this machine's files and memory, since it is the worker that is measured, not S3. Another process has the same rows
in memory and runs the graph over them, at the batch size that is best there. Each has one thread for ONNX Runtime. They
take turns, a part at a time, so that what else the machine does falls on both.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from time import perf_counter, time
from typing import Any, BinaryIO, Final

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.models import build, path_of
from examples.catalogue import DEFAULT_OUT, VERSION
from shared.adapters.function_backend import FunctionBackend
from shared.adapters.onnx.package import OnnxPackage
from shared.codecs.batch.ranges import FileRanges
from shared.domain.batch_ports import Later, StepRecord, Stored
from shared.domain.batches import BatchState, PartCounts, Progress, Step
from shared.domain.endpoint.config import EndpointConfig, EndpointState, StoredEndpoint
from shared.domain.endpoint.latency import Latencies
from shared.domain.errors import RevisionNotFound
from shared.domain.jobs import Claim, Job, JobProblem, JobRequest, ObjectRef, Outcome
from shared.domain.model import ModelVersion, Placement
from shared.domain.ports import Backend
from shared.usecases.end_batch import EndBatch
from shared.usecases.enrich import Enrich
from shared.usecases.finish_batch import FinishBatch
from shared.usecases.plan_batch import PlanBatch
from shared.usecases.predict_rows import PredictRows
from shared.usecases.read_ahead import SWITCH_S
from shared.usecases.route import Route
from shared.usecases.run_part import RunPart
from shared.usecases.run_target import RunTarget

_BLOCK: Final = 50_000
_COLUMNS: Final = 30
_SIZES: Final = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384)
_MIB: Final = 1024 * 1024
_LEAST_RATIO: Final = 0.7
_MOST_MIB: Final = 300
_TRIES: Final = 3
_ENDS_S: Final = 60.0
_ID: Final = f"{1:032x}"


def main() -> int:
    """Measure; 0 if the bounds of the project hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batches", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--model", default="tumor", help="an example, one of benchmarks.models, or a folder")
    parser.add_argument("--role", choices=("all", "worker", "bare"), default="all", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "worker":
        return _take_turns(_worker(options.folder))
    if options.role == "bare":
        return _take_turns(_bare(options.folder))
    with TemporaryDirectory(prefix="sluice-batches-") as folder:
        return _measure(Path(folder), options.rows, options.model)


def _measure(folder: Path, rows: int, model: str) -> int:
    _prepare(folder, rows, model)
    bare, worker = _Turns("bare", folder), _Turns("worker", folder)
    batch, plan = bare.next()["batch"], worker.next()
    seconds = {"bare": 0.0, "parts": 0.0}
    for _ in track(range(plan["parts"]), "Parts", console=Console(stderr=True), transient=True):
        part = worker.next()
        seconds["parts"] += part["s"]
        seconds["bare"] += bare.next(part["rows"])["s"]
    end = worker.next()
    bare.end()
    worker.end()
    rates = {name: end["rows"] / spent for name, spent in seconds.items()}
    ratio = rates["parts"] / rates["bare"]
    whole = end["rows"] / (plan["s"] + seconds["parts"] + end["s"])
    print(f"file            {end['rows']:,} rows, {plan['size'] / _MIB:,.0f} MiB, {plan['parts']} parts")
    print(f"bare loop       {rates['bare']:,.0f} rows/s at batches of {batch} (one thread, rows in memory)")
    print(f"plan            {plan['s']:.1f} s")
    print(f"parts           {rates['parts']:,.0f} rows/s: {ratio:.2f} of the bare loop, batches of {end['batch']}")
    print(f"finish          {end['s']:.1f} s")
    print(f"whole run       {whole:,.0f} rows/s: {whole / rates['bare']:.2f} of the bare loop")
    print(f"peak memory     {end['peak_mib']:.0f} MiB (before the first part {plan['peak_mib']:.0f} MiB)")
    return 0 if ratio >= _LEAST_RATIO and end["peak_mib"] <= _MOST_MIB else 1


def _prepare(folder: Path, rows: int, model: str) -> None:
    package = folder / "package"
    example = DEFAULT_OUT / model / str(VERSION)
    source = example if example.is_dir() else Path(model)
    if source.is_dir():
        package.mkdir()
        for path in source.iterdir():
            if path.is_file():
                copyfile(path, package / path.name)
    else:
        build([model])
        package.mkdir()
        copyfile(path_of(model), package / "model.onnx")
    block = np.round(np.random.default_rng(0).random((_BLOCK, _COLUMNS)) * 100, 4).astype(np.float32)
    np.save(folder / "block.npy", block)
    text = "\n".join(",".join(f"{value:.4f}" for value in row) for row in block.tolist()) + "\n"
    whole, rest = divmod(rows, _BLOCK)
    with (folder / "rows.csv").open("w") as file:
        for _ in range(whole):
            file.write(text)
        file.writelines(line + "\n" for line in text.splitlines()[:rest])


class _Turns:
    """A process that does its next piece of work when it is asked, and says what it was."""

    def __init__(self, role: str, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.batches", "--role", role, "--folder", str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def next(self, rows: int = 0) -> dict[str, Any]:
        """What the next piece took; `rows` says how many are wanted."""
        assert self._process.stdin is not None  # noqa: S101  # a pipe, as was asked
        assert self._process.stdout is not None  # noqa: S101  # likewise
        self._process.stdin.write(f"{rows}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended with {self._process.wait(_ENDS_S)}")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        """Wait until it has ended."""
        self._process.communicate(timeout=_ENDS_S)


def _take_turns(work: Generator[dict[str, Any], int, None]) -> int:
    """Do a piece for each line of the standard input, the first one included."""
    wanted: int | None = None
    for line in sys.stdin:
        try:
            found = next(work) if wanted is None else work.send(int(line))
        except StopIteration:
            break
        wanted = int(line)
        print(json.dumps(found), flush=True)
    return 0


def _bare(folder: Path) -> Generator[dict[str, Any], int, None]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder / "package" / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    block = np.load(folder / "block.npy")

    def spent(data: Any, batch: int) -> float:
        began = perf_counter()
        for start in range(0, len(data), batch):
            session.run(None, {name: data[start : start + batch]})
        return perf_counter() - began

    best = min(_SIZES, key=lambda batch: min(spent(block, batch) for _ in range(_TRIES)))
    wanted = yield {"batch": best}
    while True:
        rows = np.resize(block, (wanted, block.shape[1]))
        wanted = yield {"s": spent(rows, best)}


@dataclass
class _Stores:
    """Job store, batch store, queue, objects and dead letters of one job, on this machine."""

    folder: Path
    job: Job
    progress_: Progress = field(default_factory=lambda: Progress("queued"))
    messages: list[tuple[Step, int | None]] = field(default_factory=list)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    bucket: str = "local"

    def find(self, job_id: str) -> Job:
        del job_id
        return self.job

    def claim(self, job_id: str, owner: str, now: float, lease_s: float) -> Claim:
        del job_id, lease_s
        self.job = replace(self.job, state="running", owner=owner, started_at=now)
        self.progress_ = Progress("running")
        return Claim("claimed", self.job)

    def renew(self, *_: Any) -> bool:
        return True

    def requeue(self, job_id: str, owner: str | None, problem: JobProblem | None, due_at: float) -> bool:
        raise SystemExit(f"{job_id} of {owner} was put back until {due_at}: {problem}")

    def finish(self, job_id: str, outcome: Outcome, at: float, *, owner: str | None = None) -> bool:
        del job_id, at, owner
        self.job = replace(self.job, state=outcome.state, problem=outcome.problem, result=outcome.result)
        return True

    def progress(self, job_id: str) -> Progress:
        del job_id
        return self.progress_

    def planned(self, job_id: str, owner: str, batch: bytes, *, rows_total: int, **_: Any) -> bool:
        del job_id, owner
        self.job = replace(self.job, batch=batch, rows_total=rows_total)
        self.progress_ = Progress("running", planned=True, updated_at=time())
        return True

    def part_done(self, job_id: str, part: int, counts: PartCounts, *, now: float, due_at: float) -> Progress:
        del job_id, due_at
        before = self.progress_
        self.progress_ = replace(
            before,
            parts_done=before.parts_done | {part},
            rows_done=before.rows_done + counts.rows,
            rows_failed=before.rows_failed + counts.failed,
            updated_at=now,
        )
        return self.progress_

    def hold(self, *_: Any) -> bool:
        return True

    def let_go(self, *_: Any) -> None:
        return None

    def send(self, job: Any, step: Any, parts: Iterable[int] = ()) -> None:
        if isinstance(step, JobProblem):
            raise SystemExit(f"a dead letter of {job.job_id}: {step}")
        self.messages += [(step, part) for part in parts] if step == "part" else [(step, None)]

    def quiet(self) -> bool:
        return True

    def stat(self, ref: ObjectRef) -> Stored:
        path = self.folder / ref.key
        return Stored(ref, path.stat().st_size, "", "", path.stat().st_mtime, self.metadata.get(ref.key, {}))

    def ranges(self, stored: Stored) -> FileRanges:
        return FileRanges(self.folder / stored.ref.key)

    def of_key(self, key: str) -> Stored | None:
        return self.stat(ObjectRef(self.bucket, key)) if (self.folder / key).exists() else None

    def get(self, key: str, max_bytes: int) -> bytes | None:
        del max_bytes
        path = self.folder / key
        return path.read_bytes() if path.exists() else None

    def put_once(
        self, key: str, body: bytes | BinaryIO, media_type: str, metadata: Mapping[str, str] | None = None
    ) -> bool:
        self.metadata[key] = dict(metadata or {})
        self.put(key, body, media_type)
        return True

    def put(self, key: str, body: bytes | BinaryIO, media_type: str) -> None:
        self.write(key, [body] if isinstance(body, bytes) else iter(lambda: body.read(_MIB), b""), media_type, 0)

    def write(self, key: str, pieces: Iterable[bytes], media_type: str, size_hint: int) -> ObjectRef:
        del media_type, size_hint
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.writelines(pieces)
        return ObjectRef(self.bucket, key)

    def below(self, prefix: str) -> Iterator[Stored]:
        found = sorted((self.folder / prefix).glob("*")) if (self.folder / prefix).is_dir() else []
        return (self.stat(ObjectRef(self.bucket, str(path.relative_to(self.folder)))) for path in found)

    def remove(self, prefix: str) -> None:
        del prefix


class _Registry:
    """The registry of one model; it stands for the guards as well, of which there are none."""

    def __init__(self, version: ModelVersion) -> None:
        self._version = version

    def latest(self, model: str) -> ModelVersion:
        del model
        return self._version

    def get(self, model: str, number: int) -> ModelVersion:
        del model, number
        return self._version

    def open(self, *_: Any) -> None:
        return None


class _Loaded:
    """Packages of which one is loaded."""

    def __init__(self, package: OnnxPackage) -> None:
        self._package = package

    def get(self, version: ModelVersion) -> OnnxPackage:
        del version
        return self._package

    def ready(self, version: ModelVersion) -> bool:
        del version
        return True


class _Backends:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def get(self, name: str, config: EndpointConfig) -> Backend:
        del name, config
        return self._backend


class _Held:
    def keep(self, still_ours: Any) -> None:
        del still_ours

    def check(self) -> None:
        return None

    def left_s(self) -> float:
        return 800.0


def _no_revision(endpoint: str, revision: int) -> StoredEndpoint:
    raise RevisionNotFound(f"{endpoint} {revision}")


def _worker(folder: Path) -> Generator[dict[str, Any], int, None]:
    sys.setswitchinterval(SWITCH_S)  # as the function does
    package = OnnxPackage.load(folder / "package", threads=1, name="rows", version=1)
    version = ModelVersion("rows", 1, "0" * 64, (), package.signature, Placement.FUNCTION, "2026-11-21T00:00:00+00:00")
    registry: Any = _Registry(version)
    loaded = _Loaded(package)
    path = folder / "rows.csv"
    state = BatchState(source="s3://local/rows.csv", name="rows.csv", format="csv", size=path.stat().st_size)
    stores: Any = _Stores(
        folder,
        Job(
            job_id=_ID,
            kind="batch",
            tenant="acme",
            key_id="key",
            model="rows",
            request=JobRequest(None, {}, source=ObjectRef("local", "rows.csv")),
            created_at=time(),
            start_by=time() + 3600,
            expires_at=int(time()) + 3600,
            request_id="benchmark",
            batch=state.encode(),
        ),
    )
    latencies = Latencies()
    run_target = RunTarget(_Backends(FunctionBackend(loaded)), registry, latencies, ready=loaded.ready)
    route = Route(registry, latencies, lambda *_: 0.0)
    predict = PredictRows(lambda _: EndpointState(), _no_revision, route, run_target, Enrich(registry))
    end = EndBatch(stores, stores, stores, stores)
    held = _Held()
    began = perf_counter()
    _done(PlanBatch(stores, stores, stores, stores, predict, end)(_ID, held, StepRecord()), stores)
    run = RunPart(stores, stores, stores, stores, predict, end, lambda _: 0)
    parts = [part for step, part in stores.messages if step == "part"]
    yield {"s": perf_counter() - began, "size": state.size, "parts": len(parts), "peak_mib": _peak_mib()}
    for part in parts:
        before = stores.progress(_ID).rows_done
        began = perf_counter()
        _done(run(_ID, part or 0, 1, held, StepRecord()), stores)
        yield {"s": perf_counter() - began, "rows": stores.progress(_ID).rows_done - before}
    began = perf_counter()
    _done(FinishBatch(stores, stores, stores, predict, end, lambda _: 0)(_ID, 1, held, StepRecord()), stores)
    if stores.job.state != "succeeded":
        raise SystemExit(f"the batch {stores.job.state}: {stores.job.problem}")
    yield {
        "s": perf_counter() - began,
        "rows": stores.job.rows_total,
        "batch": next(iter(predict._paces.values())).rows(1 << 20),
        "peak_mib": _peak_mib(),
    }


def _done(later: Later | None, stores: _Stores) -> None:
    if later is not None or stores.job.state == "failed":
        raise SystemExit(f"a step did not end: {stores.job.problem}")


def _peak_mib() -> float:
    """The most memory that this process has had; `ru_maxrss` is in KiB on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
