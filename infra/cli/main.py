"""The command `sluice`. Modules that take time to load are imported by the commands that need them."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from infra.cli import doctor, env, invoke, keys, logs, models, predict, publish, stack
from infra.cli.output import Failure
from shared.domain.errors import SluiceError

HELP = """Put ONNX models behind a URL.

`sluice up` starts the whole stack on this machine. The other commands then find it through .sluice/local.json in the
project's folder (SLUICE_HOME names another folder than .sluice); models and predict work with any deployed API, too.

\b
Exit codes:
  0  done
  1  failed: the API or the stack said no
  2  wrong usage
  3  the stack is not up, or cannot be reached
"""


class _Group(TyperGroup):
    """Shows failures as one sentence, and ends with their exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            failure.show()
            raise typer.Exit(failure.exit_code) from None
        except SluiceError as error:
            Failure(f"{error.title}: {error.detail}").show()
            raise typer.Exit(1) from None
        except BrokenPipeError:  # `sluice logs | head`: Typer ends quietly
            raise
        except OSError as error:
            Failure(str(error)).show()
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Group,
    help=HELP,
    no_args_is_help=True,
    # Help through rich takes twice the time of everything else.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("sluice"))
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command(help=publish.HELP)(publish.publish)
app.command(help=models.HELP)(models.models)
app.command(help=predict.HELP)(predict.predict)
app.command(help=invoke.HELP)(invoke.invoke)
app.command(help=logs.HELP)(logs.logs)
app.command(help=env.HELP)(env.env)
app.command(help=doctor.HELP)(doctor.doctor)
_keys = typer.Typer(
    help=keys.GROUP_HELP, no_args_is_help=True, rich_markup_mode=None, context_settings={"max_content_width": 100}
)
_keys.command("create", help=keys.HELP)(keys.create)
app.add_typer(_keys, name="keys")

if __name__ == "__main__":
    app()
