"""`sluice publish`: put a model into a stack."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.deployed import Account, ProfileOption, RegionOption, StackOption, stack_outputs
from infra.cli.local import running_stack
from infra.cli.options import JsonOption, help_text
from infra.cli.output import UNREACHABLE, USAGE, Failure, console, messages, print_json, size_text
from infra.cli.problems import said_of
from infra.cli.times import time_text
from shared.domain.errors import BackendTimeout, BackendUnavailable, NotFound, SluiceError

if TYPE_CHECKING:
    from rich.progress import Progress

    from infra.packages import OnBytes
    from shared.domain.model import ModelVersion
    from shared.usecases.publish_model import Published, PublishModel

HELP = help_text(
    "Publish a model: a bare MODEL.onnx, or a package folder.",
    "A folder with a manifest.json is published as the manifest says. A bare .onnx file gets a manifest from its "
    "graph: its name is the file's (or --name), its version the next one (or --version); up to 50 MB it runs in the "
    "function, else in the container. Versions are immutable: the same files may be published again, others are "
    "refused. Without --stack the model goes to the local stack; with it, to that deployed stack, with your own AWS "
    "credentials. --table and --bucket name the stores themselves, for who may not read the stack's outputs.",
    "sluice publish model.onnx --name sentiment",
    "sluice publish build/models/tumor/1",
    "sluice publish model.onnx --stack sluice-dev --region eu-west-1",
    "sluice publish model.onnx --table sluice-ModelsTable-1A2B --bucket sluice-modelbucket-3c4d --region eu-west-1",
)


def publish(
    path: Annotated[
        Path, typer.Argument(exists=True, metavar="PATH", help="ONNX file or package folder.", show_default=False)
    ],
    *,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of a bare model (default: the file's).")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Version of a bare model (default: the next).")] = None,
    table: Annotated[
        str | None, typer.Option(metavar="TABLE", help="Registry table of a deployed stack (its ModelsTableName).")
    ] = None,
    bucket: Annotated[
        str | None, typer.Option(metavar="BUCKET", help="Bucket of a deployed stack (its ModelBucketName).")
    ] = None,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the package, store its files, enter it in the registry."""
    if (table is None) != (bucket is None) or (stack and table) or ((region or profile) and not (stack or table)):
        raise Failure("A deployed stack takes --stack, or both --table and --bucket.", exit_code=USAGE)
    if path.is_dir() and (name or version):
        raise Failure(
            "A package's manifest says its name and version: --name and --version are for a bare .onnx file.",
            exit_code=USAGE,
        )
    if stack:
        with _explained():
            account = Account.of(region, profile)
            table, bucket = stack_outputs(account, stack, "ModelsTableName", "ModelBucketName")
    with _bar() as bar, _explained():
        publisher = _publisher(table, bucket, region, profile, bar.sent)
        if path.is_dir():
            bar.expect(path)
            published = publisher(path)
        else:
            published = _publish_bare(publisher, path, name, version, bar)
    if as_json:
        print_json(_document(published))
    else:
        _show(published.version, created=published.created)


def _publisher(
    table: str | None, bucket: str | None, region: str | None, profile: str | None, on_bytes: "OnBytes"
) -> "PublishModel":
    local = None if table and bucket else running_stack()
    from infra import packages

    if local is None:
        return packages.deployed_publisher(str(table), str(bucket), region=region, profile=profile, on_bytes=on_bytes)
    outputs = local.outputs
    return packages.publisher(
        local.aws_endpoint_url, outputs["ModelsTableName"], outputs["ModelBucketName"], on_bytes=on_bytes
    )


def _publish_bare(
    publisher: "PublishModel", model: Path, name: str | None, version: int | None, bar: "_Bar"
) -> "Published":
    from shared.adapters.onnx.scaffold import model_name, same_model, scaffold
    from shared.usecases.publish_model import Published

    name = name or model_name(model)
    with TemporaryDirectory(prefix="sluice-") as folder:
        latest = _latest(publisher, name)
        number = version or (latest.version + 1 if latest else 1)
        package = scaffold(model, Path(folder) / "package", name, number)
        if latest is not None and version is None and same_model(package, latest):
            return Published(latest, created=False)
        bar.expect(package)
        return publisher(package)


def _latest(publisher: "PublishModel", name: str) -> "ModelVersion | None":
    try:
        return publisher.registry.latest(name)
    except NotFound:
        return None


def _document(published: "Published") -> dict[str, Any]:
    version = published.version
    return {
        "model": version.model,
        "version": version.version,
        "created": published.created,
        "digest": version.digest,
        "placement": version.placement.value,
        "size": version.size,
        "created_at": version.created_at,
    }


def _show(version: "ModelVersion", *, created: bool) -> None:
    said = "is published" if created else f"was published already ({time_text(version.created_at)})"
    console.print(
        f"{version.model} version {version.version} {said}.\n"
        f"  runs in the {version.placement.value}, {size_text(version.size)}, digest {version.digest}",
        markup=False,
        soft_wrap=True,
    )
    messages.print(f"Look at it with `sluice models {version.model}`.", markup=False, style="dim")


class _Bar:
    """A progress bar: checking first, then the bytes that were sent."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._task = progress.add_task("checking", total=None)

    def expect(self, package: Path) -> None:
        """The files below `package` are all that there is to send."""
        total = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
        self._progress.update(self._task, total=total)

    def sent(self, count: int) -> None:
        """So many bytes more."""
        self._progress.update(self._task, advance=count, description="sending")


@contextmanager
def _bar() -> Iterator[_Bar]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        yield _Bar(progress)


@contextmanager
def _explained() -> Iterator[None]:
    """Our errors as failures, and those of the user's AWS configuration."""
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except (BackendUnavailable, BackendTimeout) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise Failure(f"{error.detail}{cause}", exit_code=UNREACHABLE) from error
    except SluiceError as error:
        raise Failure(said_of(error)) from error
    except BotoCoreError as error:  # no such profile, no region
        raise Failure(f"Your AWS configuration cannot be used: {error}", exit_code=USAGE) from error
