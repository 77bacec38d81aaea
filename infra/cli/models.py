"""`sluice models`: the catalogue, and one model in detail."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from infra.cli.api_client import Api
from infra.cli.options import JsonOption, KeyOption, UrlOption, help_text
from infra.cli.output import console, messages, plain, print_json, size_text
from infra.cli.tables import print_facts, print_table
from infra.cli.times import time_text

HELP = help_text(
    "List the published models, or show one of them.",
    "With the name of a model: its signature, versions, metrics, data and licence.",
    "sluice models",
    "sluice models tumor",
    "sluice models tumor --json",
)
_MAX_NAMES = 6


def models(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Name of a model to show in detail.", show_default=False)
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the catalogue through the API; with `--json` its document is printed as it came."""
    api = Api.find(url, key)
    document = api.get("v1", "models", *([model] if model else [])).document()
    if as_json:
        print_json(document)
    elif model:
        _show_model(document)
    else:
        _show_list(document["models"])


def _show_list(found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
        messages.print("No model is published yet. Publish one with `sluice publish MODEL.onnx`.")
        return
    print_table(
        ("name", "version", "placement", "stage", "published", "description"),
        [
            [
                item["name"],
                item["version"],
                item["placement"],
                item["stage"],
                time_text(item["created_at"]),
                item["description"],
            ]
            for item in found
        ],
        right=("version",),
        whole=("name", "version", "placement", "stage", "published"),
        spare=("stage", "published", "placement"),
    )
    messages.print("Signature and metrics of one: `sluice models NAME`.", style="dim")


def _show_model(document: Mapping[str, Any]) -> None:
    metadata = document["metadata"]
    console.print(f"{document['name']} version {document['version']}", style="bold", markup=False)
    if description := metadata.get("description"):
        console.print(plain(str(description)), markup=False)
    facts = {
        "placement": document["placement"],
        "stage": document["stage"],
        "size": size_text(document["size"]),
        "digest": document["digest"],
        "published": time_text(document["created_at"]),
        "versions": ", ".join(str(version["version"]) for version in document["versions"]),
        **_pairs("metrics", metadata.get("metrics")),
        **_pairs("data", metadata.get("data")),
        **_pairs("lineage", metadata.get("lineage")),
        "author": metadata.get("author"),
        "licence": metadata.get("licence"),
    }
    print_facts(facts)
    signature = document["signature"]
    console.print()
    print_table(
        ("", "name", "type", "shape", "holds"),
        [
            [kind, spec["name"], spec["dtype"], _shape(spec, batched=signature["batched"]), _meaning(spec)]
            for kind in ("inputs", "outputs")
            for spec in signature[kind]
        ],
        whole=("", "name", "type", "shape"),
    )
    _show_features(document.get("features"))
    _show_pipeline(document.get("pipeline"))
    most = signature["max_batch"] if signature["batched"] else 1
    console.print(f"\nAt most {most} instance{'s' if most > 1 else ''} a request.", style="dim", markup=False)


def _show_features(features: Mapping[str, Any] | None) -> None:
    """Which inputs the feature store fills: of an API of an earlier release, or for a model without, nothing."""
    if not features:
        return
    console.print("\nFrom the feature store:", markup=False)
    print_table(
        ("set", "by", "feature", "default", "at most old", "callers may send it"),
        [
            [part["name"], part["entity"], own["feature"], *_rules(own)]
            for part in features["sets"]
            for own in part["fields"]
        ],
    )


def _show_pipeline(pipeline: Mapping[str, Any] | None) -> None:
    """What a pipeline is made of, and what goes where; nothing for any other model."""
    if not pipeline:
        return
    console.print("\nA pipeline of:", markup=False)
    print_table(
        ("step", "model", "version", "takes", "digest"),
        [
            [
                step["name"] or step["model"],
                step["model"],
                step["version"],
                ", ".join(f"{name} = {source}" for name, source in step["inputs"].items()),
                step["digest"][:12],
            ]
            for step in pipeline["steps"]
        ],
    )
    given = ", ".join(f"{name} = {source}" for name, source in pipeline["outputs"].items())
    console.print(f"It gives {given}.", markup=False, soft_wrap=True)


def _rules(feature: Mapping[str, Any]) -> list[str]:
    default, age = feature["default"], feature["max_age_s"]
    return [
        "–" if default is None else str(default),
        "–" if age is None else f"{age} s",
        "yes" if feature["overridable"] else "no",
    ]


def _pairs(name: str, values: Any) -> dict[str, str]:
    if not isinstance(values, Mapping) or not values:
        return {}
    return {name: ", ".join(f"{key}: {value}" for key, value in values.items())}


def _shape(spec: Mapping[str, Any], *, batched: bool) -> str:
    """The shape as callers write it: the batch by name, any size as `?`, further layouts after `or`."""
    shape = ["?" if dim < 0 else str(dim) for dim in spec["shape"]]
    if batched and shape:
        shape[0] = "batch"
    layouts = ["×".join(map(str, layout)) for layout in spec.get("layouts", ())]
    return f"[{', '.join(shape)}]" + "".join(f" or {layout}" for layout in layouts)


def _meaning(spec: Mapping[str, Any]) -> str:
    names = spec.get("features") or spec.get("classes") or ()
    parts = [spec["content"]] if spec.get("content") else []
    if names:
        more = f", … {len(names)} names" if len(names) > _MAX_NAMES else ""
        parts.append(", ".join(names[:_MAX_NAMES]) + more)
    if spec.get("minimum") is not None or spec.get("maximum") is not None:
        parts.append(f"{spec.get('minimum', '')} … {spec.get('maximum', '')}".replace("None", ""))
    return "; ".join(parts)
