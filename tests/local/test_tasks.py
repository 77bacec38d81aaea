"""Tasks are ended even where a cancellation is lost."""

import asyncio

from infra.local.tasks import end


async def deaf(times: int) -> None:
    """Takes that many cancellations for something else."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if times == 0:
                raise
            times -= 1


def test_a_lost_cancellation_is_followed_by_another() -> None:
    async def live() -> list[bool]:
        tasks = [asyncio.create_task(deaf(times)) for times in (0, 1, 2)]
        await asyncio.sleep(0)
        await end(tasks)
        return [task.cancelled() for task in tasks]

    assert asyncio.run(live()) == [True, True, True]


def test_what_is_not_named_goes_on() -> None:
    async def live() -> bool:
        other = asyncio.create_task(asyncio.sleep(60))
        await end([])
        return other.done() or bool(other.cancelling())

    assert asyncio.run(live()) is False
