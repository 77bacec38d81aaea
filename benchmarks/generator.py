"""The load generator of `benchmarks/load`: compiled on first use, run as a process of its own.

Its file of requests holds segments that requests share, so thousands of distinct large requests take the room of few.
"""

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

ROOT = Path(__file__).parents[1]
SOURCES = Path(__file__).parent / "load"
OUT = ROOT / "build" / "bench"
BINARY = OUT / "load"
_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wno-sign-conversion")
CORES = len(os.sched_getaffinity(0))
INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Target:
    """Where requests go: a port of 127.0.0.1, and how they are framed."""

    port: int
    grpc: bool = False


@dataclass(frozen=True)
class Answer:
    """One sampled answer: to which request of the file, and what came back (gRPC: the message, without a head)."""

    request: int
    status: int
    head: bytes
    body: bytes


@dataclass(frozen=True)
class Pace:
    """How hard and how long; `rate` (requests a second) makes it an open loop. Times in seconds but `deadline_ms`.

    Requests in flight at the end are waited for as long as `grace`: left behind, they would burden the next run.
    """

    connections: int = 1
    seconds: float = 3.0
    warm_up: float = 1.0
    rate: float | None = None
    deadline_ms: float | None = None
    streams: int = 1
    grace: float = 10.0


@dataclass(frozen=True)
class Result:
    """What one run of the generator found; times in milliseconds, rates per second."""

    rps: float
    p50: float
    p90: float
    p99: float
    max: float
    generator_cpu: float
    raw: dict[str, Any] = field(repr=False)

    @property
    def failed(self) -> int:
        """Answers that were refusals or errors, and requests without one."""
        return int(self.raw["refused_ms"]["count"] + self.raw["errors"])


def build() -> Path:
    """The program, compiled if its sources are newer; SystemExit if there is no C compiler."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    if BINARY.exists() and BINARY.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return BINARY
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise SystemExit("The benchmarks need a C compiler for their load generator: install gcc or clang.")
    OUT.mkdir(parents=True, exist_ok=True)
    units = [str(source) for source in sources if source.suffix == ".c"]
    subprocess.run([compiler, *_FLAGS, "-o", str(BINARY), *units], check=True)
    return BINARY


class RequestFile:
    """Writes a file of requests: `blob` keeps bytes and says where they lie, `add` joins such pieces to a request."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces: list[bytes | memoryview] = []
        self._size = 0
        self._segments: list[tuple[int, int]] = []
        self._ends: list[int] = []

    def blob(self, data: bytes | memoryview) -> tuple[int, int]:
        """Offset and length of the bytes in the file."""
        segment = (self._size, len(data))
        self._pieces.append(data)
        self._size += len(data)
        return segment

    def add(self, segments: Sequence[tuple[int, int]]) -> None:
        """One request."""
        self._segments.extend(segments)
        self._ends.append(len(self._segments))

    def write(self) -> Path:
        """Write it in one move, so that a broken run leaves no half of it."""
        ends = np.array(self._ends, "<u4").tobytes()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(b"SLUICE01" + struct.pack("<II", len(self._ends), len(self._segments)))
            file.write(ends + bytes(-len(ends) % 8))
            file.write(np.array(self._segments, "<u8").tobytes())
            file.writelines(self._pieces)
        return part.replace(self._path)


def run(target: Target, requests: Path, pace: Pace, *, dump: Path | None = None, samples: int = 0) -> Result:
    """Offer load; raises CalledProcessError if the server cannot be reached or loses its connections."""
    command = [str(build()), "--port", str(target.port), "--requests", str(requests)]
    command += ["--connections", str(pace.connections), "--seconds", str(pace.seconds), "--warm-up", str(pace.warm_up)]
    command += ["--grace", str(pace.grace)]
    if target.grpc:
        command += ["--grpc", "--path", INFER, "--streams", str(pace.streams)]
        command += ["--timeout", f"{pace.deadline_ms:.0f}m"] if pace.deadline_ms else []
    if pace.rate is not None:
        command += ["--rate", f"{pace.rate:.3f}"]
    if pace.deadline_ms is not None:
        command += ["--deadline-ms", str(pace.deadline_ms)]
    if dump is not None:
        command += ["--dump", str(dump), "--dump-count", str(samples)]
    limit = pace.seconds + pace.warm_up + pace.grace + 30
    done = subprocess.run(command, capture_output=True, check=True, timeout=limit)
    raw = json.loads(done.stdout)
    good = raw["good_ms"]
    return Result(
        raw["answers_per_second"], good["p50"], good["p90"], good["p99"], good["max"], raw["generator_cpu"], raw
    )


def answers(dump: Path) -> Iterable[Answer]:
    """The answers that a run has sampled."""
    with dump.open("rb") as file:
        while head := file.read(16):
            request, status, head_length, body_length = struct.unpack("<4I", head)
            yield Answer(request, status, _exactly(file, head_length), _exactly(file, body_length))


def _exactly(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise ValueError("The file of sampled answers is truncated.")
    return data


@contextmanager
def responder(port: int, answer_bytes: int = 100) -> Iterator[Target]:
    """A server that answers at once without any work: against it, the generator shows its own ceiling."""
    command = [str(build()), "--serve", "--port", str(port), "--answer-bytes", str(answer_bytes)]
    with subprocess.Popen(command) as process:
        try:
            yield Target(port)
        finally:
            process.kill()
