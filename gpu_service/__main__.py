"""`python -m gpu_service serve`: what SageMaker starts in the container."""

import os
import signal
import sys

if __name__ == "__main__":
    # Process 1, as which a container starts this, hears only the signals that it handles: one that comes while the rest
    # is imported would be lost. Nothing has been accepted yet, so there is nothing to be answered.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

import asyncio
import logging

import uvloop

from gpu_service.bootstrap import Container
from gpu_service.logs import configure, fields
from gpu_service.settings import Settings
from shared.domain.settings import SettingsError, load

_log = logging.getLogger("gpu_service")

# How long a thread that comes back from a model may wait for the interpreter while the event loop is busy; the default
# of 5 ms is longer than many a model runs.
_SWITCH_INTERVAL_S = 0.0005


def main(arguments: list[str], environ: dict[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    if arguments != ["serve"]:
        sys.stderr.write("usage: python -m gpu_service serve\n")
        sys.stderr.write("Its settings are environment variables: docs/operations.md lists them.\n")
        return 2
    try:
        settings = load(Settings, environ)
        configure(settings.log_level)
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, environ))
    except SettingsError as error:
        sys.stderr.write(f"The container cannot start: {error}\n")
        return 2


async def _serve(settings: Settings, environ: dict[str, str]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stop, number)
    container = Container(settings, environ)
    try:
        await container.start()
    except OSError as error:
        sys.stderr.write(
            f"The container cannot listen: {error.strerror or error}. "
            "SAGEMAKER_BIND_TO_PORT and SLUICE_GRPC_PORT move its ports.\n"
        )
        return 1
    _log.info("listening", extra=fields(host=settings.host, port=settings.port, grpc_port=settings.grpc_port))
    await stop.wait()
    await container.stop()
    return 0


def _stop(stop: asyncio.Event, number: int) -> None:
    _log.info("stopping", extra=fields(signal=signal.Signals(number).name))
    stop.set()


if __name__ == "__main__":
    STATUS = main(sys.argv[1:], dict(os.environ))
    logging.shutdown()
    sys.stdout.flush()
    # A model that is still running, or still being loaded, must not hold the process: its time is over.
    os._exit(STATUS)
