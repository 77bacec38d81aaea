"""`python -m gpu_service serve`: what SageMaker starts in the container."""

import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import uvicorn

from gpu_service.bootstrap import Container, build
from gpu_service.logs import configure
from gpu_service.settings import Settings
from shared.domain.settings import SettingsError, load

_log = logging.getLogger("gpu_service")


def main(arguments: list[str], environ: dict[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    if arguments != ["serve"]:
        sys.stderr.write("usage: python -m gpu_service serve\n")
        return 2
    try:
        settings = load(Settings, environ)
        container = build(settings)
    except SettingsError as error:
        sys.stderr.write(f"The container cannot start: {error}\n")
        return 2
    configure(settings.log_level)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    return _serve(container, settings)


def _serve(container: Container, settings: Settings) -> int:
    server = uvicorn.Server(
        uvicorn.Config(
            container.app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # Longer than callers keep idle connections: they end them, not the server, so no request meets a reset.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=settings.drain_seconds,
        )
    )
    container.loader.start()
    try:
        # uvicorn stops listening at SIGTERM, answers what it has accepted, then raises the signal again.
        server.run()
    except SystemExit as ended:
        return int(ended.code or 0) or (0 if server.started else 1)
    finally:
        container.loader.stop()
        container.pool.close()
    return 0


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    _log.info("stopping", extra={"fields": {"signal": signal.Signals(number).name}})
    raise SystemExit(0)


if __name__ == "__main__":
    STATUS = main(sys.argv[1:], dict(os.environ))
    logging.shutdown()
    sys.stdout.flush()
    # A model that is still running, or still being loaded, must not hold the process: its time is over.
    os._exit(STATUS)
