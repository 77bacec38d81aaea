import asyncio
import logging
import time
from dataclasses import dataclass

import pytest

from gpu_service.telemetry.stats import ServerStats
from gpu_service.telemetry.watchdog import LoopWatch, stuck


@dataclass
class Run:
    started: float


def test_a_blocked_loop_is_seen_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    stats = ServerStats()

    async def block() -> None:
        watch = LoopWatch(asyncio.get_running_loop(), stats, interval_s=0.01, report_s=0.15)
        watch.start()
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - what must not happen, and is to be seen
        await asyncio.sleep(0.02)
        watch.stop()

    with caplog.at_level(logging.WARNING):
        asyncio.run(block())
    assert stats.loop_lag.sum >= 0.28
    assert "the event loop was blocked for" in caplog.text


def test_an_idle_loop_is_sampled_until_the_watch_is_stopped() -> None:
    stats = ServerStats()

    async def idle() -> int:
        watch = LoopWatch(asyncio.get_running_loop(), stats, interval_s=0.005)
        watch.start()
        watch.start()  # twice is once
        while stats.loop_lag.count < 3:  # noqa: ASYNC110 - the watch tells nobody that it has sampled
            await asyncio.sleep(0.005)
        watch.stop()
        watch.stop()
        seen = stats.loop_lag.count
        await asyncio.sleep(0.03)
        return seen

    assert asyncio.run(idle()) == stats.loop_lag.count
    assert stats.loop_lag.sum >= 0.0


def test_a_run_is_stuck_once_it_took_longer_than_the_limit() -> None:
    young, old = Run(started=95.0), Run(started=10.0)
    assert stuck([young, old], now=100.0, limit_s=60.0) == [old]
    assert stuck([young, old], now=100.0, limit_s=90.0) == []
    assert stuck([], now=100.0, limit_s=0.0) == []
