"""Routes of the admin API."""

from fastapi import APIRouter

from functions.admin import endpoints, keys, plans, tenants
from shared.web.routing import direct_router


def router() -> APIRouter:
    """The routes, with what they say of themselves in the OpenAPI document."""
    routes = direct_router()
    for part in (keys, tenants, plans, endpoints):
        part.add_routes(routes)
    return routes
