import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from infra.local.processes import spawn, stop

ROOT = Path(__file__).parents[2]

PARENT = """
import asyncio, sys
from pathlib import Path
from infra.local.processes import spawn

async def main():
    child = await spawn([sys.executable, "-c", "import time; time.sleep(60)"], env={}, cwd=Path("."))
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(child)


def test_a_child_leads_its_own_group_and_ends_on_sigterm() -> None:
    async def run() -> tuple[int, int]:
        child = await spawn([sys.executable, "-c", "import time; time.sleep(60)"], env={}, cwd=ROOT)
        group = os.getpgid(child.pid)
        status = await stop(child, 5)
        assert await stop(child, 5) == status, "stopping twice is harmless"
        return group - child.pid, status

    assert asyncio.run(run()) == (0, -signal.SIGTERM)


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"

    async def run() -> int:
        child = await spawn([sys.executable, "-c", code], env={}, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert child.stdout is not None
        await child.stdout.readline()
        return await stop(child, 0.2)

    assert asyncio.run(run()) == -signal.SIGKILL


def test_a_frozen_child_is_woken_to_end() -> None:
    async def run() -> int:
        child = await spawn([sys.executable, "-c", "import time; time.sleep(60)"], env={}, cwd=ROOT)
        os.kill(child.pid, signal.SIGSTOP)
        return await stop(child, 5)

    assert asyncio.run(run()) == -signal.SIGTERM
