"""Writes the page of every parameter and output of `template.yaml`: `python -m infra.parameters`.

The template says what a parameter is; a test fails when the page has drifted from it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/parameters.md"

_HEAD: Final = """# Parameters and outputs
Every parameter of `template.yaml`, in the groups that CloudFormation's console shows. Set them in `samconfig.toml`
(`parameter_overrides`), with `sam deploy --parameter-overrides Name=value`, or when `sam deploy --guided` asks.

This page is made from the template by `python -m infra.parameters`.
"""


def render(template: Mapping[str, Any]) -> str:
    """The page's text."""
    lines = [_HEAD]
    for label, names in _groups(template):
        lines += [f"## {label}", "| parameter | default | allowed | what it is |", "|---|---|---|---|"]
        lines += [_row(name, template["Parameters"][name]) for name in names]
        lines.append("")
    lines += ["## Outputs", "| output | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(facts['Description'])} |" for name, facts in template["Outputs"].items()]
    return "\n".join(lines) + "\n"


def read() -> Mapping[str, Any]:
    """The template as it is written."""
    # The translator's own reader knows CloudFormation's tags.
    from samtranslator.yaml_helper import yaml_parse

    template: Mapping[str, Any] = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    return template


def _groups(template: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str]]]:
    """Label and parameters of each group; what is in none comes last."""
    interface = template.get("Metadata", {}).get("AWS::CloudFormation::Interface", {})
    left = dict.fromkeys(template["Parameters"])
    for group in interface.get("ParameterGroups", ()):
        yield group["Label"]["default"], group["Parameters"]
        left = {name: None for name in left if name not in group["Parameters"]}
    if left:
        yield "Others", list(left)


def _row(name: str, facts: Mapping[str, Any]) -> str:
    default = facts.get("Default")
    shown = "(must be given)" if default is None else f"`{default}`" if str(default) else "empty"
    return f"| `{name}` | {shown} | {_cell(_allowed(facts))} | {_cell(facts['Description'])} |"


def _allowed(facts: Mapping[str, Any]) -> str:
    if values := facts.get("AllowedValues"):
        return ", ".join(f"`{value}`" if str(value) else "empty" for value in values)
    if facts.get("Type") == "Number":
        low, high = facts.get("MinValue"), facts.get("MaxValue")
        return f"number {low} to {high}" if high is not None else f"number from {low}" if low is not None else "number"
    pattern = facts.get("AllowedPattern")
    return f"`{pattern}`" if pattern else "text"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(read()), encoding="utf-8")


if __name__ == "__main__":
    main()
