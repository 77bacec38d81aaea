"""`GET /_sluice/queues`: how many messages are where, for `sluice status`."""

import msgspec
from aiohttp import web

from infra.local.event_sources.calls import AwsCallFailed, AwsCalls
from infra.local.stack import StackSpec

PATH = "/_sluice/queues"
_COUNTS = {
    "waiting": "ApproximateNumberOfMessages",
    "in_flight": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}


def add_routes(app: web.Application, stack: StackSpec, aws_url: str) -> None:
    """The route, for the application of the Lambda service.

    It answers 200 with `queues`, each with its `logical_id`, its `name`, whether it has dead letters, and its counts;
    502 with a `message` where the AWS services do not say.
    """
    queues = stack.of_type("AWS::SQS::Queue")
    targets = {str(queue.properties.get("RedrivePolicy", {}).get("deadLetterTargetArn")) for queue in queues}
    dead = {arn.rpartition(":")[2] for arn in targets}

    async def counts(_request: web.Request) -> web.Response:
        found: list[dict[str, object]] = []
        try:
            async with AwsCalls(aws_url) as calls:
                for queue in queues:
                    url = (await calls.sqs("GetQueueUrl", {"QueueName": queue.name}))["QueueUrl"]
                    wanted = {"QueueUrl": url, "AttributeNames": list(_COUNTS.values())}
                    attributes = (await calls.sqs("GetQueueAttributes", wanted))["Attributes"]
                    found.append(
                        {
                            "logical_id": queue.logical_id,
                            "name": queue.name,
                            "dead_letters": queue.name in dead,
                            **{name: int(attributes[attribute]) for name, attribute in _COUNTS.items()},
                        }
                    )
        except AwsCallFailed as error:
            return _answer(502, {"message": str(error)})
        return _answer(200, {"queues": found})

    app.router.add_get(PATH, counts)


def _answer(status: int, document: dict[str, object]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(document), content_type="application/json")
