"""The data plane under Lambda SnapStart: loaded and warm before the snapshot, unlike its siblings after it.

The snapshot holds code, routes and what botocore reads from disk. It holds no connection, no prediction, no package and
no answer of a store: those would be as old as the release.
"""

import logging
from collections.abc import Callable
from time import perf_counter
from typing import cast

from botocore.session import Session
from fastapi import FastAPI
from mangum.types import LambdaContext

from functions.predict.services import Services
from shared.adapters.snapstart import fresh_session, register, reseed
from shared.web.http_event import http_event
from shared.web.lambda_handler import Handler

_NO_INVOCATION = cast("LambdaContext", None)


def register_hooks(
    app: FastAPI,
    handler: Handler,
    session: Session,
    *,
    services: Callable[[Session], Services],
    warm_up: Callable[[Session], None],
    log: logging.Logger,
) -> None:
    """Have Lambda's runtime prepare `app` for a snapshot, and for what is restored from it.

    `services` makes what the routes work with; `warm_up` loads into `session` what the clients of a first prediction
    need. RuntimeError, which stops the publication of the version, if the function does not even say that it lives.
    """

    def before_snapshot() -> None:
        warm_up(session)
        answer = handler(http_event("GET", "/health"), _NO_INVOCATION)
        if answer["statusCode"] != 200:
            raise RuntimeError(f"/health answered {answer['statusCode']} before the snapshot")

    def after_restore() -> None:
        start = perf_counter()
        reseed()
        # All of them anew: they hold the clients, the answers of the registry, the report of readiness.
        app.state.services = services(fresh_session(session))
        app.state.cold = True
        fields = {"ms": round((perf_counter() - start) * 1e3, 3)}
        log.info("restored from a snapshot", extra={"fields": fields})

    register(before_snapshot=before_snapshot, after_restore=after_restore)
