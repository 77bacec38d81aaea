"""`python -m infra.packaging`: stage what `sam deploy` takes."""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.packaging.build import Build, Stage
from infra.packaging.errors import PackagingError
from infra.packaging.interpreter import VARIABLE, VERSION, find_interpreter
from infra.packaging.platforms import PLATFORMS
from infra.packaging.sizes import check_limits, megabytes, rows

ROOT = Path(__file__).parents[2]


class Architecture(StrEnum):
    """What can be asked for."""

    X86_64 = "x86_64"
    ARM64 = "arm64"
    BOTH = "both"


def main(
    arch: Annotated[Architecture, typer.Option(help="Architecture of the functions.")] = Architecture.BOTH,
    out: Annotated[Path, typer.Option(help="Folder for the stages.")] = Path("build"),
    cache: Annotated[Path, typer.Option(help="Folder in which layers are kept.")] = Path("build/layers"),
    python313: Annotated[str, typer.Option(help=f"A Python {VERSION}, to compile what is shipped.")] = "",
) -> None:
    """Stage what `sam build` and `sam deploy` take in OUT/stage/<architecture>, without Docker."""
    console = Console()
    architectures = list(PLATFORMS) if arch is Architecture.BOTH else [arch.value]
    try:
        interpreter = find_interpreter(python313 or None, os.environ)
        if interpreter is None:
            console.print(
                f"[yellow]warning:[/] no Python {VERSION} was found, so no .pyc files are shipped and cold starts take "
                f"longer: name one with {VARIABLE}=…"
            )
        build = Build(ROOT, out.resolve(), cache.resolve(), interpreter)
        stages = _run(build, architectures, console)
        for stage in stages:
            _show(stage, console)
        for stage in stages:
            check_limits(stage.functions)
    except PackagingError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None


def _run(build: Build, architectures: Sequence[str], console: Console) -> list[Stage]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("Building", total=build.steps(architectures))
        return build.run(architectures, lambda step: bar.update(task, advance=1, description=step))


def _show(stage: Stage, console: Console) -> None:
    table = Table(title=f"{stage.architecture}: {_short(stage.folder)}", title_justify="left")
    for heading, justify in (("artefact", "left"), ("zipped", "right"), ("unzipped", "right"), ("SHA-256", "left")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    for row in rows(stage.artefacts):
        table.add_row(*row)
    table.add_section()
    for function in stage.functions:
        limit = f"of {megabytes(function.limit)}"
        table.add_row(f"{function.name} + layers", megabytes(function.zipped), megabytes(function.unzipped), limit)
    console.print(table)


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    typer.run(main)
