"""`POST /_sluice/trigger/{name}`: fires a rule or a schedule now, for `sluice trigger`."""

import msgspec
from aiohttp import web
from botocore.exceptions import BotoCoreError, ClientError

from infra.local.events.local_events import LocalEvents
from infra.local.lambda_service.body import read_body
from infra.local.lambda_service.errors import LambdaApiError
from infra.local.lambda_service.invocation import MAX_EVENT_BYTES

PREFIX = "/_sluice/trigger/"


def add_routes(app: web.Application, events: LocalEvents) -> None:
    """The route, for the application of the Lambda service. The body is the event of a rule with a pattern, or empty.

    It answers 200 with `targets`, 404 with the `known` names, 400 or 502 with a `message`.
    """

    async def trigger(request: web.Request) -> web.Response:
        body = await read_body(request, MAX_EVENT_BYTES)
        if body is None:
            return _answer(413, {"message": f"An event has {MAX_EVENT_BYTES} bytes at most."})
        try:
            event = msgspec.json.decode(body, type=dict) if body else None
            targets = await events.trigger(request.match_info["name"], event)
        except KeyError:
            return _answer(404, {"known": events.names})
        except (LambdaApiError, BotoCoreError, ClientError) as error:
            return _answer(502, {"message": str(error)})
        except ValueError as error:  # msgspec's are ones
            return _answer(400, {"message": str(error)})
        return _answer(200, {"targets": targets})

    app.router.add_post(PREFIX + "{name}", trigger)


def _answer(status: int, document: dict[str, object]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(document), content_type="application/json")
