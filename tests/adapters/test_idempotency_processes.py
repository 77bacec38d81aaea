"""Exactly once with real processes: some are killed or frozen in the middle of their work."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shared.adapters.idempotency import PowertoolsIdempotency
from shared.domain.errors import IdempotencyInFlight
from shared.domain.idempotency import StoredAnswer
from tests.adapters.idempotency_worker import DIGEST, SCOPE
from tests.adapters.samples import unique
from tests.conftest import ROOT, LocalAws

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

PROCESSES = 4
CLIENTS = 32


class Worker:
    """A process of `idempotency_worker`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def tell(self, line: str = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def answers(self) -> list[Any]:
        found: list[Any] = json.loads(self.hear())
        return found


class Arena:
    """One key, and the workers that use it."""

    def __init__(self, local_aws: LocalAws, folder: Path) -> None:
        resources = local_aws.stack.resources
        self.url = local_aws.url
        self.table, self.bucket = resources["IdempotencyTable"].name, resources["DataBucket"].name
        self.key = unique("key")
        self.journal = folder / "journal"
        self.journal.touch()

    def effects(self) -> list[str]:
        return self.journal.read_text().split()

    @contextmanager
    def worker(self, *options: str, remaining_ms: int) -> Iterator[Worker]:
        command = [
            sys.executable, "-m", "tests.adapters.idempotency_worker",
            "--url", self.url, "--table", self.table, "--bucket", self.bucket, "--key", self.key,
            "--journal", str(self.journal), "--remaining-ms", str(remaining_ms), *options,
        ]  # fmt: skip
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
            try:
                yield Worker(process)
            finally:
                process.kill()


@pytest.fixture
def arena(local_aws: LocalAws, tmp_path: Path) -> Arena:
    return Arena(local_aws, tmp_path)


def test_32_clients_and_a_killed_function_have_one_execution_and_one_answer(arena: Arena) -> None:
    with ExitStack() as stack:
        victim = stack.enter_context(arena.worker("--hold", remaining_ms=2000))
        each = ["--clients", str(CLIENTS // PROCESSES)]
        workers = [stack.enter_context(arena.worker(*each, remaining_ms=20_000)) for _ in range(PROCESSES)]
        assert {worker.hear() for worker in (victim, *workers)} == {"ready"}

        victim.tell()
        assert victim.hear() == "working"
        for worker in workers:
            worker.tell()
        victim.process.kill()
        assert victim.process.wait(10) == -signal.SIGKILL

        answers = [answer for worker in workers for answer in worker.answers()]
    (effect,) = arena.effects()
    assert len(answers) == CLIENTS
    assert {(status, bytes.fromhex(content).decode()) for status, content, _ in answers} == {
        (200, f"{effect} {effect}")
    }
    assert sorted(replayed for _, _, replayed in answers) == [False] + [True] * (CLIENTS - 1)


def test_a_killed_function_frees_its_key_at_its_deadline_and_not_before(
    arena: Arena, dynamodb: "DynamoDBClient", s3: "S3Client"
) -> None:
    store = PowertoolsIdempotency(dynamodb, arena.table, lambda: s3, arena.bucket, 24)
    with arena.worker("--hold", remaining_ms=600_000) as victim:
        victim.tell()
        assert [victim.hear(), victim.hear()] == ["ready", "working"]
        victim.process.kill()
        victim.process.wait(10)
    with pytest.raises(IdempotencyInFlight):
        store.run(SCOPE, arena.key, DIGEST, 1000, lambda: pytest.fail("it ran before the deadline"))
    assert arena.effects() == []


def test_a_function_frozen_beyond_its_deadline_cannot_replace_the_newer_answer(
    arena: Arena, dynamodb: "DynamoDBClient", s3: "S3Client"
) -> None:
    store = PowertoolsIdempotency(dynamodb, arena.table, lambda: s3, arena.bucket, 24)
    newer = StoredAnswer(200, (("x-made-by", "newer"),), b"newer")
    with arena.worker("--hold", remaining_ms=0) as zombie:
        zombie.tell()
        assert [zombie.hear(), zombie.hear()] == ["ready", "working"]
        zombie.process.send_signal(signal.SIGSTOP)
        assert store.run(SCOPE, arena.key, DIGEST, 20_000, lambda: newer) == (newer, False)
        zombie.process.send_signal(signal.SIGCONT)
        zombie.tell("end")
        assert zombie.answers() == [[200, b"newer newer".hex(), True]]
        assert zombie.process.wait(10) == 0
    assert store.run(SCOPE, arena.key, DIGEST, 20_000, lambda: pytest.fail("it ran again")) == (newer, True)
