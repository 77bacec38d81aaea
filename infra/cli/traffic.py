"""`sluice traffic`: how an endpoint's requests are split."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.deployed import ProfileOption, RegionOption, StackOption
from infra.cli.endpoint_access import Endpoints, told
from infra.cli.endpoint_plans import DryRunOption, NoteOption, Planned, Run, YesOption
from infra.cli.options import JsonOption, help_text
from infra.cli.output import USAGE, Failure, console, plain, print_json
from infra.cli.tables import print_table

if TYPE_CHECKING:
    from shared.domain.endpoint.config import EndpointConfig, StoredEndpoint, Variant
    from shared.usecases.manage_endpoints import ManageEndpoints

HELP = help_text(
    "Show how an endpoint's traffic is split, or split it anew.",
    "Name versions, labels or variants with their shares, as 5% or 0.05; what is left goes to the other variants in "
    "proportion, as before. A version without a variant gets one, on the backend that has most of the traffic. The "
    "plan is shown and asked about.",
    "sluice traffic tumor",
    "sluice traffic tumor 2=5%",
    "sluice traffic tumor 2=50% prod=50% --yes --note 'half and half'",
    "sluice traffic tumor --shadow 3=10%",
    "sluice traffic tumor --no-shadow --dry-run",
)

_NUMBER = re.compile(r"[0-9]{1,3}(\.[0-9]{1,12})?|\.[0-9]{1,12}")
_WHOLE: Final = 100.0


def traffic(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of an endpoint: that of its model.", show_default=False)
    ],
    shares: Annotated[
        list[str] | None, typer.Argument(metavar="VERSION=SHARE…", help="New shares.", show_default=False)
    ] = None,
    *,
    shadow: Annotated[
        str | None, typer.Option(help="Send copies of requests to it, too.", metavar="VERSION[=SHARE]")
    ] = None,
    no_shadow: Annotated[bool, typer.Option("--no-shadow", help="Send no more copies.")] = False,
    sticky: Annotated[
        str | None, typer.Option(help="Keep callers by tenant, key, header:<name>, or none.", metavar="BY")
    ] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    note: NoteOption = "",
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change the split."""
    if shadow is not None and no_shadow:
        raise Failure("Either --shadow or --no-shadow.", exit_code=USAGE)
    run = Run(dry_run=dry_run, yes=yes, as_json=as_json)
    wanted = _shares(shares or ())
    copied = None if shadow is None else _share(shadow if "=" in shadow else f"{shadow}=100%")
    endpoints = Endpoints.of(stack, region, profile)
    with told():
        stored = endpoints.manage.get(name)
        if not wanted and copied is None and not no_shadow and sticky is None:
            _show(stored, as_json=as_json)
            return
        config = _split(endpoints.manage, stored, wanted)
        if copied is not None:
            config = _with_shadow(endpoints.manage, stored, config, *copied)
        elif no_shadow:
            config = replace(config, shadow=None)
        if sticky is not None:
            config = replace(config, sticky=sticky.lower())
        changed = endpoints.manage.put(config, expected=stored.revision, by="", note=note, dry_run=True)
    run(endpoints, [Planned.of(stored.revision, changed)])


def _shares(given: Sequence[str]) -> Mapping[str, float]:
    wanted: dict[str, float] = {}
    for text in given:
        name, share = _share(text)
        if name in wanted:
            raise Failure(f"{name} is given twice.", exit_code=USAGE)
        wanted[name] = share
    return wanted


def _share(text: str) -> tuple[str, float]:
    """A name and a share from 0 to 1. A bare `1` is refused: it could be one percent or all of it."""
    name, _, value = text.rpartition("=")
    number = value.removesuffix("%").rstrip()
    is_percent = value.endswith("%")
    if not name or not _NUMBER.fullmatch(number):
        raise Failure(f"{text!r}: write VERSION=SHARE, such as 2=5% or 2=0.05.", exit_code=USAGE)
    if not is_percent and "." not in number and float(number):
        raise Failure(f"{text!r}: write {number}% or a fraction, such as 0.05.", exit_code=USAGE)
    share = float(number) / _WHOLE if is_percent else float(number)
    if share > 1:
        raise Failure(f"{text!r}: a share is 100% at most.", exit_code=USAGE)
    return name, share


def _split(manage: "ManageEndpoints", stored: "StoredEndpoint", wanted: Mapping[str, float]) -> "EndpointConfig":
    if not wanted:
        return stored.config
    changed, _ = manage.traffic(stored.config.endpoint, wanted, expected=stored.revision, by="", dry_run=True)
    return changed.config


def _with_shadow(
    manage: "ManageEndpoints", stored: "StoredEndpoint", config: "EndpointConfig", key: str, share: float
) -> "EndpointConfig":
    """The configuration with copies for a version, a label or a variant; a new variant takes no traffic of its own."""
    from shared.domain.endpoint.config import Shadow

    variant = _variant(config, key)
    if variant is None:
        made = _variant(_split(manage, stored, {key: 0.0}), key)
        if made is None:
            raise Failure(f"There is no variant for {key}.")
        config, variant = replace(config, variants=(*config.variants, made)), made
    return replace(config, shadow=Shadow(variant.name, share))


def _variant(config: "EndpointConfig", key: str) -> "Variant | None":
    """The variant of this name, else the one that serves this version or label."""
    if not key.isdecimal() and (named := config.variant(key)) is not None:
        return named
    version = int(key) if key.isascii() and key.isdecimal() else config.labels.get(key)
    served = (
        (variant, config.labels.get(variant.version) if isinstance(variant.version, str) else variant.version)
        for variant in config.variants
    )
    return next((variant for variant, number in served if version is not None and number == version), None)


def _show(stored: "StoredEndpoint", *, as_json: bool) -> None:
    from infra.cli.endpoint_text import percent, shares, version_text

    config = stored.config
    by_name = shares(config)
    if as_json:
        _print_document(stored, by_name)
        return
    since = f"revision {stored.revision}" if stored.revision else "nothing is set, so the defaults hold"
    console.print(plain(f"{config.endpoint}, {since}"), style="bold", markup=False)
    print_table(
        ("variant", "version", "backend", "share"),
        [[v.name, version_text(config, v), v.backend, percent(by_name[v.name])] for v in config.variants],
        right=("share",),
    )
    facts = [f"Callers stay with their variant by {config.sticky}." if config.sticky != "none" else "Nobody is kept."]
    if config.labels:
        facts.append("Labels: " + ", ".join(f"{name} = {version}" for name, version in config.labels.items()) + ".")
    if config.shadow is not None:
        facts.append(f"{config.shadow.variant} gets copies of {percent(config.shadow.share)} of the requests.")
    if (experiment := config.experiment) is not None:
        total = sum(experiment.arms.values())
        arms = ", ".join(f"{arm} {percent(weight / total)}" for arm, weight in experiment.arms.items())
        facts.append(f"The experiment {experiment.name} splits by {experiment.unit}: {arms}.")
    for fact in facts:
        console.print(plain(fact), markup=False, soft_wrap=True, style="dim")


def _print_document(stored: "StoredEndpoint", by_name: Mapping[str, float]) -> None:
    from shared.schemas.endpoint import to_document

    document = to_document(stored.config)
    told_ = ("endpoint", "labels", "sticky", "shadow", "experiment")
    variants = [{**variant, "share": by_name[variant["name"]]} for variant in document["variants"]]
    print_json({"revision": stored.revision, "variants": variants, **{name: document[name] for name in told_}})
