"""Routes of the data plane."""

from fastapi import APIRouter

from functions.predict import jobs, operations, v1, v2
from shared.web.routing import direct_router


def router() -> APIRouter:
    """All of them, in the order in which they are tried: those that are asked most come first."""
    routes = direct_router()
    v1.add_routes(routes)
    v2.add_routes(routes)
    jobs.add_routes(routes)
    operations.add_routes(routes)
    return routes
