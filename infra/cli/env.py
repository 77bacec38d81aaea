"""`sluice env`: what `sam local` needs to run the functions on the stores of the local stack."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit, urlunsplit

import typer

from infra.cli.local import project_root, running_stack
from infra.cli.options import help_text
from infra.cli.output import USAGE, Failure, messages, print_json
from infra.cli.tables import print_table
from infra.local.home import MARK, Home, LocalStack

if TYPE_CHECKING:
    from collections.abc import Mapping

HELP = help_text(
    "Show the environment of the functions.",
    "With --json as the file for sam local's --env-vars. The functions that `sam local` runs in containers then use "
    "the tables, the bucket and the endpoint of the running local stack. In a container 127.0.0.1 is the container "
    "itself: --host names this machine as containers see it. Docker Desktop passes that on to 127.0.0.1. On Linux it "
    "does not: run `sluice env --relay ADDRESS` beside it, with the address of Docker's bridge, and give `sam local` "
    "--add-host host.docker.internal:host-gateway.",
    "sluice env --json > env.json",
    "sluice env --relay 172.17.0.1",
    "sluice env --json --host 127.0.0.1",
)
HOST: Final = "host.docker.internal"
ENDPOINT: Final = "AWS_ENDPOINT_URL"
SAGEMAKER_ENDPOINT: Final = "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"
_CHUNK: Final = 64 * 1024
_CONNECT_TIMEOUT_S: Final = 3.0
_MAX_CONNECTIONS: Final = 128


def env(
    host: Annotated[
        str, typer.Option(metavar="HOST", help="This machine, as the functions' containers see it.")
    ] = HOST,
    relay: Annotated[
        str | None,
        typer.Option(help="Pass what comes to this address on to the local stack, until Ctrl-C.", metavar="ADDRESS"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file for --env-vars.")] = False,
) -> None:
    """Print the environment, or relay."""
    local = running_stack()
    if relay is not None:
        if as_json:
            raise Failure("--relay prints nothing: use it without --json.", exit_code=USAGE)
        _run_relay(local, relay)
        return
    variables = environments(local, host)
    if as_json:
        print_json(variables)
    else:
        _show(variables)


def environments(local: LocalStack, host: str) -> "dict[str, dict[str, str]]":
    """The variables of each function, by logical id (`Nested/LogicalId` in a nested stack).

    `sam local` resolves no references and passes only what the template declares, so every declared variable is given
    its value in the local stack.
    Source: samcli/local/lambdafn/env_vars.py and samcli/commands/local/lib/local_lambda.py of SAM CLI 1.170.
    """
    from infra.local.supervisor import PARAMETERS
    from infra.local.template import TemplateError, load_stack

    home = Home.find()
    try:
        stack = load_stack(project_root(home) / MARK, parameters=PARAMETERS, cache_dir=home.cache)
    except TemplateError as error:
        raise Failure(f"The template cannot be used: {error}") from error
    endpoints = {
        ENDPOINT: _seen_from_container(local.aws_endpoint_url, host),
        SAGEMAKER_ENDPOINT: _seen_from_container(local.sagemaker_runtime_url, host),
    }
    return {
        logical_id.replace(".", "/"): {
            name: endpoints.get(name, value) for name, value in sorted(spec.environment.items())
        }
        for logical_id, spec in sorted(stack.functions.items())
    }


def _show(variables: "Mapping[str, Mapping[str, str]]") -> None:
    header = ("function", "variable", "value")
    rows = [
        [function if number == 0 else "", *variable]
        for function, own in variables.items()
        for number, variable in enumerate(own.items())
    ]
    print_table(header, rows, whole=header)
    messages.print(
        "For `sam local`: sluice env --json > env.json, then\n"
        "  sam local invoke PredictFunction --event tests/events/predict.json --env-vars env.json\n"
        "  sam local start-api --env-vars env.json",
        style="dim",
        markup=False,
        soft_wrap=True,
    )


def _seen_from_container(url: str, host: str) -> str:
    """The address with the host replaced where it is this machine's own; another machine's stays."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return url
    netloc = f"[{host}]" if ":" in host else host
    return urlunsplit(parts._replace(netloc=f"{netloc}:{parts.port}" if parts.port else netloc))


# ---------------------------------------------------------------- the relay
def _run_relay(local: LocalStack, address: str) -> None:
    ports = [urlsplit(url).port for url in (local.aws_endpoint_url, local.sagemaker_runtime_url)]
    try:
        asyncio.run(_relay(address, sorted({port for port in ports if port})))
    except KeyboardInterrupt:
        messages.print("The relay has ended.")
    except OSError as error:
        raise Failure(f"{address} cannot be listened on: {error.strerror or error}.", exit_code=USAGE) from error


async def _relay(address: str, ports: list[int]) -> None:
    slots = asyncio.Semaphore(_MAX_CONNECTIONS)
    servers = []
    for port in ports:

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port) -> None:
            async with slots:
                await _connect(reader, writer, port)

        servers.append(await asyncio.start_server(forward, address, port))
    messages.print(
        f"Relaying {address} to 127.0.0.1, ports {', '.join(map(str, ports))}: whoever reaches that address "
        "reaches the local stores. Ctrl-C ends it.",
        markup=False,
    )
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:  # the stack is down: close, as its own port would (TimeoutError is an OSError)
        writer.close()
        return
    try:
        await asyncio.gather(_pump(reader, onward_writer), _pump(onward_reader, writer))
    finally:
        onward_writer.close()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except ConnectionError:  # one side has hung up: so does the other
        writer.close()
