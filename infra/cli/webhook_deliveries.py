"""`sluice webhooks test|deliveries|redeliver|listen`: what is sent to webhooks."""

import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import typer

from infra.cli.api_client import Api
from infra.cli.options import JsonOption, KeyOption, UrlOption, help_text
from infra.cli.output import USAGE, Failure, console, messages, print_json
from infra.cli.tables import print_table
from infra.cli.times import time_text
from infra.cli.webhooks import EventOption, WebhookArgument, document_of
from shared.domain.webhooks import MAX_PAGE

TEST_HELP: Final = help_text(
    "Send a test event, and show what the receiver answered.",
    "webhook.test goes by the way of all other events, and once; also to a webhook that is off. It ends with 1 unless "
    "the answer is one of 2xx.",
    "sluice webhooks test wh_019a0c2b1f7e4d3c2b1a09f8",
)
DELIVERIES_HELP: Final = help_text(
    "List what was sent to a webhook, the newest first.",
    "The last 30 days. --json has every attempt and the body of each event.",
    "sluice webhooks deliveries wh_019a0c2b1f7e4d3c2b1a09f8",
    "sluice webhooks deliveries wh_019a0c2b1f7e4d3c2b1a09f8 --limit 500 --json",
)
REDELIVER_HELP: Final = help_text(
    "Send events again, now and by the schedule from its beginning.",
    "Those that are named, or with --given-up all that were given up. Their ids stay, so a receiver that had one knows "
    "it. Dead letters of these events may be deleted.",
    "sluice webhooks redeliver wh_019a0c2b1f7e4d3c2b1a09f8 msg_019a0c2b1f7e4d3c2b1a09f8e7d6c5b4",
    "sluice webhooks redeliver wh_019a0c2b1f7e4d3c2b1a09f8 --given-up",
)
LISTEN_HELP: Final = help_text(
    "Receive webhooks here, verify them, and print them.",
    "A webhook for it is added to the local stack, and removed when you end it with Ctrl-C. With --secret nothing is "
    "added: it is for a webhook that you made yourself.",
    "sluice webhooks listen",
    "sluice webhooks listen --port 9100 --event job.failed",
)

_GIVEN_UP: Final = frozenset({"failed", "dead"})
_MOST_LISTED: Final = 10_000
_TEST_PAUSE_S: Final = 0.5


def send_test(
    webhook: WebhookArgument,
    *,
    timeout: Annotated[float, typer.Option(min=1, max=600, help="Seconds to wait for what comes of it.")] = 30.0,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a test event, and wait for what comes of it."""
    api = Api.find(url, key)
    _tell_if_off(document_of(api.get("v1", "webhooks", webhook)))
    delivery = document_of(api.post("v1", "webhooks", webhook, "test", body=b"{}"))
    end = time.monotonic() + timeout
    while delivery["state"] == "pending" and time.monotonic() < end:
        time.sleep(_TEST_PAUSE_S)
        delivery = document_of(api.get("v1", "webhooks", webhook, "deliveries", delivery["delivery_id"]))
    if as_json:
        print_json(delivery)
    if delivery["state"] == "delivered":
        if not as_json:
            attempt = delivery["attempts"][-1]
            console.print(f"The receiver answered {attempt['status']} in {attempt['duration_ms']} ms.", markup=False)
        return
    if delivery["state"] == "pending":
        raise Failure(
            f"The event was not sent within {timeout:g} s: `sluice webhooks deliveries {webhook}` shows whether it is "
            "later. On the local stack `sluice logs WebhookSenderFunction` tells more.",
            quiet=as_json,
        )
    raise Failure(_why(delivery), quiet=as_json)


def deliveries(
    webhook: WebhookArgument,
    *,
    limit: Annotated[int, typer.Option(min=1, max=_MOST_LISTED, help="Most deliveries that are listed.")] = 20,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List deliveries."""
    found = list(_deliveries(Api.find(url, key), webhook, limit))
    if as_json:
        print_json({"deliveries": found})
    elif not found:
        messages.print("Nothing was sent to it yet.")
    else:
        print_table(
            ("delivery", "event", "job", "state", "attempts", "last answer", "next attempt"),
            [
                [
                    each["delivery_id"],
                    each["event"],
                    each["job_id"] or "",
                    each["state"],
                    len(each["attempts"]),
                    _last(each),
                    time_text(each["next_attempt_at"]),
                ]
                for each in found
            ],
            right=("attempts",),
            whole=("delivery", "event", "job", "state", "last answer", "next attempt"),
            spare=("job", "next attempt", "attempts", "event"),
        )


def redeliver(
    webhook: WebhookArgument,
    delivery: Annotated[
        list[str] | None, typer.Argument(metavar="DELIVERY…", help="Ids of deliveries.", show_default=False)
    ] = None,
    *,
    given_up: Annotated[bool, typer.Option("--given-up", help="All that were given up.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send events again."""
    if bool(delivery) == given_up:
        raise Failure("Name a DELIVERY, or all that were given up with --given-up.", exit_code=USAGE)
    api = Api.find(url, key)
    wanted = delivery or [
        each["delivery_id"] for each in _deliveries(api, webhook, _MOST_LISTED) if each["state"] in _GIVEN_UP
    ]
    done = [
        document_of(api.post("v1", "webhooks", webhook, "deliveries", each, "redeliver", body=b"{}")) for each in wanted
    ]
    if as_json:
        print_json({"deliveries": done})
    else:
        messages.print(f"{len(done)} event{'' if len(done) == 1 else 's'} on the way again.")


def _deliveries(api: Api, webhook: str, most: int) -> Iterator[dict[str, Any]]:
    """The newest deliveries, page by page."""
    query: dict[str, str] = {}
    left = most
    while left > 0:
        page = document_of(
            api.get("v1", "webhooks", webhook, "deliveries", query={**query, "limit": str(min(left, MAX_PAGE))})
        )
        yield from page["deliveries"]
        left -= len(page["deliveries"])
        if page["next"] is None:
            return
        query = {"cursor": page["next"]}


def listen(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 takes a free one.")] = 9000,
    event: EventOption = None,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="SLUICE_WEBHOOK_SECRET", help="Secret of a webhook that is there already.", metavar="SECRET"
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Receive, verify and print events."""
    from infra.cli.webhook_listener import Listener, listening

    listener = Listener(as_json=as_json, left=count)
    listening(listener, port, secret, lambda: Api.find(url, key), event)


def _tell_if_off(webhook: Mapping[str, Any]) -> None:
    """A test goes out all the same: it is how one tries a receiver before switching its webhook on again."""
    if webhook["enabled"]:
        return
    why = "its receiver answered 410" if webhook["disabled_reason"] == "gone" else "it was switched off"
    messages.print(
        f"The webhook is off, since {why}: only this test is sent to it. `sluice webhooks change "
        f"{webhook['webhook_id']} --on` switches it on.",
        markup=False,
        soft_wrap=True,
        style="yellow",
    )


def _last(delivery: Mapping[str, Any]) -> str:
    if not delivery["attempts"]:
        return str(delivery["reason"] or "")
    attempt = delivery["attempts"][-1]
    return str(attempt["status"] or attempt["error"])


def _why(delivery: Mapping[str, Any]) -> str:
    attempt = delivery["attempts"][-1] if delivery["attempts"] else {}
    said = f": {attempt['detail']}" if attempt.get("detail") else "."
    if attempt.get("status"):
        return f"The receiver answered {attempt['status']}{said}"
    return f"The event did not arrive ({delivery['reason']}){said}"
