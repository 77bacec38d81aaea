"""Child processes that cannot outlive their parent."""

import asyncio
import contextlib
import ctypes
import functools
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1


async def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> asyncio.subprocess.Process:
    """Start a process that the kernel kills when this one dies, even by SIGKILL.

    The child leads a process group of its own, so a terminal's Ctrl-C reaches only the parent, which then decides the
    order in which things stop. Call this from a thread that lives as long as the process: Linux ties the parent-death
    signal to the thread that forked (prctl(2), PR_SET_PDEATHSIG). The signal is not inherited by grandchildren.

    Raises:
        OSError: the program does not exist or cannot be executed.

    """
    return await asyncio.create_subprocess_exec(
        *argv,
        env=dict(env),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        process_group=0,
        preexec_fn=_die_with_parent(os.getpid()),
    )


async def stop(process: asyncio.subprocess.Process, grace_s: float) -> int:
    """End a process of `spawn` and its whole group: SIGTERM, then SIGKILL after `grace_s` seconds.

    A frozen (stopped) process is woken, otherwise it would never see the SIGTERM. Returns the exit status, negative
    for a signal, as `subprocess` has it.
    """
    if process.returncode is None:
        signal_group(process.pid, signal.SIGTERM)
        signal_group(process.pid, signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await process.wait()
    # The group may hold children of the leader that outlived it.
    signal_group(process.pid, signal.SIGKILL)
    return await process.wait()


def signal_group(leader: int, signum: int) -> None:
    """Send a signal to a process group; a group that is already gone is not an error."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signum)


def _die_with_parent(parent: int) -> Callable[[], None]:
    # Everything is looked up before the fork: between fork and exec only async-signal-safe work is sound.
    prctl, getppid, leave = _prctl(), os.getppid, os._exit

    def prepare() -> None:
        if prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or getppid() != parent:
            # The parent died before the signal was armed; nobody is left to hear why.
            leave(127)

    return prepare


@functools.cache
def _prctl() -> Any:  # a foreign function; ctypes has no type for it
    return ctypes.CDLL(None, use_errno=True).prctl
