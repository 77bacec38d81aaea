"""The FastAPI application of a function, assembled the same way for all of them."""

import logging
from collections.abc import Iterable
from http import HTTPStatus

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from shared.domain.errors import FieldError, InvalidRequest, SluiceError, pointer
from shared.web.middleware import Observed, RequestMiddleware
from shared.web.problems import problem, problem_of
from shared.web.requests import record_of, speaks_v2


def create_app(
    routers: Iterable[APIRouter], services: object, log: logging.Logger, observed: Observed | None = None
) -> FastAPI:
    """An application whose every error answer is a problem document.

    `services` is what the routes work with; they find it as `request.app.state.services`. The document of the API is
    not made here: one function serves it for all of them.
    """
    # The routes themselves and not the routers: an included router costs every request a second round of matching.
    routes = [route for router in routers for route in router.routes]
    app = FastAPI(routes=routes, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.services = services
    app.state.cold = True  # until the first request has been answered
    app.add_exception_handler(SluiceError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameters)
    app.add_middleware(RequestMiddleware, log=log, observed=observed or Observed())
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, SluiceError):
        raise error
    record = record_of(request.scope)
    record.log["code"] = error.code
    answer = problem_of(error, record.request_id, v2=speaks_v2(request.scope))
    if answer.status_code >= 500:  # ours to mend: the log says why, the answer to the caller only what
        record.log.update(error=error.detail, cause=repr(error.__cause__))
    return answer


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """FastAPI's own answers: no such route, method not allowed."""
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    record = record_of(request.scope)
    record.log["code"] = code = status.name.lower()
    return problem(
        status,
        code=code,
        title=status.phrase,
        detail=f"{request.method} {request.url.path}: {status.phrase}.",
        request_id=record.request_id,
        headers=error.headers,
        v2=speaks_v2(request.scope),
    )


async def _on_invalid_parameters(request: Request, error: Exception) -> Response:
    """FastAPI's own answer to a parameter that is not of the declared type."""
    if not isinstance(error, RequestValidationError):
        raise error
    record = record_of(request.scope)
    record.log["code"] = InvalidRequest.code
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        code=InvalidRequest.code,
        title=InvalidRequest.title,
        detail="A parameter is missing or not of its type.",
        request_id=record.request_id,
        fields=[FieldError(pointer("", *item["loc"]), item["msg"]) for item in error.errors()[:8]],
        v2=speaks_v2(request.scope),
    )
