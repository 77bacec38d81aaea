"""`sluice webhooks`: who is told of finished jobs and batches, and what was sent to them."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from infra.cli.api_client import Answer, Api
from infra.cli.options import JsonOption, KeyOption, UrlOption, help_text
from infra.cli.output import USAGE, Failure, console, messages, plain, print_json
from infra.cli.tables import print_facts, print_table
from infra.cli.times import time_text
from shared.domain.webhooks import EVENT_TYPES

GROUP_HELP: Final = "Webhooks: requests to your servers when jobs and batches end."
ADD_HELP: Final = help_text(
    "Have a server told of finished jobs and batches.",
    "Shows the secret that its requests are signed with, once. ADDRESS is an https:// address of a public server; the "
    "local stack takes http://127.0.0.1 as well. Without --event it is told of every event. The key needs the scope "
    "webhooks.",
    "sluice webhooks add https://example.com/hooks/sluice",
    "sluice webhooks add https://example.com/hooks/sluice --event job.failed --event batch.failed",
    "SECRET=$(sluice webhooks add http://127.0.0.1:9000/hook --json | jq -r .secret)",
)
LIST_HELP: Final = help_text("List the webhooks.", "Those of the key's tenant.", "sluice webhooks list")
SHOW_HELP: Final = help_text(
    "Show a webhook.", "Without its secret.", "sluice webhooks show wh_019a0c2b1f7e4d3c2b1a09f8"
)
CHANGE_HELP: Final = help_text(
    "Change a webhook, or switch it on or off.",
    "What is not named stays. One that answered 410 is off until it is switched on again.",
    "sluice webhooks change wh_019a0c2b1f7e4d3c2b1a09f8 --off",
    "sluice webhooks change wh_019a0c2b1f7e4d3c2b1a09f8 --address https://example.org/hook --event batch.succeeded",
)
REMOVE_HELP: Final = help_text(
    "Delete a webhook.", "What is on its way to it is not sent.", "sluice webhooks remove wh_019a0c2b1f7e4d3c2b1a09f8"
)
ROTATE_HELP: Final = help_text(
    "Give a webhook a new secret, and show it once.",
    "Requests are signed with the old one as well for --overlap seconds, so that the receiver has time to change. 0 is "
    "for a secret that leaked.",
    "sluice webhooks rotate wh_019a0c2b1f7e4d3c2b1a09f8",
    "sluice webhooks rotate wh_019a0c2b1f7e4d3c2b1a09f8 --overlap 0",
)


WebhookArgument = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Id of a webhook.", show_default=False)]
EventOption = Annotated[
    list[str] | None,
    typer.Option("--event", help=f"What it is told of: {', '.join(EVENT_TYPES)}. May be repeated.", metavar="EVENT"),
]
DescriptionOption = Annotated[str | None, typer.Option(metavar="TEXT", help="A note, for you.")]


def add(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where requests go to.", show_default=False)],
    *,
    event: EventOption = None,
    description: DescriptionOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a webhook."""
    made = create(Api.find(url, key), address, event, description)
    if as_json:
        print_json(made)
        return
    console.print(plain(made["secret"]), markup=False, soft_wrap=True)
    messages.print(
        f"The secret of {made['webhook_id']}. Keep it now: it is not shown again. "
        f"`sluice webhooks test {made['webhook_id']}` sends a first event.",
        markup=False,
        style="dim",
    )


def create(api: Api, address: str, events: list[str] | None, description: str | None) -> dict[str, Any]:
    """A new webhook, with its secret."""
    wanted = {"url": address, "events": events, "description": description}
    return document_of(api.post("v1", "webhooks", body=body_of(wanted)))


def list_(*, url: UrlOption = None, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """List webhooks."""
    found = document_of(Api.find(url, key).get("v1", "webhooks"))
    if as_json:
        print_json(found)
    elif not found["webhooks"]:
        messages.print("There is no webhook yet: `sluice webhooks add ADDRESS`.", markup=False)
    else:
        print_table(
            ("webhook", "address", "events", "state", "created"),
            [
                [each["webhook_id"], each["url"], _events(each), _state(each), time_text(each["created_at"])]
                for each in found["webhooks"]
            ],
            whole=("webhook", "state", "created"),
            spare=("created", "events"),
        )


def show(
    webhook: WebhookArgument, *, url: UrlOption = None, key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Show a webhook."""
    _show(document_of(Api.find(url, key).get("v1", "webhooks", webhook)), as_json=as_json)


def change(
    webhook: WebhookArgument,
    *,
    address: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where requests go to from now on.")] = None,
    event: EventOption = None,
    description: DescriptionOption = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Whether it is told of anything.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a webhook."""
    wanted = {"url": address, "events": event, "description": description, "enabled": enabled}
    if all(value is None for value in wanted.values()):
        raise Failure("Name what is to change: --address, --event, --description, --on or --off.", exit_code=USAGE)
    answer = Api.find(url, key).request("PATCH", ("v1", "webhooks", webhook), body=body_of(wanted))
    _show(document_of(answer), as_json=as_json)


def remove(
    webhook: WebhookArgument, *, url: UrlOption = None, key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Delete a webhook."""
    gone = document_of(Api.find(url, key).delete("v1", "webhooks", webhook))
    if as_json:
        print_json(gone)
    else:
        messages.print(plain(f"{gone['webhook_id']} is deleted."), markup=False)


def rotate(
    webhook: WebhookArgument,
    *,
    overlap: Annotated[int | None, typer.Option(min=0, help="Seconds (default: a day).", show_default=False)] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rotate a webhook's secret."""
    made = document_of(
        Api.find(url, key).post("v1", "webhooks", webhook, "rotate", body=body_of({"overlap_s": overlap}))
    )
    if as_json:
        print_json(made)
        return
    console.print(plain(made["secret"]), markup=False, soft_wrap=True)
    messages.print(
        f"The new secret; it is not shown again. The old one signs too until {time_text(made['previous_until'])}.",
        markup=False,
        style="dim",
    )


def body_of(wanted: Mapping[str, Any]) -> bytes:
    """The document of what is given."""
    return json.dumps({name: value for name, value in wanted.items() if value is not None}).encode()


def document_of(answer: Answer) -> dict[str, Any]:
    """The document of an answer."""
    document: dict[str, Any] = answer.document()
    return document


def _show(document: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    print_facts(
        {
            "webhook": document["webhook_id"],
            "address": document["url"],
            "events": _events(document),
            "state": _state(document),
            "description": document["description"],
            "created": time_text(document["created_at"]),
            "secret rotated": time_text(document["rotated_at"], "never"),
        }
    )


def _events(document: Mapping[str, Any]) -> str:
    return "all" if len(document["events"]) == len(EVENT_TYPES) else ", ".join(document["events"])


def _state(document: Mapping[str, Any]) -> str:
    return "on" if document["enabled"] else f"off ({document['disabled_reason']})"
