"""`sluice predict`: send instances to a model, and show what comes back."""

from collections.abc import Mapping
from math import hypot
from typing import Annotated, Any, Final

import typer

from infra.cli.api_client import Answer, Api
from infra.cli.options import JsonOption, KeyOption, UrlOption, help_text
from infra.cli.output import messages, plain
from infra.cli.request_body import request_body
from infra.cli.tables import print_table

HELP = help_text(
    "Predict with a model through the API.",
    "--data takes JSON: a whole request body, one instance, or a list of instances; @FILE reads it from a file and - "
    "from standard input. --text and --image stand for an instance each and may be repeated.",
    "sluice predict tumor --data @instance.json",
    "sluice predict digits --image seven.png",
    'sluice predict embed --text "A man is eating food." --json',
    "sluice predict tumor --url https://api.example.com --data - < body.json",
)
_MAX_ROWS: Final = 50
_MAX_CLASSES: Final = 3
_MAX_NUMBERS: Final = 4


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of a published model.", show_default=False)],
    *,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Instances as JSON, @FILE or -.", metavar="JSON")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", "-t", metavar="TEXT", help="An instance that is a string.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", "-i", help="An instance that is a PNG or JPEG.", metavar="FILE")
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send one request; the API's answer is printed as it came with `--json`, else as a table."""
    api = Api.find(url, key)
    body = request_body(data, text or (), image or (), lambda: _signature(api, model))
    answer = api.post("v1", "models", model, "predict", body=body)
    if as_json:
        typer.echo(answer.body)
        return
    document = answer.document()
    _show(document["predictions"])
    served = document["model"]
    messages.print(
        f"{served['name']} version {served['version']} ({served['backend']}), "
        f"prediction {document['prediction_id']}: {_timing(answer)}",
        markup=False,
        style="dim",
        soft_wrap=True,
    )


def _signature(api: Api, model: str) -> Mapping[str, Any]:
    signature: Mapping[str, Any] = api.get("v1", "models", model).document()["signature"]
    return signature


def _show(predictions: list[Any]) -> None:
    by_output = bool(predictions) and all(isinstance(row, dict) for row in predictions)
    # With several outputs a prediction is an object by output; with one that has classes, an object of probabilities.
    by_output = by_output and not all(_is_distribution(row) for row in predictions)
    columns = list(predictions[0]) if by_output else ["prediction"]
    rows = []
    for number, row in enumerate(predictions[:_MAX_ROWS]):
        cells = [row.get(column) for column in columns] if by_output else [row]
        rows.append([number, *map(_short, cells)])
    print_table(("#", *columns), rows, right=("#",))
    if len(predictions) > _MAX_ROWS:
        messages.print(f"… and {len(predictions) - _MAX_ROWS} more: --json prints them all.")


def _short(value: Any) -> str:
    """A value in one line: the likeliest classes of a distribution, the first numbers of a vector."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if _is_distribution(value):
        likely = sorted(value.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {share:.3g}" for name, share in likely[:_MAX_CLASSES])
        return shown + (f", … {len(likely)} in all" if len(likely) > _MAX_CLASSES else "")
    if isinstance(value, list):
        numbers = all(isinstance(item, int | float) for item in value)
        if len(value) <= _MAX_NUMBERS:
            return f"[{', '.join(map(_short, value))}]"
        shown = ", ".join(map(_short, value[:_MAX_NUMBERS]))
        return f"[{shown}, …] {len(value)} " + (f"numbers, length {hypot(*value):.4g}" if numbers else "elements")
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_short(item)}" for name, item in value.items())
    return "null" if value is None else str(value)


def _is_distribution(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(type(item) in (int, float) for item in value.values())


def _timing(answer: Answer) -> str:
    """The whole call, and the steps that the function reports (W3C Server-Timing: `name;dur=ms, …`)."""
    steps = []
    for metric in answer.headers.get("server-timing", "").split(","):
        name, _, parameters = metric.strip().partition(";")
        duration = parameters.partition("dur=")[2].partition(";")[0]
        if name and duration:
            steps.append(f"{plain(name)} {duration}")
    return f"{answer.elapsed_ms:.1f} ms" + (f" ({', '.join(steps)})" if steps else "")
