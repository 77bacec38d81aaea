"""The soak in small: workers are killed, messages come twice, and every job has one result, the right one."""

import asyncio

import pytest
from rich.progress import Progress

from benchmarks.soak.__main__ import soak
from benchmarks.soak.chaos import Chaos, Workers
from benchmarks.soak.work import questions
from infra.local.home import Home
from tests.e2e.conftest import Sluice

JOBS = 120


# What a killed worker held comes back after half a minute; the machine may be busy.
@pytest.mark.timeout(240)
def test_killed_workers_and_doubled_messages_lose_nothing_and_double_nothing(sluice: Sluice) -> None:
    local = Home(sluice.home).read()
    assert local is not None
    chaos = Chaos(Workers(local.lambda_url, "JobWorkerFunction"), every_s=0.6, most=2, spares_starting=True)
    with Progress(disable=True) as bar:
        result = asyncio.run(soak(local, questions(JOBS), chaos, 10, bar))
    assert result.kills
    assert result.twice == JOBS // 10
    assert result.sound, (result.verdicts, result.endings)
