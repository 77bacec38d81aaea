"""Routes of the admin API."""

from fastapi import APIRouter

from functions.admin import endpoints, features, keys, plans, tenants, traffic
from shared.web.routing import direct_router


def router() -> APIRouter:
    """The routes, with what they say of themselves in the OpenAPI document."""
    routes = direct_router()
    for part in (keys, tenants, plans, endpoints, traffic, features):
        part.add_routes(routes)
    return routes
