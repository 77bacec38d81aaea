"""`sluice up`, `down` and `status`."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Annotated, Any

import typer

from infra.cli.local import not_up, project_root, shown
from infra.cli.options import JsonOption
from infra.cli.output import UNREACHABLE, USAGE, Failure, console, print_json
from infra.cli.progress import Steps
from infra.cli.tables import print_table
from infra.local.home import MARK, Home, LocalStack
from infra.local.ports import Ports, PortTaken

DETACH_LIMIT_S = 150
STOP_LIMIT_S = 20


def _port(name: str, what: str) -> Any:
    return typer.Option(min=1, max=65_535, envvar=Ports.variable(name), help=f"Port of {what}.", show_default=True)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once the stack is ready; `sluice down` ends it.")
    ] = False,
    aws_endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Run on this AWS endpoint (DynamoDB Local, LocalStack) instead of the built-in one."
        ),
    ] = None,
    port: Annotated[int, _port("api", "the API")] = Ports.api,
    container_port: Annotated[int, _port("container", "the container over HTTP")] = Ports.container,
    grpc_port: Annotated[int, _port("grpc", "the container over gRPC")] = Ports.grpc,
    aws_port: Annotated[int, _port("aws", "the AWS services")] = Ports.aws,
    sagemaker_port: Annotated[int, _port("sagemaker", "SageMaker Runtime")] = Ports.sagemaker,
    lambda_port: Annotated[int, _port("lambda_", "the Lambda service")] = Ports.lambda_,
    detached: Annotated[bool, typer.Option(hidden=True, help="Set by --detach.")] = False,
) -> None:
    """Start the whole stack here, with the example models.

    Everything listens on 127.0.0.1.
    Stays in the foreground until Ctrl-C, which ends every process it started. What is stored lives until then.
    """
    os.umask(0o077)  # logs hold what requests said, and local.json holds keys: nobody else may read them
    home = Home.find()
    if not (project_root(home) / MARK).is_file():
        raise Failure(f"There is no {MARK} in this folder or above: go to the project's folder.", exit_code=USAGE)
    if detach:
        _detach(home, aws_endpoint, {name: value for name, value in locals().items() if name.endswith("port")})
        return
    ports = Ports(port, container_port, grpc_port, aws_port, sagemaker_port, lambda_port)
    try:
        home.claim()
        try:
            asyncio.run(_run(home, ports, aws_endpoint, show_key=not detached))
        finally:
            home.release()
    except (RuntimeError, PortTaken) as error:
        raise Failure(str(error)) from None


async def _run(home: Home, ports: Ports, aws_endpoint: str | None, *, show_key: bool) -> None:
    from infra.local.intrinsics import TemplateError
    from infra.local.supervisor import StackFailed, Supervisor

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    root = project_root(home)
    models = tuple(sorted(path.parent for path in (root / "build/models").glob("*/*/manifest.json")))
    start = time.monotonic()
    supervisor = Supervisor(root, home, ports, models, aws_endpoint)
    try:
        await supervisor.run(
            Steps(console), lambda local: _welcome(local, home, time.monotonic() - start, show_key=show_key), stopped
        )
    except (TemplateError, StackFailed) as error:
        raise Failure(str(error)) from None
    console.print("The stack is down: every process that it started has ended.")


def _welcome(local: LocalStack, home: Home, seconds: float, *, show_key: bool) -> None:
    console.print(
        f"\nSluice is ready after {seconds:.1f} s: [bold]{local.api_url}[/] (its contract: {local.api_url}/docs)\n"
    )
    if not show_key:
        return
    console.print("A first prediction, to paste into another terminal:\n")
    body = '{"instances": ["A man is eating food."]}'
    console.print(
        f"curl -s {local.api_url}/v1/models/embed/predict \\\n"
        f"  -H 'Authorization: Bearer {local.api_key}' \\\n"
        f"  -H 'Content-Type: application/json' -d '{body}'",
        soft_wrap=True,
        highlight=False,
    )
    console.print(
        f"\nKeys and addresses are in {_local_json(home)}. Ctrl-C (or `sluice down`) ends everything.\n",
        markup=False,
        soft_wrap=True,
    )


def _local_json(home: Home) -> str:
    return shown(home.folder / "local.json")


def _detach(home: Home, aws_endpoint: str | None, ports: dict[str, int]) -> None:
    if (pid := home.running()) is not None:
        raise Failure(f"The stack runs already, as process {pid}. `sluice down` ends it.")
    home.logs.mkdir(parents=True, exist_ok=True)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in ports.items()]
    if aws_endpoint:
        arguments.append(f"--aws-endpoint={aws_endpoint}")
    log = home.logs / "stack.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli.main", "up", "--detached", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + DETACH_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if (local := home.read()) is not None and local.pid == process.pid:
            text = f"Sluice is ready: {local.api_url} (keys and addresses: {_local_json(home)})"
            console.print(text, markup=False, soft_wrap=True)
            return
        time.sleep(0.05)
    if process.poll() is None:
        process.terminate()
        process.wait(STOP_LIMIT_S)
    raise Failure(f"The stack did not start. {log} ends with:\n{log.read_text()[-2000:].strip()}")


def down() -> None:
    """End the stack.

    And every process that it started; what it stored is gone.
    """
    home = Home.find()
    if (pid := home.running()) is None:
        console.print(f"No stack is up in {home.folder}.", soft_wrap=True)
        return
    import psutil

    process = psutil.Process(pid)
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except psutil.TimeoutExpired:
        # Its children die with it: the kernel sees to that.
        process.kill()
        process.wait(STOP_LIMIT_S)
    home.release()
    console.print("The stack is down.")


def status(as_json: JsonOption = False) -> None:
    """Show whether the stack is up.

    With its functions' environments and its queues. Exits with 0 only while it is up and ready.
    """
    import urllib3

    home = Home.find()
    local = home.read()
    if local is None:
        if as_json:
            print_json({"up": False})
        raise Failure(not_up(home), exit_code=UNREACHABLE, quiet=as_json)
    http = urllib3.PoolManager(timeout=urllib3.Timeout(5), retries=False)
    try:
        ready = http.request("GET", f"{local.api_url}/ready", timeout=30)
        functions = http.request("GET", f"{local.lambda_url}/_sluice/status").json()
        queues = http.request("GET", f"{local.lambda_url}/_sluice/queues").json().get("queues", [])
    except urllib3.exceptions.HTTPError as error:
        raise Failure(
            f"The stack runs as process {local.pid} but does not answer: {error}", exit_code=UNREACHABLE
        ) from None
    if as_json:
        facts = {"up": True, "pid": local.pid, "api_url": local.api_url, "ready": ready.json()}
        print_json({**facts, "lambda": functions, "queues": queues})
    else:
        console.print(f"The stack is up as process {local.pid}: {local.api_url}, /ready answers {ready.status}.")
        _show_environments(functions["functions"])
        if queues:
            console.print()
            _show_queues(queues)
    if ready.status != 200:
        raise typer.Exit(1)


def _show_environments(functions: list[dict[str, Any]]) -> None:
    rows = []
    for function in functions:
        states = Counter(environment["state"] for environment in function["environments"])
        rows.append(
            [
                function["logical_id"],
                ", ".join(f"{count} {state}" for state, count in states.items()) or "none yet",
                sum(environment["invocations"] for environment in function["environments"]),
                function["queued"],
            ]
        )
    numbers = ("invocations", "waiting")
    print_table(("function", "environments", *numbers), rows, right=numbers, whole=("function", *numbers))


def _show_queues(queues: list[dict[str, Any]]) -> None:
    numbers = ("waiting", "in flight", "delayed")
    print_table(
        ("queue", *numbers),
        [[queue["logical_id"], *(queue[name.replace(" ", "_")] for name in numbers)] for queue in queues],
        right=numbers,
        whole=("queue", *numbers),
        # Dead letters are what somebody should look at.
        marked=[at for at, each in enumerate(queues) if each["dead_letters"] and each["waiting"] + each["in_flight"]],
    )
