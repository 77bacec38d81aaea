from collections.abc import Callable

import aiohttp
from aiohttp import web

from infra.local.event_sources.api import PATH, add_routes
from tests.local.event_sources.conftest import Work

QUEUES = """
Busy:
  Type: AWS::SQS::Queue
  Properties: {RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 1}}
Dead: {Type: AWS::SQS::Queue}
"""


async def asked(work: Work, url: str) -> tuple[int, dict[str, object]]:
    app = web.Application()
    add_routes(app, work.stack, url)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{PATH}") as answer:
            return answer.status, await answer.json()
    finally:
        await runner.cleanup()


def test_the_queues_of_the_stack_are_told_with_their_messages(started: Callable[..., Work]) -> None:
    work = started("told", "Busy: {Type: SQS, Properties: {Queue: !GetAtt Busy.Arn, Enabled: false}}", QUEUES)
    work.send("Busy", "a", "b")
    work.send("Busy", "c", DelaySeconds=600)
    work.sqs.receive_message(QueueUrl=work.queue_url("Busy"), MaxNumberOfMessages=1)
    status, document = work.runner.run(asked(work, work.url))
    busy = {"waiting": 1, "in_flight": 1, "delayed": 1}
    assert (status, document) == (
        200,
        {
            "queues": [
                {"logical_id": "Busy", "name": "told-Busy", "dead_letters": False, **busy},
                {"logical_id": "Dead", "name": "told-Dead", "dead_letters": True, **dict.fromkeys(busy, 0)},
            ]
        },
    )
    status, document = work.runner.run(asked(work, "http://127.0.0.1:1"))
    assert status == 502
    assert "AmazonSQS" in str(document["message"])
