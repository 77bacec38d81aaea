"""Two thousand jobs while workers are killed and messages come twice: `make soak`.

It starts a stack of its own, hands the jobs in, kills a worker every few seconds, sends each tenth message twice, and
ends with 1 unless every job has exactly one result, and the right one. Writes `report.md` into `build/soak`.
"""

import argparse
import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.soak.chaos import Chaos, Workers, endings, local_client
from benchmarks.soak.work import ROOT, Clients, Question, Submitted, keys_of, questions
from infra.local.home import Home, LocalStack
from infra.local.ports import Ports

_WORKER: Final = "JobWorkerFunction"
_POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a soak; `verdicts` counts the jobs by what came of them, `endings` by how often they ended.

    Times are in seconds; `peak_bytes` is the most memory that one worker took.
    """

    jobs: int
    submitted_s: float
    finished_s: float
    kills: int
    twice: int
    peak_bytes: int
    verdicts: Counter[str]
    endings: Counter[int]

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, and nothing was done twice."""
        return self.verdicts == Counter(right=self.jobs) and self.endings == Counter({1: self.jobs})

    def markdown(self) -> str:
        """The report."""
        rate = self.jobs / self.finished_s
        return "\n".join(
            [
                "| jobs | seconds | jobs/s | workers killed | messages sent twice | peak memory of a worker |",
                "|---|---|---|---|---|---|",
                f"| {self.jobs} | {self.finished_s:.1f} (handed in within {self.submitted_s:.1f}) | {rate:.1f} "
                f"| {self.kills} | {self.twice} | {self.peak_bytes / 1e6:.0f} MB |",
                "",
                f"What came of them: {dict(self.verdicts)}; how often each ended: {dict(self.endings)}.",
                "",
            ]
        )


async def soak(local: LocalStack, asked: list[Question], chaos: Chaos, every_twice: int, bar: Progress) -> Result:
    """Hand in the jobs, make trouble until all have ended, and look at each."""
    keys = await asyncio.to_thread(keys_of, local.api_url, local.admin_key)
    sqs = local_client("sqs", local.aws_endpoint_url)
    queue = local.outputs["JobsQueueUrl"]
    twice = 0
    shown = bar.add_task("handing in", total=len(asked))

    def taken(number: int, job: Submitted) -> None:
        nonlocal twice
        bar.advance(shown)
        if number % every_twice == 0:
            twice += 1
            sqs.send_message(QueueUrl=queue, MessageBody=f'{{"job_id":"{job.job_id}"}}', MessageGroupId=job.tenant)

    async with Clients(local.api_url, keys) as clients:
        with chaos.running():
            began = perf_counter()
            jobs = await clients.submit(asked, taken)
            submitted_s = perf_counter() - began
            bar.update(shown, description="working off", total=None)
            await clients.settled(_POLL_S)
            finished_s = perf_counter() - began
        bar.update(shown, description="looking at each")
        verdicts = await clients.verdicts(jobs)
    counts = await asyncio.to_thread(endings, local.aws_endpoint_url, local.outputs["JobsTableName"])
    return Result(
        jobs=len(asked),
        submitted_s=submitted_s,
        finished_s=finished_s,
        kills=chaos.kills,
        twice=twice,
        peak_bytes=chaos.peak_bytes,
        verdicts=Counter(verdicts.values()),
        endings=Counter(counts.get(job.job_id, 0) for job in jobs),
    )


@contextmanager
def own_stack() -> Iterator[LocalStack]:
    """A stack on free ports, in a temporary folder; nothing of it is left afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SLUICE_"))}
    command = str(Path(sys.executable).with_name("sluice"))
    with TemporaryDirectory(prefix="sluice-soak-") as folder:
        environment = {**kept, **Ports.free().environment(), "SLUICE_HOME": folder}
        subprocess.run([command, "up", "--detach"], env=environment, cwd=ROOT, check=True, timeout=200)
        try:
            local = Home(Path(folder)).read()
            if local is None:
                raise RuntimeError("The stack did not start.")
            yield local
        finally:
            subprocess.run([command, "down"], env=environment, cwd=ROOT, check=False, timeout=60)


def main() -> None:
    """Run, report, and end with 1 if a job was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--kill-every", type=float, default=3.0, help="seconds between two kills, about")
    parser.add_argument("--twice", type=int, default=10, help="each so many-th message is sent twice")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "soak")
    given = parser.parse_args()
    console = Console()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    with own_stack() as local, bar:
        chaos = Chaos(Workers(local.lambda_url, _WORKER), given.kill_every)
        result = asyncio.run(soak(local, questions(given.jobs), chaos, given.twice, bar))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "report.md").write_text(result.markdown())
    console.print(result.markdown(), markup=False)
    sys.exit(0 if result.sound else 1)


if __name__ == "__main__":
    main()
