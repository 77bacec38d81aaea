"""The command `sluice`. Modules that take time to load are imported by the commands that need them."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from infra.cli import (
    apply,
    audit,
    batch,
    cost,
    doctor,
    endpoint_stats,
    endpoints,
    env,
    features,
    invoke,
    jobs,
    keys,
    logs,
    models,
    plans,
    predict,
    publish,
    redrive,
    stack,
    tenants,
    traffic,
    trigger,
    uploads,
    webhook_deliveries,
    webhooks,
)
from infra.cli.output import Failure
from infra.cli.problems import said_of
from shared.domain.errors import SluiceError

HELP = """Put ONNX models behind a URL.

`sluice up` starts the whole stack on this machine. The other commands then find it through .sluice/local.json in the
project's folder (SLUICE_HOME names another folder than .sluice). A deployed stack is named by --stack, with your own
AWS credentials, or by --url and --key where a command only calls the API.

Times for people are UTC, such as 2026-11-21 17:44:30Z; with --json they are RFC 3339.

\b
Exit codes:
  0    done
  1    failed: the API or the stack said no
  2    wrong usage
  3    the stack is not up, or cannot be reached
  4    `apply --dry-run --exit-code`: there is something to change
  130  ended with Ctrl-C
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
            Failure(said_of(error)).show()
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
app.command(help=cost.HELP)(cost.cost)
app.command(help=apply.HELP)(apply.apply)
app.command(help=traffic.HELP)(traffic.traffic)
app.command(help=trigger.HELP)(trigger.trigger)


def _group(name: str, summary: str) -> typer.Typer:
    group = typer.Typer(
        help=summary, no_args_is_help=True, rich_markup_mode=None, context_settings={"max_content_width": 100}
    )
    app.add_typer(group, name=name)
    return group


_tenants = _group("tenants", tenants.GROUP_HELP)
_tenants.command("create", help=tenants.CREATE_HELP)(tenants.create)
_tenants.command("list", help=tenants.LIST_HELP)(tenants.list_)
_tenants.command("show", help=tenants.SHOW_HELP)(tenants.show)
_tenants.command("update", help=tenants.UPDATE_HELP)(tenants.update)
_tenants.command("usage", help=tenants.USAGE_HELP)(tenants.usage)
_plans = _group("plans", plans.GROUP_HELP)
_plans.command("list", help=plans.LIST_HELP)(plans.list_)
_plans.command("show", help=plans.SHOW_HELP)(plans.show)
_plans.command("set", help=plans.SET_HELP)(plans.set_)
_keys = _group("keys", keys.GROUP_HELP)
_keys.command("create", help=keys.CREATE_HELP)(keys.create)
_keys.command("list", help=keys.LIST_HELP)(keys.list_)
_keys.command("rotate", help=keys.ROTATE_HELP)(keys.rotate)
_keys.command("revoke", help=keys.REVOKE_HELP)(keys.revoke)
_keys.command("bind-role", help=keys.BIND_ROLE_HELP)(keys.bind_role)
_endpoints = _group("endpoints", endpoints.GROUP_HELP)
_endpoints.command("list", help=endpoints.LIST_HELP)(endpoints.list_)
_endpoints.command("show", help=endpoints.SHOW_HELP)(endpoints.show)
_endpoints.command("apply", help=apply.HELP)(apply.apply)
_endpoints.command("history", help=endpoints.HISTORY_HELP)(endpoints.history)
_endpoints.command("stats", help=endpoint_stats.HELP)(endpoint_stats.stats)
_endpoints.command("rollback", help=endpoints.ROLLBACK_HELP)(endpoints.rollback)
_features = _group("features", features.GROUP_HELP)
_features.command("put", help=features.PUT_HELP)(features.put)
_features.command("get", help=features.GET_HELP)(features.get)
_features.command("delete", help=features.DELETE_HELP)(features.delete)
_batch = _group("batch", batch.GROUP_HELP)
_batch.command("run", help=batch.RUN_HELP)(batch.run)
_jobs = _group("jobs", jobs.GROUP_HELP)
_jobs.command("submit", help=jobs.SUBMIT_HELP)(jobs.submit)
_jobs.command("list", help=jobs.LIST_HELP)(jobs.list_)
_jobs.command("show", help=jobs.SHOW_HELP)(jobs.show)
_jobs.command("cancel", help=jobs.CANCEL_HELP)(jobs.cancel)
_jobs.command("retry", help=jobs.RETRY_HELP)(jobs.retry)
_jobs.command("redrive", help=redrive.HELP)(redrive.redrive)
_uploads = _group("uploads", uploads.GROUP_HELP)
_uploads.command("put", help=uploads.PUT_HELP)(uploads.put)
_webhooks = _group("webhooks", webhooks.GROUP_HELP)
_webhooks.command("add", help=webhooks.ADD_HELP)(webhooks.add)
_webhooks.command("list", help=webhooks.LIST_HELP)(webhooks.list_)
_webhooks.command("show", help=webhooks.SHOW_HELP)(webhooks.show)
_webhooks.command("change", help=webhooks.CHANGE_HELP)(webhooks.change)
_webhooks.command("remove", help=webhooks.REMOVE_HELP)(webhooks.remove)
_webhooks.command("rotate", help=webhooks.ROTATE_HELP)(webhooks.rotate)
_webhooks.command("test", help=webhook_deliveries.TEST_HELP)(webhook_deliveries.send_test)
_webhooks.command("deliveries", help=webhook_deliveries.DELIVERIES_HELP)(webhook_deliveries.deliveries)
_webhooks.command("redeliver", help=webhook_deliveries.REDELIVER_HELP)(webhook_deliveries.redeliver)
_webhooks.command("listen", help=webhook_deliveries.LISTEN_HELP)(webhook_deliveries.listen)
_audit = _group("audit", audit.GROUP_HELP)
_audit.command("verify", help=audit.VERIFY_HELP)(audit.verify)
_audit.command("show", help=audit.SHOW_HELP)(audit.show)

if __name__ == "__main__":
    app()
